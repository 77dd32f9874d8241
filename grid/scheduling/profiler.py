"""The profiling actors: one a machine that measures, on cores of its own while it does and on none in between."""

import time
from collections.abc import Iterable
from functools import partial
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from grid.planning.plan import Node
from grid.planning.stage import PROFILER
from grid.scheduling.cores import on_own_cores
from grid.space.settings import LatencySpec, read_group
from grid.stages.run import run_node
from grid.stages.work import Context

_NEW_NODE_S, _LOOK_EVERY_S = 60.0, 0.2
_REFRESH_S = 5.0


class Profiler:
    """Runs profile nodes on leased cores of this machine; its workers lease theirs from the same folder."""

    def __init__(self, cores: Iterable[int] | None = None) -> None:
        self.cores = cores

    def run(self, node: Node, context: Context) -> dict[str, Any]:
        """Wait for as many cores as the node measures with threads, compute it pinned to them, free them.

        Hyper-threads of these cores stay idle meanwhile, where there is more than one physical core.

        Returns the node's record; raises what the stage raises.
        """
        context = context.here()
        spec: LatencySpec = read_group(node.settings, "latency")
        place = partial(on_own_cores, context.storage / "cores", self.cores, spec.threads, whole=True)
        return run_node(node, context, place=place)


class Profilers:
    """One actor on every node with the resource ``profiler``, or on the driver's own where no node has it.

    An actor asks Ray for no CPU: it would block one for the whole run. Its calls are served one after the other; one
    that crashes is started again, and nodes may come and go. ``cores`` are those of the run, None for all of a node.
    They start with the first ``refresh``.
    """

    def __init__(self, cores: Iterable[int] | None = None) -> None:
        self.cores = None if cores is None else tuple(cores)
        self.home = ray.get_runtime_context().get_node_id()
        self.actors: dict[str, ActorHandle[Any]] = {}
        self.looked_at = float("-inf")

    def refresh(self) -> None:
        """Start the actors that are missing; looks every few seconds, however often it is called."""
        if time.monotonic() - self.looked_at < _REFRESH_S:
            return
        self.looked_at = time.monotonic()
        alive = [node for node in ray.nodes() if node["Alive"]]
        measuring = [node["NodeID"] for node in alive if node["Resources"].get(PROFILER)] or [self.home]
        self.actors = {node: self.actors.get(node) or self._start(node) for node in measuring}

    def stop(self) -> None:
        """End the actors."""
        for actor in self.actors.values():
            ray.kill(actor)

    def _start(self, node_id: str) -> ActorHandle[Any]:
        return started_actor(Profiler, _name(node_id), node_id, self.cores)


def started_actor(kind: type, name: str, node_id: str, *given: Any, calls: int = 1) -> ActorHandle[Any]:
    """An actor on a node that serves so many ``calls`` at a time, asks for no CPU, and is started again if it dies."""
    actor: Any = ray.remote(kind).options(
        name=name,
        num_cpus=0,
        max_restarts=-1,
        max_concurrency=calls,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
    )
    handle: ActorHandle[Any] = actor.remote(*given)
    return handle


def profiler_of(node_id: str) -> Any:
    """The actor of a node; that of a node which has just been added is waited for.

    Raises ValueError where there is none after a minute.
    """
    return actor_called(_name(node_id))


def actor_called(name: str) -> Any:
    """An actor by its name, which is waited for where it has yet to start; raises ValueError after a minute."""
    end = time.monotonic() + _NEW_NODE_S
    while True:
        try:
            return ray.get_actor(name)
        except ValueError:
            if time.monotonic() > end:
                raise
            time.sleep(_LOOK_EVERY_S)


def _name(node_id: str) -> str:
    return f"profiler-{node_id[:12]}"
