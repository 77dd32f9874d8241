"""Which node runs next: Ray Tune asks, the store answers."""

from collections import Counter
from pathlib import Path
from typing import Any

import ray
from ray.tune.search import Searcher

from grid.planning.names import names_by_key, trial_name
from grid.planning.plan import Node, Plan
from grid.scheduling.listener import Observer
from grid.scheduling.resources import Resources, has_few_cores
from grid.stages.watchdog import hung_log
from grid.storage.result_store import StageStore

IDLE = "idle"
"""In place of a node id: a trial that keeps its worker while no stage is ready."""
_MOST_KEPT = 16


class DriverOnly:
    """Lives in the driver alone: Tune pickles such objects for its own restore, which is never used."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class TrieSearcher(DriverOnly, Searcher):
    """Suggests a node once all its inputs are in the store; knows what has failed and what hangs on it."""

    def __init__(self, plan: Plan, store: StageStore, resources: Resources, observer: Observer) -> None:
        super().__init__(metric="training_iteration", mode="max")
        self.store, self.resources, self.observer = store, resources, observer
        there = store.verify_all(node.id for node in plan.nodes)
        self.waiting = {node.id: node for node in plan.nodes if node.id not in there}
        self.running: dict[str, Node] = {}
        self.reasons: dict[str, str] = {}
        self.failures: dict[str, str] = {}
        self.attempts: Counter[str] = Counter()
        self.deaths: dict[str, str] = {}
        self.stopped: str | None = None
        self.depth, self.names = _work_behind(plan), names_by_key(plan)
        self.started: set[str] = set()
        self.idle: dict[str, Path] = {}
        self.starting = self.workers = self.freed = 0
        self.calls = Path()

    def keep_workers(self, count: int, calls: Path) -> None:
        """Start so many workers and keep them: those without a stage wait, each until its file in ``calls`` is gone.

        A worker takes seconds to start, and Tune stops those for which no trial waits. It also gives a trial that waits
        for its new worker the first idle one, and stops the new one: stages that are short would all run on one.
        """
        self.starting = self.workers = min(count, _MOST_KEPT, len(self.waiting))
        self.calls = calls

    def on_trial_start(self, trial_id: str) -> None:
        """A worker has begun with a trial, which no longer waits for one."""
        self.started.add(trial_id)
        if trial_id in self.running:
            self.freed = max(self.freed - 1, 0)
            node = self.running[trial_id]
            self.attempts[node.id] += 1
            self.reasons.pop(node.id, None)
        self._call_idle()

    def is_done(self) -> bool:
        """Whether nothing is left to run, or nothing more may run."""
        return not self.running and (not self.waiting or self.stopped is not None)

    def stop(self, reason: str) -> None:
        """Start no further stage: the storage cannot be written to. Those that run may end."""
        self.stopped = self.stopped or reason
        self._call_idle()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The next node as a Tune config, None while all that is left has to wait, FINISHED at the end."""
        if self.is_done():
            return Searcher.FINISHED
        if self.stopped:
            return None
        if self.starting:
            self.starting -= 1
            return self._idle(trial_id)
        node = self._next()
        if node is None and not self.running:
            self._fail_stuck()
            return Searcher.FINISHED
        if node is None:
            kept = len(self.running) + len(self.idle)
            return self._idle(trial_id) if not self._called() and kept < self.workers else None
        del self.waiting[node.id]
        self.running[trial_id] = node
        self._call_idle()
        return {
            "node": node.id,
            "stage": node.stage,
            "name": trial_name(node, self.names),
            "resources": self.resources.of(node, ray.cluster_resources()),
        }

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """A worker is free; its node is judged by the store."""
        node = self.running.pop(trial_id, None)
        self.started.discard(trial_id)
        if node is None:
            self.idle.pop(trial_id, None)
        else:
            self._judge(node)
        self._call_idle()

    def _judge(self, node: Node) -> None:
        """Report the node as done if it is in the store; otherwise fail it and all that needs it."""
        if self.store.verify(node.id):  # with a remote, this also fetches it
            self.observer.finished(node)
        elif self.stopped:
            self.waiting[node.id] = node  # no fault of its own
        else:
            self._fail(node, self.reason(node))

    def reason(self, node: Node) -> str:
        """Why a node is not there after its last attempt, in one line that names a log where there is one."""
        tried = self.attempts[node.id]
        times = f" ({tried} times)" if tried > 1 else ""
        log = hung_log(self.store.root, node.stage, node.id)
        if log.is_file() and log.stat().st_size:
            return f"{node.stage}: hung, without progress for --stall-minutes{times} (log: {log})"
        if node.id in self.reasons:
            return self.reasons[node.id] + times
        return f"{node.stage}: {self.deaths.get(node.id, 'its worker died')}{times}"

    def _idle(self, trial_id: str) -> dict[str, Any]:
        """A trial that keeps a worker."""
        call = self.idle[trial_id] = self.calls / trial_id
        call.touch()
        resources = {"CPU": float(self.resources.cpus_per_trial)}
        return {"node": IDLE, "name": f"{IDLE}-{trial_id}", "resources": resources, "until_gone": str(call)}

    def _called(self) -> int:
        """How many stages wait for a worker."""
        return sum(one not in self.started for one in self.running)

    def _call_idle(self) -> None:
        """Call as many waiting workers as there are stages for, but none before all are up; all if no stage is left."""
        waiting = [call for call in self.idle.values() if call.exists()]
        if not self.waiting or self.stopped:
            wanted = len(waiting)
        elif self.starting or any(one not in self.started for one in self.idle):
            wanted = 0
        else:
            wanted = max(self._called() - self.freed, 0)
        for call in waiting[:wanted]:
            call.unlink(missing_ok=True)
            self.freed += 1

    def _fail(self, node: Node, reason: str) -> None:
        self.failures[node.id] = reason
        self.observer.failed(node, reason)
        for other in list(self.waiting.values()):
            if other.id in self.waiting and any(upstream == node.id for _, upstream in other.inputs):
                del self.waiting[other.id]
                self._fail(other, reason)

    def _fail_stuck(self) -> None:
        """Nothing runs and nothing is ready: results were found damaged, and taken out, while the grid ran."""
        for node in list(self.waiting.values()):
            lost = [one for _, one in node.inputs if one not in self.waiting and not self.store.has(one)]
            if node.id in self.waiting and lost:
                del self.waiting[node.id]
                self._fail(node, f"{node.stage}: its input {lost[0]} is no longer in the store; --resume computes it")

    def _next(self) -> Node | None:
        """Of the ready nodes the one with the longest chain behind it; measurements last on small machines."""
        ready = [node for node in self.waiting.values() if self._is_ready(node)]
        if has_few_cores(ray.cluster_resources()):
            others = [node for node in ready if node.stage != "profile"]
            if self.running or any(node.stage != "profile" for node in self.waiting.values()):
                ready = others
        return max(ready, key=lambda node: self.depth[node.id], default=None)

    def _is_ready(self, node: Node) -> bool:
        """Whether the inputs are there: what waits or runs is not, and the disk is not asked thousands of times."""
        inputs = {upstream for _, upstream in node.inputs}
        running = (one.id for one in self.running.values())
        return inputs.isdisjoint(self.waiting) and inputs.isdisjoint(running) and all(map(self.store.has, inputs))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is the only truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the store is the only truth."""


def _work_behind(plan: Plan) -> dict[str, int]:
    """For every node a weight of the longest chain from it to an end; training counts far more than the rest."""
    weights = {"train": 1000, "finetune": 100, "equalize": 10, "calibrate": 10, "round": 10, "correct_bias": 10}
    behind: dict[str, int] = {}
    for node in reversed(plan.nodes):
        own = behind.get(node.id, 0) + weights.get(node.stage, 1)
        behind[node.id] = own
        for _, upstream in node.inputs:
            behind[upstream] = max(behind.get(upstream, 0), own)
    return behind
