"""A failing cell fails alone: a grid in which one cell each raises, diverges, runs out of memory, dies and hangs."""

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from grid.planning.plan import Plan
from grid.results.rows import result_rows
from grid.scheduling import tune as schedule
from grid.scheduling.outcome import RunOutcome
from grid.scheduling.tune import Resources, run_plan
from grid.storage.result_store import StageStore
from tests.faults.ailing import ailing_stage_trial, attempts, stage_trial_on_a_full_disk
from tests.grid.scheduling.events import Events
from tests.grid.tiny import space_of, unmeasured, world, written

pytestmark = pytest.mark.timeout(500)
AXES = "{method: [ptq], seed: [2, 3, 4, 5, 6, 7]}"
ILL = {3: "raises", 4: "runs_out_of_memory", 5: "is_killed", 6: "hangs", 7: "loses_a_file"}
TRIES = {3: 1, 4: 2, 5: 2, 6: 2, 7: 2}
"""By seed; the cell with 2 is well. An error of the stage's own is not tried again."""


@dataclass(frozen=True)
class Ran:
    """The grid with its ill cells, the same again in good health, and a third one whose storage fills up."""

    plan: Plan
    store: StageStore
    ended: RunOutcome
    rows: dict[int, dict[str, Any]]
    logs: dict[int, str]
    tried: list[str]
    before: dict[str, int]
    again: RunOutcome
    tried_again: list[str]
    stopped: RunOutcome
    stopped_events: Events
    stopped_rows: dict[int, dict[str, Any]]


@pytest.fixture(scope="module")
def ill_grid(ray_cluster, tmp_path_factory) -> Ran:
    here = world(tmp_path_factory)
    folder = tmp_path_factory.mktemp("failing")
    plan = unmeasured(here.plan(space_of(folder, AXES, overrides=("fuse_bn=true", "equalize=false", "rounding=false"))))
    cells = {cell.settings["seed"]: cell for cell in plan.cells if cell.settings["method"] == "ptq"}
    ill = {cells[seed].nodes["calibrate"]: ailment for seed, ailment in ILL.items()}
    context, resources = dataclasses.replace(here.context(folder), stall_s=30.0), Resources(retries=1)
    full = tmp_path_factory.mktemp("full")

    def rows(store: StageStore, ended: RunOutcome) -> dict[int, dict[str, Any]]:
        found = {row["cell"]: row for row in result_rows(plan, store, ended.failures)}
        return {seed: found[cell.name] for seed, cell in cells.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "stage_trial", partial(ailing_stage_trial, ill=ill))
        ended = run_plan(plan, context, resources, Events())
        store = StageStore(folder)
        found, tried, before = rows(store, ended), attempts(folder), written(folder)
        logs = {seed: log_of(row["reason"]) for seed, row in found.items()}
        (folder / "well").touch()
        again = run_plan(plan, context, resources, Events())
        tried_again = attempts(folder)[len(tried) :]
        # The disk is full: to the stage, and to the probe that looks whether it is.
        ill = dict.fromkeys(ill, "finds_the_disk_full")
        patch.setattr(schedule, "stage_trial", partial(stage_trial_on_a_full_disk, ill=ill))
        events = Events()
        stopped = run_plan(plan, dataclasses.replace(here.context(full)), resources, events)
    full_rows = rows(StageStore(full), stopped)
    return Ran(plan, store, ended, found, logs, tried, before, again, tried_again, stopped, events, full_rows)


def log_of(reason: str) -> str:
    """The text of the log that a reason names."""
    log = Path(reason.partition("(log: ")[2].partition(")")[0])
    return log.read_text() if log.is_file() else ""


def calibrate(ran: Ran, seed: int) -> str:
    return next(
        cell.nodes["calibrate"]
        for cell in ran.plan.cells
        if cell.settings["seed"] == seed and cell.settings["method"] == "ptq"
    )


def test_every_ill_cell_is_a_failed_row_and_the_other_is_ok(ill_grid):
    assert {seed: row["status"] for seed, row in ill_grid.rows.items()} == {2: "ok"} | dict.fromkeys(ILL, "failed")
    assert ill_grid.ended.stopped is None


@pytest.mark.parametrize(
    ("seed", "reason"),
    [
        (3, "calibrate: RuntimeError: it broke (log: "),
        (4, "calibrate: MemoryError: no 12 GB left (log: "),
        (5, "calibrate: its worker was killed or crashed"),
        (6, "calibrate: hung, without progress for --stall-minutes"),
        (7, "calibrate: FileNotFoundError: "),
    ],
)
def test_the_reason_says_what_happened_and_how_often_it_was_tried(ill_grid, seed, reason):
    assert ill_grid.rows[seed]["reason"].startswith(reason)
    assert ("(2 times)" in ill_grid.rows[seed]["reason"]) == (TRIES[seed] == 2)


@pytest.mark.parametrize("seed", [3, 4, 6, 7])
def test_the_reason_names_a_log_that_shows_where(ill_grid, seed):
    assert f"in {ILL[seed]}" in ill_grid.logs[seed], "the stack, down to the function that failed or hung"


def test_retries_are_bounded_and_an_error_of_the_stages_own_is_not_retried(ill_grid):
    counted = Counter(ill_grid.tried)
    assert {seed: counted[calibrate(ill_grid, seed)] for seed in ILL} == TRIES
    assert counted[calibrate(ill_grid, 2)] == 1


def test_going_on_computes_what_failed_and_what_is_behind_it_and_nothing_else(ill_grid):
    assert ill_grid.again == RunOutcome({})
    assert not set(ill_grid.tried_again) & ill_grid.before.keys()
    assert {calibrate(ill_grid, seed) for seed in ILL} <= set(ill_grid.tried_again)
    assert Counter(ill_grid.tried_again).most_common(1)[0][1] == 1
    after = written(ill_grid.store.root)
    assert {node: after[node] for node in ill_grid.before} == ill_grid.before


def test_a_full_disk_stops_the_grid_and_is_no_fault_of_a_cell(ill_grid):
    assert ill_grid.stopped.stopped is not None
    assert "No space left on device" in ill_grid.stopped.stopped
    assert ill_grid.stopped.failures == {}
    assert ill_grid.stopped_events.reasons == {}
    assert "failed" not in {row["status"] for row in ill_grid.stopped_rows.values()}
    assert json.dumps([row["reason"] for row in ill_grid.stopped_rows.values()]).count("--resume") >= len(ILL)
