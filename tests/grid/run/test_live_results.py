"""What a finished stage costs the driver: the records of the cells that it ends, however large the grid is."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from grid.planning.plan import Cell, Node, Plan
from grid.results.rows import Row, result_rows
from grid.run import live_results
from grid.run.files import RunFiles
from grid.run.live_results import WRITE_EVERY_S, LiveResults
from grid.storage.result_store import StageStore
from tests.grid.tiny import put, space_of, world

CONTEXT = {"run": "live", "command": "", "origin": "rooms", "test_images": 4}
TEST = dict.fromkeys(("ssim", "mse", "abs_rel", "rmse_m", "delta1"), 0.5)
LATENCY = dict.fromkeys(
    ("latency_ms_p50", "latency_ms_p90", "latency_ratio", "latency_ratio_low", "latency_ratio_high"), 1.0
)


class Clock:
    """In place of the module ``time``."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(live_results, "time", clock)
    return clock


class Desk:
    """A plan whose stages are made up one by one, and what is read and written meanwhile."""

    def __init__(self, folder: Path, factory: pytest.TempPathFactory, seeds: int) -> None:
        axes = f"{{method: [ptq, qat], seed: {list(range(seeds))}, granularity: [per_channel, per_tensor]}}"
        self.plan: Plan = world(factory).plan(space_of(folder, axes))
        self.store = StageStore(folder / "storage")
        self.ended: list[tuple[Cell, Row]] = []
        (folder / "run").mkdir()
        self.files = RunFiles(folder / "run", self.plan, CONTEXT)
        self.live = LiveResults(self.files, self.store, lambda cell, row: self.ended.append((cell, row)))

    def finish(self, node: Node) -> None:
        """One stage is in the store; all int8 networks of a granularity are the same."""
        metrics = TEST | LATENCY | {"profiler_step_ms": None}
        hashed = {"graph_hash": self.granularity(node)} if node.stage == "convert" else {}
        put(self.store, node, metrics | hashed, asserted={"cpu_model": "cpu"} if node.stage == "profile" else {})
        self.live.finished(node)

    def granularity(self, node: Node) -> str:
        return next(str(cell.settings["granularity"]) for cell in self.plan.cells if cell.key in node.cells)

    def table(self) -> list[dict[str, str]]:
        with (self.files.folder / "results.csv").open(newline="") as file:
            return list(csv.DictReader(file))


def test_a_cell_is_reported_once_when_its_last_stage_is_there_with_its_row(tmp_path, tmp_path_factory, clock):
    desk = Desk(tmp_path, tmp_path_factory, seeds=1)
    there: set[str] = set()
    for node in desk.plan.nodes:
        before = len(desk.ended)
        desk.finish(node)
        there.add(node.id)
        whole = [
            cell for cell in desk.plan.cells if node.id in cell.nodes.values() and there >= set(cell.nodes.values())
        ]
        assert [cell for cell, _ in desk.ended[before:]] == whole
    assert len(desk.ended) == len(desk.plan.cells)
    rows = {row["cell"]: row for row in result_rows(desk.plan, desk.store, {})}
    for _, row in desk.ended:
        expected = rows[row["cell"]]
        assert {**row, "same_as": None} == {**expected, "same_as": None}
    assert {row["cell"]: row["same_as"] for _, row in desk.ended} == {
        name: row["same_as"] for name, row in rows.items()
    }


def reads_of_each_stage(desk: Desk) -> list[int]:
    """How many records are read for each stage once a first cell has ended; no cell but those that end costs any."""
    first = next(cell for cell in desk.plan.cells if cell.name == "fp32")
    later = [node for node in desk.plan.nodes if node.id not in first.nodes.values()]
    for node in desk.plan.nodes:
        if node not in later:
            desk.finish(node)  # all rows are made once, when the first cell ends
    count, record, found = Counter[str](), StageStore.record, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageStore, "record", lambda store, id: count.update(["read"]) or record(store, id))
        patch.setattr(live_results, "write_results_csv", lambda *_: count.update(["written"]))
        for node in later:
            before, ended = count["read"], len(desk.ended)
            desk.finish(node)
            found.append(count["read"] - before)
            assert found[-1] == sum(len(cell.nodes) for cell, _ in desk.ended[ended:])
    assert count["written"] == 0, "results.csv was written once, and no time has passed"
    return found


def test_a_stage_reads_as_many_records_in_a_large_grid_as_in_a_small_one(tmp_path, tmp_path_factory, clock):
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
    small = reads_of_each_stage(Desk(tmp_path / "small", tmp_path_factory, seeds=1))
    large = reads_of_each_stage(Desk(tmp_path / "large", tmp_path_factory, seeds=12))
    assert len(large) > 6 * len(small)
    assert max(large) == max(small)


def test_all_rows_are_written_with_the_first_cell_and_again_after_a_while(tmp_path, tmp_path_factory, clock):
    desk = Desk(tmp_path, tmp_path_factory, seeds=1)

    def statuses() -> Counter[str]:
        return Counter(row["status"] for row in desk.table())

    for node in desk.plan.nodes:
        desk.finish(node)
    cells = len(desk.plan.cells)
    assert statuses() == {"ok": 1, "skipped": cells - 1}
    clock.now += WRITE_EVERY_S + 1
    desk.live.progressed(desk.plan.nodes[0], {"step": 1})
    assert statuses() == {"ok": cells}


def test_a_table_that_cannot_be_written_is_said_once_and_stops_nothing(tmp_path, tmp_path_factory, clock, monkeypatch):
    desk, said = Desk(tmp_path, tmp_path_factory, seeds=1), []
    desk.live.say = said.append

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(live_results, "write_results_csv", full)
    for node in desk.plan.nodes:
        desk.finish(node)
        clock.now += WRITE_EVERY_S + 1
    assert said == ["results.csv cannot be written now (No space left on device)"]
    assert len(desk.ended) == len(desk.plan.cells)
