"""Which node runs next: Ray Tune asks, the store answers."""

import time
from collections import Counter
from typing import Any

import ray
from ray.tune.search import Searcher

from grid.planning.names import names_by_key, trial_name
from grid.planning.plan import Node, Plan
from grid.planning.stage import PROFILER
from grid.planning.users import users_by_node, users_named
from grid.scheduling.calls import Calls
from grid.scheduling.listener import Listener
from grid.scheduling.node_queue import NodeQueue
from grid.scheduling.resources import Resources, device_labels, device_of, device_resource, has_few_cores
from grid.stages.watchdog import hung_log
from grid.storage.result_store import StageStore

IDLE = "idle"
"""In place of a node id: a trial that keeps its worker while no stage is ready."""
_MOST_KEPT = 16
_STARTS_IN_S = 60.0
"""How long a worker may take to start before others no longer wait for it."""
_HANDED_OVER_S = 2.0
"""How long a worker that was called may take to begin with a stage."""
_AHEAD = 2
"""Measurements for each machine that measures: one runs, one is at hand when it ends."""


class DriverOnly:
    """Lives in the driver alone: Tune pickles such objects for its own restore, which is never used."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class TrieSearcher(DriverOnly, Searcher):
    """Suggests a node once all its inputs are in the store; knows what has failed and what hangs on it."""

    def __init__(
        self, plan: Plan, store: StageStore, resources: Resources, listener: Listener, train_images: int
    ) -> None:
        super().__init__(metric="training_iteration", mode="max")
        self.store, self.resources, self.listener = store, resources, listener
        done = store.verify_all(node.id for node in plan.nodes)
        self.queue = NodeQueue(plan, done, train_images)
        self.devices = device_labels(plan.nodes)
        self.running: dict[str, Node] = {}
        self.reasons: dict[str, str] = {}
        self.failures: dict[str, str] = {}
        self.attempts: Counter[str] = Counter()
        self.deaths: dict[str, str] = {}
        self.stopped: str | None = None
        self.names = names_by_key(plan)
        self.users = users_by_node(plan)
        self.started: set[str] = set()
        self.idle: dict[str, None] = {}  # in their order
        self.starting = self.workers = self.freed = 0
        self.calls: Calls | None = None
        self.cpus, self.growing_until, self.called_at = 0.0, float("-inf"), float("-inf")

    def keep_workers(self, count: int, calls: Calls) -> None:
        """Keep ``count`` workers alive; idle ones wait until they are called by ``calls``.

        A worker takes seconds to start, and Tune stops those for which no trial waits. It also gives a trial that waits
        for its new worker the first idle one, and stops the new one: stages that are short would all run on one.
        """
        self.starting = self.workers = min(count, _MOST_KEPT, len(self.queue.waiting))
        self.calls, self.cpus = calls, ray.cluster_resources().get("CPU", 0.0)
        self.growing_until = time.monotonic() + _STARTS_IN_S

    def on_worker_lost(self, trial_id: str) -> None:
        """A worker has died, or was ended after an error that may pass; its trial waits for one again."""
        self.started.discard(trial_id)
        self.growing_until = time.monotonic() + _STARTS_IN_S

    def _follow_cluster(self) -> None:
        """Keep more workers when a machine has joined: they start while those that are free wait for them."""
        before, self.cpus = self.cpus, ray.cluster_resources().get("CPU", 0.0)
        change = int((self.cpus - before) // self.resources.cpus_per_trial)
        if change < 0:
            self.workers = max(self.workers + change, 1)
        elif change > 0 and (more := min(change, _MOST_KEPT - self.workers, len(self.queue.waiting))) > 0:
            self.workers += more
            self.growing_until = time.monotonic() + _STARTS_IN_S

    def _is_growing(self) -> bool:
        """Whether workers are on their way, for as long as a worker may take to start: others may hold its cores."""
        up = sum(one in self.started for one in (*self.running, *self.idle))
        if up >= self.workers:
            self.growing_until = float("-inf")
        return time.monotonic() < self.growing_until

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
        return not self.running and (not self.queue.waiting or self.stopped is not None)

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
        if self.calls is not None:
            self._follow_cluster()
            self._call_idle()
            if (
                self.attempts and self.queue.waiting and self._is_growing()
            ):  # no stage now, or it would take a worker from those to come
                coming = sum(one not in self.started for one in (*self.running, *self.idle))
                up = sum(one in self.started for one in (*self.running, *self.idle))
                return self._idle(trial_id) if up + coming < self.workers else None
        node = self._next()
        if node is None and not self.running:
            self._fail_stuck()
            return Searcher.FINISHED
        if node is None:
            kept = len(self.running) + len(self.idle)
            return self._idle(trial_id) if not self._called() and kept < self.workers else None
        self.running[trial_id] = node
        self._call_idle()
        return {
            "node": node.id,
            "stage": node.stage,
            "name": trial_name(node, self.names),
            "resources": self.resources.of(node, ray.cluster_resources()),
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
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
            self.queue.done(node.id)
            self.listener.finished(node)
        elif self.stopped:
            self.queue.put_back(node)  # no fault of its own
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
        assert self.calls is not None
        self.idle[trial_id] = None
        resources = {"CPU": float(self.resources.cpus_per_trial)}
        return {"node": IDLE, "name": f"{IDLE}-{trial_id}", "resources": resources, **self.calls.opened(trial_id)}

    def _called(self) -> int:
        """How many stages wait for a worker as the kept ones are; those that measure by a resource have their own."""
        total = ray.cluster_resources() if self.running else {}
        waiting = (node for one, node in self.running.items() if one not in self.started)
        return sum(not (self.resources.of(node, total).keys() <= {PROFILER, device_of(node)}) for node in waiting)

    def _call_idle(self) -> None:
        """Call as many waiting workers as there are stages for, but none before all are up; all if no stage is left."""
        if self.calls is None or not self.idle:
            return
        if time.monotonic() - self.called_at > _HANDED_OVER_S:
            self.freed = 0  # some took up waiting instead of a stage, or their machine was lost
        waiting = [one for one in self.idle if self.calls.waits(one)]
        if not self.queue.waiting or self.stopped:
            wanted = len(waiting)
        elif self._is_growing() and (self.starting or any(one not in self.started for one in self.idle)):
            wanted = 0
        else:
            wanted = max(self._called() - self.freed, 0)
        for one in waiting[:wanted]:
            self.calls.call(one)
            self.freed, self.called_at = self.freed + 1, time.monotonic()

    def _fail(self, node: Node, reason: str) -> None:
        """Fail a node for a reason of its own, and all that waits for it for the same."""
        self.failures[node.id] = reason
        self.listener.failed(node, reason, inherited=False)
        inherited = f"needs {node.stage} of {users_named(self.users.get(node.id, ()))}, which failed: {reason}"
        lost = [node.id]
        while lost:
            for other in list(self.queue.users(lost.pop())):
                self.queue.remove(other.id)
                self.failures[other.id] = inherited
                self.listener.failed(other, reason, inherited=True)
                lost.append(other.id)

    def _fail_stuck(self) -> None:
        """Nothing runs and nothing is ready: results were found damaged, and taken out, while the grid ran."""
        for node in list(self.queue.waiting.values()):
            lost = [one for _, one in node.inputs if one not in self.queue.waiting and not self.store.has(one)]
            if node.id in self.queue.waiting and lost:
                self.queue.remove(node.id)
                self._fail(node, f"{node.stage}: its input {lost[0]} is no longer in the store; --resume computes it")

    def _next(self) -> Node | None:
        """The most urgent node that is ready; on small machines measurements come when nothing else is left.

        Machines that measure by a resource of their own never wait for that: measurements come first where they idle.
        """
        total = ray.cluster_resources()
        quiet = not self.running and not self.queue.work_left
        may_measure = quiet or not has_few_cores(total)
        measuring = sum(node.device == PROFILER for node in self.running.values())
        first = measuring < _AHEAD * int(total.get(PROFILER, 0))
        busy = Counter(device_of(node) for node in self.running.values())
        disturbs = measuring and has_few_cores(total)  # the host compares outputs
        devices = [] if disturbs else [one for one in self.devices if busy[device_resource(one)] < _AHEAD]
        return self.queue.take(
            may_measure, lambda node: all(self.store.has(one) for _, one in node.inputs), first, devices
        )

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is the only truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the store is the only truth."""
