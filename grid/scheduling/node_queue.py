"""Which nodes of a plan wait, which of them are ready, and which is the most urgent: bookkeeping without Ray."""

import heapq
from collections.abc import Callable, Collection, Iterator

from grid.planning.plan import Node, Plan
from grid.planning.stage import DEVICE, PROFILER
from grid.planning.stage_table import stage_named


class NodeQueue:
    """The nodes that are neither done nor running nor given up; each event costs what hangs on its node alone.

    A node is ready once all its inputs are done. Of the ready ones the one with the longest chain behind it, in
    estimated seconds, comes first.
    """

    def __init__(self, plan: Plan, done: Collection[str], train_images: int) -> None:
        """``done``: ids of the nodes in the store; ``train_images``: the size of the split that is trained on."""
        self.waiting = {node.id: node for node in plan.nodes if node.id not in done}
        self._behind = seconds_behind(plan, train_images)
        self._missing = {
            node.id: {upstream for _, upstream in node.inputs} - set(done) for node in self.waiting.values()
        }
        self._users: dict[str, list[str]] = {}
        self._ready: dict[str, list[tuple[float, int, str]]] = {}
        self._order = {node.id: number for number, node in enumerate(plan.nodes)}
        for node_id, missing in self._missing.items():
            for upstream in missing:
                self._users.setdefault(upstream, []).append(node_id)
            if not missing:
                self._push(node_id)
        self.work_left = sum(not _measures(node) for node in self.waiting.values())

    def take(
        self,
        may_measure: bool,
        is_sound: Callable[[Node], bool],
        measure_first: bool = False,
        devices: Collection[str] = (),
    ) -> Node | None:
        """Remove and return the most urgent node that is ready; None where there is none.

        ``may_measure``: whether a measurement of this machine may be it; ``measure_first``: whether it goes before all
        others, of which none is less urgent. What one of the ``devices`` that idle is to measure comes first of all. A
        node whose inputs are not ``is_sound`` any more stays, and is never ready again.
        """
        lanes = {"": 1, **({PROFILER: 0 if measure_first else 1} if may_measure else {}), **dict.fromkeys(devices, 0)}

        def place(lane: str) -> tuple[int, tuple[float, int, str]]:
            return lanes[lane], self._ready[lane][0]

        while (lane := min((one for one in lanes if self._ready.get(one)), key=place, default=None)) is not None:
            _, _, node_id = heapq.heappop(self._ready[lane])
            if node_id in self.waiting and is_sound(self.waiting[node_id]):
                return self.remove(node_id)
        return None

    def remove(self, node_id: str) -> Node:
        """Take a node out: it runs, or is given up."""
        node = self.waiting.pop(node_id)
        self.work_left -= not _measures(node)
        return node

    def put_back(self, node: Node) -> None:
        """A node that was taken waits again, and is not ready."""
        self.waiting[node.id] = node
        self.work_left += not _measures(node)

    def done(self, node_id: str) -> None:
        """The node is in the store: what waits for nothing else is ready."""
        for user in self._users.get(node_id, ()):
            self._missing[user].discard(node_id)
            if not self._missing[user] and user in self.waiting:
                self._push(user)

    def users(self, node_id: str) -> Iterator[Node]:
        """The waiting nodes that have this one as an input."""
        return (self.waiting[user] for user in self._users.get(node_id, ()) if user in self.waiting)

    def _push(self, node_id: str) -> None:
        entry = (-self._behind[node_id], self._order[node_id], node_id)
        heapq.heappush(self._ready.setdefault(_lane(self.waiting[node_id]), []), entry)


def _lane(node: Node) -> str:
    """What a node waits for: empty for any worker, the actor that measures here, or the label of a device."""
    return {PROFILER: PROFILER, DEVICE: str(node.settings.get("device"))}.get(node.device, "")


def _measures(node: Node) -> bool:
    return node.device in (PROFILER, DEVICE)


def seconds_behind(plan: Plan, train_images: int) -> dict[str, float]:
    """For every node the seconds, by the stage table, of the longest chain from it to an end."""
    behind: dict[str, float] = {}
    for node in reversed(plan.nodes):
        stage = stage_named(node.stage)
        seconds = behind.get(node.id, 0.0) + stage.seconds * stage.units(node.settings, train_images)
        behind[node.id] = seconds
        for _, upstream in node.inputs:
            behind[upstream] = max(behind.get(upstream, 0.0), seconds)
    return behind
