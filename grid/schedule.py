"""Plan -> Ray Tune: one trial is one node of the trie, released when its inputs are in the store."""

import contextlib
import dataclasses
import json
import logging
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
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
    "TUNE_MAX_PENDING_TRIALS_PG": "16",  # 1 by default with a Searcher: one waiting trial would block ready ones
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}.items():
    os.environ.setdefault(_name, _value)

import ray
from ray import tune
from ray.tune.experiment import Trial

from grid.cores import CoreLease, own_cores, pinned
from grid.observer import Observer
from grid.plan import Node, Plan
from grid.profiler import start_profiler
from grid.ray_metrics import GridMetrics
from grid.resources import FEW_CORES as FEW_CORES
from grid.resources import Resources
from grid.searcher import IDLE, WORKER_DEATHS, DriverOnly, TrieSearcher
from grid.stage_names import cells_of, write_failure
from grid.stages import StageStore
from grid.trial import Context, run_node
from model.pack import Pack

_REPORT_EVERY_S, _LOOK_EVERY_S = 0.5, 0.05


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
            f"http://{found.dashboard_url}" if found.dashboard_url else "",
            token if token.exists() else None,
            tuple(
                f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
                for node in ray.nodes()
                if node["Alive"]
            ),
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
    nodes, names = {node.id: node for node in plan.nodes}, searcher.names
    done = nodes.keys() - searcher.waiting.keys()
    searcher.observer = metrics = GridMetrics(plan, done, Pack(context.pack).size("train"), observer)
    core_folder = context.storage / "cores"
    core_folder.mkdir(parents=True, exist_ok=True)
    calls = tempfile.TemporaryDirectory(prefix="calls-", dir=core_folder, ignore_cleanup_errors=True)
    searcher.keep_workers(int(ray.cluster_resources().get("CPU", 1)) // resources.cpus_per_trial, Path(calls.name))
    trainable = partial(stage_trial, nodes=nodes, names=names, context=context, cores=own_cores())
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
            trial_name_creator=lambda trial: trial.config["name"],
            trial_dirname_creator=lambda trial: trial.config["name"],  # Tune's own would append all of the config
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str((context.storage / "ray").absolute()),
            verbose=0,
            callbacks=[_Events(searcher, metrics, nodes)],
            failure_config=tune.FailureConfig(max_failures=WORKER_DEATHS),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
        ),
    )
    with _sigterm_as_interrupt(), calls:
        tuner.fit()
    metrics.refresh(now=True)
    if profiler is not None:
        ray.kill(profiler)
    return searcher.failures


def stage_trial(
    config: dict[str, Any],
    nodes: dict[str, Node],
    names: Mapping[str, str],
    context: Context,
    cores: tuple[int, ...],
) -> None:
    """The Tune trainable: compute one node on leased cores and report its progress.

    In place of a node it may be asked to wait until its worker is called for.
    The worker's own log, which the dashboard shows, says which cells it works for (``names`` by their keys).
    An exception is the stage's own fault and would come again: it is written to the log and reported, not
    retried. A worker that dies is retried by Tune.
    """
    if config["node"] == IDLE:
        while Path(config["until_gone"]).exists():
            time.sleep(_LOOK_EVERY_S)
        tune.report({IDLE: True})
        return
    node = nodes[config["node"]]
    report = _Reporter()
    say = _worker_log().info
    say("%s of %s begins (%s)", node.stage, cells_of(node, names), node.id)
    try:
        if node.stage == "profile":
            ray.get(ray.get_actor("profiler").run.remote(node, context))
        else:
            device = "cuda" if ray.get_runtime_context().get_accelerator_ids().get("GPU") else "cpu"
            count = min(int(config["resources"]["CPU"]), len(cores))
            with CoreLease(context.storage / "cores", cores).lease(count) as leased, pinned(leased):
                run_node(node, _on(context, device), report)
    except Exception as error:
        log = write_failure(context.storage, node, names, traceback.format_exc())
        say("%s of %s failed: %s", node.stage, cells_of(node, names), log)
        tune.report({"failure": f"{node.stage}: {type(error).__name__}: {_first_line(error)} (log: {log})"})
        return
    say("%s of %s is done", node.stage, cells_of(node, names))
    tune.report({"finished": node.id})


def _worker_log() -> logging.Logger:
    """A logger to this worker's standard error, of which Ray keeps a file and the dashboard shows the end."""
    log = logging.getLogger("grid.worker")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
    return log


def _on(context: Context, device: str) -> Context:
    return dataclasses.replace(context, device=device)


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


class _Events(DriverOnly, tune.Callback):
    """Passes Tune's events on as nodes, and keeps the metrics fresh."""

    def __init__(self, searcher: TrieSearcher, metrics: GridMetrics, nodes: dict[str, Node]) -> None:
        self.searcher, self.metrics, self.nodes = searcher, metrics, nodes

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self.metrics.refresh()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.searcher.on_trial_start(trial.trial_id)
        if trial.config["node"] != IDLE:
            self.metrics.started(self.nodes[trial.config["node"]])

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        node = self.nodes.get(trial.config["node"])
        if node is None:
            return
        if "failure" in result:
            self.searcher.reasons[node.id] = result["failure"]
        if "progress" in result:
            self.metrics.progressed(node, json.loads(result["progress"]))


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM would abort Ray's driver hard; treat it as Ctrl-C."""
    before = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
