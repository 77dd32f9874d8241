"""The profiling actor: one at a time, on cores of its own while it measures and on none in between."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle

from grid import trial
from grid.cores import CoreLease, pinned
from grid.latency import LatencySpec
from grid.plan import Node
from grid.settings import read_group


class Profiler:
    """Runs profile nodes on leased cores of this machine; training workers lease theirs from the same folder."""

    def __init__(self, core_folder: Path, cores: Iterable[int] | None = None) -> None:
        self.leases = CoreLease(Path(core_folder), cores)

    def run(self, node: Node, context: trial.Context) -> dict[str, Any]:
        """Wait for as many cores as the node measures with threads, compute it pinned to them, free them.

        Returns the node's record; raises what the stage raises.
        """
        spec: LatencySpec = read_group(node.settings, "latency")
        with self.leases.lease(spec.threads) as cores, pinned(cores):
            return trial.run_node(node, context)


def start_profiler(core_folder: Path, cores: Iterable[int] | None = None) -> ActorHandle:
    """Start the actor named ``profiler`` on a running Ray and return it: ``handle.run.remote(node, context)``.

    It asks Ray for no CPU: it would block one for the whole run. ``cores`` are those of the run (default: those
    the actor finds itself on). Calls are served one after the other; a crashed actor is started again.
    """
    actor: Any = ray.remote(Profiler).options(name="profiler", num_cpus=0, max_restarts=3, max_task_retries=1)
    return actor.remote(Path(core_folder), None if cores is None else tuple(cores))
