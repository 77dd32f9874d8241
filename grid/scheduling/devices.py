"""The actors of devices: one a device, on the host that reaches it; on the device itself nothing of Ray runs."""

import threading
import time
from collections.abc import Iterable
from typing import Any

import ray
from ray.actor import ActorHandle

from grid.planning.plan import Node
from grid.scheduling.profiler import actor_called, started_actor
from grid.scheduling.resources import device_labels, device_of, device_resource
from grid.stages.run import run_node
from grid.stages.work import Context
from model.progress import Progress

_REFRESH_S, _LOOK_EVERY_S = 5.0, 1.0


class DeviceActor:
    """Runs the nodes of one device, one after the other; a second thread says how far it is."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.said: dict[str, Any] = {}

    def run(self, node: Node, context: Context) -> dict[str, Any]:
        """Compute a node that is measured on the device; returns its record and raises what the stage raises."""
        with self.turn:
            return run_node(node, context.here(), self._note)

    def latest(self) -> dict[str, Any]:
        """What the running node said last."""
        return self.said

    def _note(self, info: dict[str, Any]) -> None:
        self.said = info


class DeviceActors:
    """The actors of a plan's devices; one that crashes is started again, and they start with the first ``refresh``."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.labels = device_labels(nodes)
        self.home = ray.get_runtime_context().get_node_id()
        self.actors: dict[str, tuple[str, ActorHandle[Any]]] = {}
        self.looked_at = float("-inf")

    def refresh(self) -> None:
        """Start the actors that are missing, or whose host has gone; looks every few seconds."""
        if not self.labels or time.monotonic() - self.looked_at < _REFRESH_S:
            return
        self.looked_at = time.monotonic()
        alive = [node for node in ray.nodes() if node["Alive"]]
        for label in self.labels:
            hosts = [node["NodeID"] for node in alive if node["Resources"].get(device_resource(label))] or [self.home]
            if label not in self.actors or self.actors[label][0] not in hosts:
                self.actors[label] = hosts[0], started_actor(DeviceActor, device_resource(label), hosts[0], calls=2)

    def stop(self) -> None:
        """End the actors, and with them what they run."""
        for _, actor in self.actors.values():
            ray.kill(actor)


def run_on_device(node: Node, context: Context, progress: Progress) -> None:
    """Have the node's device compute it, and pass on what it says; raises what the stage raises."""
    actor = actor_called(device_of(node))
    record = actor.run.remote(node, context)
    said: dict[str, Any] = {}
    while not ray.wait([record], timeout=_LOOK_EVERY_S)[0]:
        latest = ray.get(actor.latest.remote())
        if latest != said:
            said = latest
            progress(said)
    ray.get(record)
