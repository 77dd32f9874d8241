"""Plan -> Ray Tune: one trial is one node of the trie, released when its inputs are in the store."""

import contextlib
import gc
import json
import logging
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# Read by Ray when it starts or is imported; a value that the user has set wins.
for _name, _value in {
    "RAY_worker_niceness": "0",  # the default of 15 makes measured latencies hostage to any other process
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # one node: all ports on the loopback interface
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",  # its state, which nobody reads, holds all trials and is written as a whole
    "TUNE_MAX_PENDING_TRIALS_PG": "16",  # 1 by default with a Searcher: one waiting trial would block ready ones
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}.items():
    os.environ.setdefault(_name, _value)

import ray
from ray import tune
from ray.tune.experiment import Trial

from grid.paths import CODE
from grid.planning.plan import Node, Plan
from grid.planning.stage import PROFILER
from grid.scheduling.calls import ActorCalls, FileCalls
from grid.scheduling.cores import own_cores
from grid.scheduling.devices import DeviceActors
from grid.scheduling.listener import Listener, Listeners
from grid.scheduling.metrics import GridMetrics
from grid.scheduling.outcome import RunOutcome
from grid.scheduling.profiler import Profilers
from grid.scheduling.resources import Resources, device_resource
from grid.scheduling.searcher import IDLE, DriverOnly, TrieSearcher
from grid.scheduling.shared_mapping import SharedMapping
from grid.scheduling.worker import stage_trial
from grid.stages.work import Context
from grid.storage.disk import storage_problem
from model.data.pack import Pack

_LOOK_EVERY_S = 2.0
_SENT_CODE = {"py_modules": [str(package) for package in CODE]}
"""What workers on other machines need of this folder; Ray sends it."""


@dataclass(frozen=True)
class Dashboard:
    """Where the Ray dashboard is, the token that its pages ask for (None: no login), and each node's metrics."""

    url: str
    token_file: Path | None
    metrics_urls: tuple[str, ...] = ()

    def how_to_open(self) -> str:
        """The address, and where the token is that its pages ask for."""
        if not self.url:
            return "not running (ray[default] starts it)"
        return self.url + (f"  (token: `ray get-auth-token`, or {self.token_file})" if self.token_file else "")


@contextlib.contextmanager
def cluster(resources: Resources, devices: Iterable[str] = ()) -> Iterator[Dashboard]:
    """Start Ray here, with the ``devices`` as resources, or connect to ``resources.address``; leave it at the end."""
    found = ray.init(
        address=resources.address or "local",  # None would join a cluster that happens to run here
        runtime_env=_SENT_CODE if resources.address else None,
        include_dashboard=None if resources.address else True,
        dashboard_host="127.0.0.1",
        num_cpus=None if resources.address else len(own_cores()),
        resources=None if resources.address else {device_resource(label): 1.0 for label in devices} or None,
        log_to_driver=False,
        logging_level=logging.ERROR,
        ignore_reinit_error=False,
    )
    try:
        token = Path.home() / ".ray" / "auth_token"
        with contextlib.suppress(OSError):
            token.chmod(0o600)  # Ray leaves it readable for all
        yield Dashboard(
            f"http://{found.dashboard_url}" if found.dashboard_url else "",
            token if token.exists() else None,
            tuple(
                f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
                for node in ray.nodes()
                if node["Alive"]
            ),
        )
    finally:
        _shut_down()


def _shut_down() -> None:
    """Leave Ray, with the garbage collector at rest.

    Ray ends a process in which any thread lets go of an ``ObjectRef`` while it shuts down, and a thread that records
    results may be the one that collects the circles Tune leaves behind.
    """
    gc.disable()
    try:
        gc.collect()
        ray.shutdown()
    finally:
        gc.enable()


class RayDied(RuntimeError):
    """No node is left of the Ray that was started here; its trials would wait for ever."""


def run_plan(plan: Plan, context: Context, resources: Resources, listener: Listener) -> RunOutcome:
    """Compute every node of ``plan`` that the store lacks, inside ``cluster``.

    The store is the only truth: nodes found in it do not run, an interrupted run leaves what it finished, and
    Tune's own state is never read again. Nodes behind a failed one are failed with that one's reason. Where the
    storage cannot be written to any more, or Ray itself fails, the run stops and says so.
    """
    store = context.stages()
    train_images = Pack(context.pack).size("train")
    searcher = TrieSearcher(plan, store, resources, listener, train_images)
    if searcher.is_done():
        return RunOutcome(searcher.failures)
    nodes, names = {node.id: node for node in plan.nodes}, searcher.names
    done = nodes.keys() - searcher.queue.waiting.keys()
    metrics = GridMetrics(plan, done, train_images)
    searcher.listener = Listeners(metrics, listener)
    core_folder = context.storage / "cores"
    core_folder.mkdir(parents=True, exist_ok=True)
    calls = tempfile.TemporaryDirectory(prefix="calls-", dir=core_folder, ignore_cleanup_errors=True)
    state = tempfile.TemporaryDirectory(prefix="tune-", ignore_cleanup_errors=True)  # which nobody reads again
    total, free = ray.cluster_resources(), ray.available_resources()
    if context.remote is None or not (total.get("GPU") and resources.gpus_per_trial):  # else workers are of two kinds
        there = free if resources.address else total  # others may hold a part of a cluster
        workers = int(there.get("CPU", 0)) // resources.cpus_per_trial
        searcher.keep_workers(workers, ActorCalls() if context.remote else FileCalls(Path(calls.name)))
    cores = None if resources.address else own_cores()  # of a cluster, each machine knows its own
    measures = any(node.device == PROFILER for node in plan.nodes)
    measuring: list[Profilers | DeviceActors] = [Profilers(cores)] if measures else []
    measuring.append(DeviceActors(plan.nodes))
    home = ray.get_runtime_context().get_node_id()
    shared_nodes, shared_names = SharedMapping(nodes), SharedMapping(names)
    trainable = partial(stage_trial, nodes=shared_nodes, names=shared_names, context=context, cores=cores, home=home)
    trainable.__name__ = "stage_trial"  # type: ignore[attr-defined]
    tuner = tune.Tuner(
        tune.with_resources(trainable, lambda config: tune.PlacementGroupFactory([config["resources"]])),
        param_space={},
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.config["name"],
            trial_dirname_creator=lambda trial: trial.config["name"],  # Tune's own would append all of the config
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=state.name,
            verbose=0,
            callbacks=[_Events(searcher, metrics, nodes, measuring, resources.address is None)],
            failure_config=tune.FailureConfig(max_failures=resources.retries),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
        ),
    )
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the listener hears what fails, without its traces
    with _sigterm_as_interrupt(), calls, state:
        try:
            tuner.fit()
        except RayDied:
            return RunOutcome(searcher.failures, "Ray died", ray_died=True)
        except Exception as error:
            searcher.stop(storage_problem(context.storage) or _driver_failure(context.storage, error))
    metrics.refresh(now=True)
    for actors in measuring:
        actors.stop()
    return RunOutcome(searcher.failures, searcher.stopped)


def _driver_failure(storage: Path, error: Exception) -> str:
    """Why Tune itself gave up, in one line that names a log."""
    log = storage / "logs" / "driver.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(traceback.format_exc())
    return f"Ray Tune gave up: {type(error).__name__} (log: {log})"


class _Events(DriverOnly, tune.Callback):
    """Passes Tune's events on as nodes, and keeps metrics and profiling actors fresh."""

    def __init__(
        self,
        searcher: TrieSearcher,
        metrics: GridMetrics,
        nodes: dict[str, Node],
        measuring: Sequence[Profilers | DeviceActors],
        alone: bool,
    ) -> None:
        """``measuring``: the actors of what measures; ``alone``: no node will join this Ray."""
        self.searcher, self.metrics, self.nodes, self.measuring = searcher, metrics, nodes, measuring
        self.alone, self.looked_at = alone, time.monotonic()

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self.metrics.refresh()
        if self.alone and time.monotonic() - self.looked_at > _LOOK_EVERY_S:
            self.looked_at = time.monotonic()
            if not any(node["Alive"] for node in ray.nodes()):
                raise RayDied
        if self.searcher.attempts:  # not before a stage runs: workers come first
            for actors in self.measuring:
                actors.refresh()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.searcher.on_trial_start(trial.trial_id)
        if trial.config["node"] != IDLE:
            self.searcher.listener.started(self.nodes[trial.config["node"]])

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        node = self.nodes.get(trial.config["node"])
        if node is None:
            return
        if "stop" in result:
            self.searcher.stop(result["stop"])
        if "failure" in result:
            self.searcher.reasons[node.id] = result["failure"]
        if "progress" in result:
            self.searcher.listener.progressed(node, json.loads(result["progress"]))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Drop the statistics of a trial that has ended: Tune keeps some 10 KB of them until the end."""
        trial.run_metadata.metric_analysis.clear()
        trial.run_metadata.metric_n_steps.clear()
        trial.run_metadata.invalidate_cache()

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.searcher.on_worker_lost(trial.trial_id)
        node = self.nodes.get(trial.config["node"])
        if node is not None:
            self.searcher.deaths[node.id] = cause_of_death(trial)
            self.searcher.listener.retried(node, self.searcher.reason(node))


def cause_of_death(trial: Trial) -> str:
    """What Ray's list of a trial's errors says of the last, in a few words."""
    file = Path(trial.error_file) if trial.error_file else None
    errors = file.read_text(errors="replace") if file and file.is_file() else ""
    last = errors.rpartition("Failure #")[2]
    if "running low on memory" in last:
        return "its worker was stopped, as the machine ran out of memory"
    if "worker process has died" in last:
        return "its worker was killed or crashed (out of memory is a common cause)"
    if "node" in last and "has died" in last:
        return "its machine left the cluster"
    return ([line.strip() for line in last.splitlines() if line.strip()] or ["its worker died"])[-1][:200]


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM would abort Ray's driver hard; treat it as Ctrl-C."""
    before = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
