"""One node of the trie, and one whole cell, computed in this process: plain functions that run without Ray."""

import importlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from grid.planning.plan import Cell, Node, Plan
from grid.stages.watchdog import hung_log, watched
from grid.stages.work import Context, Outcome, StageError, Work, write_outcome
from grid.storage.result_store import StageStore
from model.network.user_network import register_network
from model.progress import Progress, ignore_progress


def run_node(
    node: Node,
    context: Context,
    progress: Progress = ignore_progress,
    place: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> dict[str, Any]:
    """Compute one node in a ``place`` (its cores), or find it done, and return its record.

    Two processes never compute the same node: the second waits, without a place, and finds it. Raises what the
    stage raises; nothing is then left in the store. With ``context.stall_s`` a stage that says nothing for so
    long ends this process.
    """
    context = context.here()
    if context.network:
        register_network(context.network)
    store = context.stages()
    with store.claim(node.id) as done:
        if not done:
            log = hung_log(store.root, node.stage, node.id)
            with place(), watched(progress, context.stall_s, log) as report:
                _reset_process(node)
                with store.writer(node.id) as out:
                    _compute(node, store, context, out, report)
    return store.record(node.id)


def run_cell(
    plan: Plan, cell: Cell, context: Context, progress: Progress = ignore_progress
) -> dict[str, dict[str, Any]]:
    """Compute one cell and the baselines it is compared with, in this process; records by stage."""
    for node in plan.nodes:
        if cell.key in node.cells:
            run_node(node, context, progress)
    store = context.stages()
    return {stage: store.record(node_id) for stage, node_id in cell.nodes.items()}


def _reset_process(node: Node) -> None:
    """Undo what an earlier stage in this (reused) process may have left."""
    torch.manual_seed(int(node.settings.get("seed") or 0))
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_grad_enabled(True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _function(node: Node) -> Callable[[Work], Outcome]:
    """What computes the node: named by the driver's stage table, and never by anything that was stored."""
    module, _, name = node.function.partition(":")
    function: Callable[[Work], Outcome] = getattr(importlib.import_module(module), name)
    return function


def _compute(node: Node, store: StageStore, context: Context, out: Path, progress: Progress) -> None:
    inputs = {}
    for role, upstream in node.inputs:
        if not store.verify(upstream):
            raise StageError(f"{node.stage}: its {role} {upstream} is missing or damaged in {store.root}")
        inputs[role] = store.path(upstream)
    work = Work(node, inputs, out, store.scratch(node.id), store, context, progress)
    compute = _function(node)
    started = time.monotonic()
    outcome = compute(work)
    write_outcome(out, node, outcome, time.monotonic() - started)
