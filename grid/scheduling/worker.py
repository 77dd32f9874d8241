"""What runs in a worker of Ray Tune: one stage on cores of its own, its news, and what becomes of an error."""

import dataclasses
import json
import logging
import time
import traceback
from collections.abc import Mapping
from functools import partial
from typing import Any

import ray
import torch
from ray import tune
from ray.exceptions import RayError, RayTaskError

from grid.planning.names import cells_of, write_failure
from grid.planning.plan import Node
from grid.planning.stage import DEVICE, PROFILER
from grid.scheduling.calls import wait_until_called
from grid.scheduling.cores import on_own_cores
from grid.scheduling.devices import run_on_device
from grid.scheduling.profiler import profiler_of
from grid.scheduling.searcher import IDLE
from grid.stages.run import run_node
from grid.stages.work import Context
from grid.storage.disk import storage_problem

_REPORT_EVERY_S = 0.5
PASSING = (OSError, MemoryError, torch.OutOfMemoryError, RayError)
"""Errors that a second try, in a fresh process, may not have; any other is the stage's own and comes again."""


def stage_trial(
    config: dict[str, Any],
    nodes: Mapping[str, Node],
    names: Mapping[str, str],
    context: Context,
    cores: tuple[int, ...] | None,
    home: str,
) -> None:
    """The Tune trainable: compute one node on leased cores and report its progress.

    In place of a node it may be asked to wait until its worker is called for. The worker's own log, which the
    dashboard shows, says which cells it works for (``names`` by their keys). ``cores``: those of the run, None for
    all of this machine; ``home``: the Ray node that measures where none has the resource ``profiler``.
    An exception is written to the log and reported. Tune tries again after those that may pass, and when a worker
    dies; where the storage itself cannot be written to, the driver is told to stop.
    """
    if config["node"] == IDLE:
        wait_until_called(config)
        tune.report({IDLE: True})
        return
    node, context = nodes[config["node"]], context.here()
    say = _worker_log().info
    say("%s of %s begins (%s)", node.stage, cells_of(node, names), node.id)
    try:
        _compute(node, context, config["resources"], cores, home)
    except Exception as error:
        problem = storage_problem(context.storage)
        if problem:
            say("%s of %s stopped: %s", node.stage, cells_of(node, names), problem)
            tune.report({"stop": problem})
            return
        log = write_failure(context.storage, node, names, traceback.format_exc())
        say("%s of %s failed: %s", node.stage, cells_of(node, names), log)
        tune.report({"failure": f"{node.stage}: {type(error).__name__}: {_first_line(error)} (log: {log})"})
        if isinstance(error, PASSING):
            raise
        return
    say("%s of %s is done", node.stage, cells_of(node, names))
    tune.report({"finished": node.id})


def _compute(
    node: Node, context: Context, resources: Mapping[str, float], cores: tuple[int, ...] | None, home: str
) -> None:
    if node.device == PROFILER:
        profiler = profiler_of(ray.get_runtime_context().get_node_id() if PROFILER in resources else home)
        try:
            ray.get(profiler.run.remote(node, context))
        except RayTaskError as error:
            raise error.cause from None  # of the stage itself, not of Ray
        return
    if node.device == DEVICE:
        try:
            run_on_device(node, context, _Reporter())
        except RayTaskError as error:
            raise error.cause from None
        return
    # A node may be told to have GPUs that torch cannot use.
    gpu = ray.get_runtime_context().get_accelerator_ids().get("GPU") and torch.cuda.is_available()
    context = dataclasses.replace(context, device="cuda" if gpu else "cpu")
    count = int(resources["CPU"]) if cores is None else min(int(resources["CPU"]), len(cores))
    run_node(node, context, _Reporter(), partial(on_own_cores, context.storage / "cores", cores, count))


def _worker_log() -> logging.Logger:
    """A logger to this worker's standard error, of which Ray keeps a file and the dashboard shows the end."""
    log = logging.getLogger("grid.scheduling.worker")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
    return log


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


class _Reporter:
    """Sends progress to the driver: every finished epoch, and steps at most twice a second."""

    def __init__(self) -> None:
        self.sent = 0.0

    def __call__(self, info: dict[str, Any]) -> None:
        if any(name.startswith("val_") for name in info) or time.monotonic() - self.sent > _REPORT_EVERY_S:
            self.sent = time.monotonic()
            tune.report({"progress": json.dumps(info)})
