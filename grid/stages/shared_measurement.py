"""What depends on an int8 network alone is measured once for all cells that turn out to share it."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from grid.planning.stage_table import stage_named
from grid.stages.work import Outcome, Work, write_outcome


def graph_hash_of(work: Work) -> str | None:
    """The identity of the int8 network to look at, or None for a float network."""
    graph_hash: str | None = work.record("network")["metrics"].get("graph_hash")
    return graph_hash


def shared_measurement(work: Work, key: list[str], measure: Callable[[Path], Outcome]) -> str:
    """Measure what depends on the effective int8 network alone, once for all cells that share it; its id.

    Cells of equal hash are one network: their accuracy and latency are one measurement. Which cells these are shows
    only when they are converted, so that no plan has it. Its record is not one of a stage: estimates leave it out.
    """
    stage = work.node.stage
    digest = hashlib.sha256(json.dumps([stage, stage_named(stage).version, *key]).encode())
    node_id = digest.hexdigest()[:20]
    with work.store.claim(node_id) as done:
        if not done or not work.store.verify(node_id):
            with work.store.writer(node_id) as out:
                started = time.monotonic()
                write_outcome(out, work.node, measure(out), time.monotonic() - started, f"shared {stage}")
    return node_id
