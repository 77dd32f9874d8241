"""Plan -> Ray Tune: one trial is one node of the trie, released when its inputs are in the store."""

import contextlib
import json
import logging
import os
import signal
import socket
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

# Read by Ray when it starts or is imported; a value that the user has set wins.
for _name, _value in {
    "RAY_worker_niceness": "0",  # the default of 15 makes measured latencies hostage to any other process
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # one node: all ports on the loopback interface
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "16",  # 1 by default with a Searcher: one waiting trial would block ready ones
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}.items():
    os.environ.setdefault(_name, _value)

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from grid.cores import CoreLease, own_cores, pinned
from grid.plan import Node, Plan
from grid.profiler import start_profiler
from grid.stages import StageStore
from grid.trial import Context, run_node
from model.errors import InputError

DEVICE_STAGES = ("train", "calibrate", "round", "correct_bias", "finetune")
"""Stages that use a GPU where the cluster has one; all others run on CPUs only."""
FEW_CORES = 4
"""With fewer cores than this a measurement waits until nothing else runs, instead of owning a core all the time."""
_REPORT_EVERY_S = 0.5
_START = "start"
"""In place of a node id: a trial that only starts its worker."""
_START_S = 30.0
_MOST_STARTS = 16
_WORKER_DEATHS = 2


@dataclass(frozen=True)
class Resources:
    """What a training, calibration or QAT trial asks for, and where Ray is (None: start it here)."""

    cpus_per_trial: int = 1
    gpus_per_trial: float = 0.0
    address: str | None = None

    def __post_init__(self) -> None:
        cores = len(own_cores())
        if self.cpus_per_trial < 1 or (self.address is None and self.cpus_per_trial > cores):
            expected = f"1 to {cores}, the cores this run may use" if self.address is None else "at least 1"
            raise InputError("--cpus-per-trial", f"{self.cpus_per_trial} CPUs are asked for", expected)
        if self.gpus_per_trial < 0:
            raise InputError("--gpus-per-trial", f"{self.gpus_per_trial} is out of range", "at least 0")
        if self.address not in (None, "auto"):
            _check_answers(str(self.address))


def _check_answers(address: str) -> None:
    """Raise InputError where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InputError("--address", f"{address!r} is no address", "auto or HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        hint = "`ray start --head` starts one."
        raise InputError("--address", f"nobody answers at {address} ({error})", "a running Ray cluster", hint) from None


class Observer(Protocol):
    """Told by the driver about every node, in the driver's process."""

    def started(self, node: Node) -> None:
        """A worker has begun."""

    def progressed(self, node: Node, info: dict[str, Any]) -> None:
        """News from within a stage: step, steps, epoch, epochs, loss."""

    def finished(self, node: Node) -> None:
        """The node is in the store."""

    def failed(self, node: Node, reason: str) -> None:
        """The node will not be in the store; ``reason`` is one line and names the log."""


@dataclass(frozen=True)
class Dashboard:
    """Where the Ray dashboard is, and the token that its pages ask for (None: no login)."""

    url: str
    token_file: Path | None

    def how_to_open(self) -> str:
        """The address, and where the token is that its pages ask for."""
        if not self.url:
            return "not running (ray[default] starts it)"
        return self.url + (f"  (token: `ray get-auth-token`, or {self.token_file})" if self.token_file else "")


@contextlib.contextmanager
def cluster(resources: Resources) -> Iterator[Dashboard]:
    """Start Ray here, or connect to ``resources.address``; leave it at the end."""
    found = ray.init(
        address=resources.address,
        include_dashboard=None if resources.address else True,
        dashboard_host="127.0.0.1",
        num_cpus=None if resources.address else len(own_cores()),
        log_to_driver=False,
        logging_level=logging.ERROR,
        ignore_reinit_error=False,
    )
    try:
        token = Path.home() / ".ray" / "auth_token"
        yield Dashboard(
            f"http://{found.dashboard_url}" if found.dashboard_url else "", token if token.exists() else None
        )
    finally:
        ray.shutdown()


def run_plan(plan: Plan, context: Context, resources: Resources, observer: Observer) -> dict[str, str]:
    """Compute every node of ``plan`` that the store lacks, inside ``cluster``; returns reasons by failed node id.

    The store is the only truth: nodes found in it do not run, an interrupted run leaves what it finished, and
    Tune's own state is never read again. Nodes behind a failed one are failed with that one's reason.
    """
    store = StageStore(context.storage)
    searcher = TrieSearcher(plan, store, resources, observer)
    if searcher.is_done():
        return searcher.failures
    workers = int(ray.cluster_resources().get("CPU", 1)) // resources.cpus_per_trial
    searcher.start_workers(min(workers, _MOST_STARTS))
    nodes = {node.id: node for node in plan.nodes}
    core_folder = context.storage / "cores"
    core_folder.mkdir(parents=True, exist_ok=True)
    marks = tempfile.TemporaryDirectory(prefix="workers-", dir=core_folder, ignore_cleanup_errors=True)
    trainable = partial(stage_trial, nodes=nodes, context=context, cores=own_cores(), marks=Path(marks.name))
    trainable.__name__ = "stage_trial"  # type: ignore[attr-defined]
    measures = any(node.stage == "profile" for node in plan.nodes)
    profiler = start_profiler(core_folder, own_cores()) if measures else None
    tuner = tune.Tuner(
        tune.with_resources(trainable, lambda config: tune.PlacementGroupFactory([config["resources"]])),
        param_space={},
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda trial: f"{trial.config['stage']}-{trial.config['node'][:8]}",
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str((context.storage / "ray").absolute()),
            verbose=0,
            callbacks=[_Events(searcher, observer, nodes)],
            failure_config=tune.FailureConfig(max_failures=_WORKER_DEATHS),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
        ),
    )
    with _sigterm_as_interrupt(), marks:
        tuner.fit()
    if profiler is not None:
        ray.kill(profiler)
    return searcher.failures


def stage_trial(
    config: dict[str, Any], nodes: dict[str, Node], context: Context, cores: tuple[int, ...], marks: Path
) -> None:
    """The Tune trainable: compute one node on leased cores and report its progress.

    In place of a node it may be asked to wait until all workers are up; each leaves a file in ``marks``.
    An exception is the stage's own fault and would come again: it is written to the log and reported, not
    retried. A worker that dies is retried by Tune.
    """
    if config["node"] == _START:
        _await_workers(marks, config["workers"])
        tune.report({_START: True})
        return
    node = nodes[config["node"]]
    report = _Reporter()
    try:
        if node.stage == "profile":
            ray.get(ray.get_actor("profiler").run.remote(node, context))
        else:
            device = "cuda" if ray.get_runtime_context().get_accelerator_ids().get("GPU") else "cpu"
            count = min(int(config["resources"]["CPU"]), len(cores))
            with CoreLease(context.storage / "cores", cores).lease(count) as leased, pinned(leased):
                run_node(node, _on(context, device), report)
    except Exception as error:
        log = context.storage / "logs" / f"{node.stage}-{node.id}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(traceback.format_exc())
        tune.report({"failure": f"{node.stage}: {type(error).__name__}: {_first_line(error)} (log: {log})"})
        return
    tune.report({"finished": node.id})


def _await_workers(marks: Path, count: int) -> None:
    """Return once ``count`` workers are here.

    A worker takes seconds to start. Tune gives a trial that waits for its new worker the first idle one and stops the
    new one: while stages are short, all of them would run on one worker.
    """
    (marks / ray.get_runtime_context().get_worker_id()).touch()
    end = time.monotonic() + _START_S
    while len(list(marks.iterdir())) < count and time.monotonic() < end:
        time.sleep(0.05)


def _on(context: Context, device: str) -> Context:
    return Context(context.storage, context.pack, context.checkpoint, device)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


class _Reporter:
    """Sends progress to the driver: every finished epoch, and steps at most twice a second."""

    def __init__(self) -> None:
        self.sent = 0.0

    def __call__(self, info: dict[str, Any]) -> None:
        if "val_ssim" in info or time.monotonic() - self.sent > _REPORT_EVERY_S:
            self.sent = time.monotonic()
            tune.report({"progress": json.dumps(info)})


class _DriverOnly:
    """Lives in the driver alone: Tune pickles such objects for its own restore, which is never used."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class TrieSearcher(_DriverOnly, Searcher):
    """Suggests a node once all its inputs are in the store; knows what has failed and what hangs on it."""

    def __init__(self, plan: Plan, store: StageStore, resources: Resources, observer: Observer) -> None:
        super().__init__(metric="training_iteration", mode="max")
        self.store, self.resources, self.observer = store, resources, observer
        self.waiting = {node.id: node for node in plan.nodes if not store.verify(node.id)}
        self.running: dict[str, Node] = {}
        self.reasons: dict[str, str] = {}
        self.failures: dict[str, str] = {}
        self.depth = _work_behind(plan)
        self.starting = self.workers = 0

    def start_workers(self, count: int) -> None:
        """Have so many workers started before the first stage, but no more than there are nodes to compute."""
        self.starting = self.workers = min(count, len(self.waiting))

    def is_done(self) -> bool:
        """Whether nothing is left to run."""
        return not self.waiting and not self.running

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The next node as a Tune config, None while all that is left has to wait, FINISHED at the end."""
        if self.is_done():
            return Searcher.FINISHED
        if self.starting:
            self.starting -= 1
            resources = {"CPU": float(self.resources.cpus_per_trial)}
            return {"node": _START, "stage": _START, "resources": resources, "workers": self.workers}
        node = self._next()
        if node is None and not self.running:
            self._fail_stuck()
            return Searcher.FINISHED
        if node is None:
            return None
        del self.waiting[node.id]
        self.running[trial_id] = node
        return {"node": node.id, "stage": node.stage, "resources": self._resources(node)}

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Judge by the store whether the node is done; otherwise fail it and all that needs it."""
        node = self.running.pop(trial_id, None)
        if node is None:
            return
        if self.store.has(node.id):
            self.observer.finished(node)
            return
        reason = self.reasons.get(node.id) or f"{node.stage}: the worker died {_WORKER_DEATHS + 1} times"
        self._fail(node, reason)

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
        if self._few_cores():
            others = [node for node in ready if node.stage != "profile"]
            if self.running or any(node.stage != "profile" for node in self.waiting.values()):
                ready = others
        return max(ready, key=lambda node: self.depth[node.id], default=None)

    def _is_ready(self, node: Node) -> bool:
        """Whether the inputs are there: what waits or runs is not, and the disk is not asked thousands of times."""
        inputs = {upstream for _, upstream in node.inputs}
        running = (one.id for one in self.running.values())
        return inputs.isdisjoint(self.waiting) and inputs.isdisjoint(running) and all(map(self.store.has, inputs))

    def _few_cores(self) -> bool:
        return ray.cluster_resources().get("CPU", 1) < FEW_CORES

    def _resources(self, node: Node) -> dict[str, float]:
        total = ray.cluster_resources()
        if node.stage == "profile" and not self._few_cores():  # with few cores it runs alone, in a worker as the others
            # More threads than cores fail in the profiler, with a reason; asking Ray for them would wait for ever.
            return {"CPU": min(float(node.settings["latency.threads"] or 1), total.get("CPU", 1))}
        if node.stage in DEVICE_STAGES and total.get("GPU", 0) > 0 and self.resources.gpus_per_trial > 0:
            return {"CPU": float(self.resources.cpus_per_trial), "GPU": self.resources.gpus_per_trial}
        return {"CPU": float(self.resources.cpus_per_trial)}

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


class _Events(_DriverOnly, tune.Callback):
    """Passes Tune's events on to the observer, as nodes."""

    def __init__(self, searcher: TrieSearcher, observer: Observer, nodes: dict[str, Node]) -> None:
        self.searcher, self.observer, self.nodes = searcher, observer, nodes

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if trial.config["node"] != _START:
            self.observer.started(self.nodes[trial.config["node"]])

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        node = self.nodes.get(trial.config["node"])
        if node is None:
            return
        if "failure" in result:
            self.searcher.reasons[node.id] = result["failure"]
        if "progress" in result:
            self.observer.progressed(node, json.loads(result["progress"]))


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM would abort Ray's driver hard; treat it as Ctrl-C."""
    before = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
