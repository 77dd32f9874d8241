"""Whole grids on the emulated board, over ssh and over adb: nothing is lost, and each fault has one message."""

import csv
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from grid.devices.transport import SSH_CONFIG
from grid.paths import DEVICE_SCRIPT
from grid.storage.result_store import StageStore
from model.files import file_sha256
from tests.devices import board as boards
from tests.grid.tiny import ROOT, written

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
pytest.importorskip("onnxruntime")
GRID, TASK = Path(__file__).with_name("digits.yaml"), ROOT / "tests" / "runner" / "digits.py"
WIRES = ("ssh", "adb")
PATIENCE_S = 900
ROWS = 2
"""Of a device: the float file and the int8 one."""


@dataclass(frozen=True)
class Storage:
    """Where grids put what they compute, and the board that they measure on."""

    folder: Path
    board: boards.Board

    def driver(self, run: str, devices: tuple[str, ...], *more: str) -> subprocess.Popen[bytes]:
        """``runner.py`` in a process; what it prints goes to ``RUN.txt``."""
        addresses = {"ssh": self.board.url, "adb": f"adb:{self.board.serial}"}
        named = [part for name in devices for part in ("--device", f"{name}={addresses[name]}")]
        grid = ["--grid", str(GRID), "--task", str(TASK), "--run-name", run, "--device", "local", *named]
        return self.started(run, *(grid if devices else ["--resume", run]), *more)

    def started(self, run: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, SSH_CONFIG: str(self.board.ssh_config)}
        environment["PATH"] = f"{self.board.folder}:{environment['PATH']}"
        command = [sys.executable, "runner.py", *arguments, "--storage", str(self.folder)]
        with (self.folder / f"{run}.txt").open("ab") as output:
            return subprocess.Popen(
                command, cwd=ROOT, stdout=output, stderr=output, env=environment, start_new_session=True
            )

    def text(self, run: str) -> str:
        return (self.folder / f"{run}.txt").read_text()

    def rows(self, run: str) -> dict[str, list[dict[str, str]]]:
        """The rows of a run by device."""
        found: dict[str, list[dict[str, str]]] = {}
        with (self.folder / "runs" / run / "results.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                found.setdefault(row["device"], []).append(row)
        return found

    def measured(self) -> dict[str, int]:
        """When measurements on devices were written (ns), by stage."""
        store = StageStore(self.folder)
        return {
            node: when
            for node, when in written(self.folder).items()
            if store.record(node)["stage"] == "profile_on_device"
        }


@pytest.fixture(scope="module")
def computed(board, tmp_path_factory) -> Path:
    """A storage in which all but the latency on devices is known."""
    storage = Storage(tmp_path_factory.mktemp("computed"), board)
    driver = storage.started("local", "--grid", str(GRID), "--task", str(TASK), "--run-name", "local")
    assert driver.wait(PATIENCE_S) == 0, storage.text("local")
    return storage.folder


@pytest.fixture
def storage(board, computed, tmp_path) -> Storage:
    subprocess.run(["cp", "-a", f"{computed}/.", tmp_path], check=True)
    return Storage(tmp_path, board)


def until(happened: Callable[[], object], driver: subprocess.Popen[bytes]) -> None:
    """Wait while the driver runs."""
    end = time.monotonic() + 300
    while not happened():
        assert driver.poll() is None, "the grid ended before"
        assert time.monotonic() < end
        time.sleep(0.1)


def runners(board: boards.Board) -> list[int]:
    """Processes on the board that run a network, or say what there is: python with the script, below qemu."""
    script, found = f"{file_sha256(DEVICE_SCRIPT)}{DEVICE_SCRIPT.suffix}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (process / "cmdline").read_bytes().split(b"\0")
            here = os.readlink(process / "cwd").startswith(str(board.folder))
            if script in line and b"qemu" in line[0] and here:
                found.append(int(process.name))
    return found


@contextmanager
def counted(board: boards.Board) -> Iterator[list[int]]:
    """How many processes ran networks on the board at once, looked at while the body runs."""
    counts, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            counts.append(len(runners(board)))

    watching = threading.Thread(target=look)
    watching.start()
    try:
        yield counts
    finally:
        over.set()
        watching.join()


def assert_whole(storage: Storage, run: str, devices: tuple[str, ...]) -> None:
    rows = storage.rows(run)
    for device in devices:
        assert [row["status"] for row in rows[device]] == ["ok"] * ROWS, rows[device]
        assert {row["cpu_model"] for row in rows[device]} == {f"{device}: Cortex-A76"}
        assert max(float(row["device_levels_max"]) for row in rows[device]) <= 1.0
    assert {row["status"] for row in rows["local"]} == {"ok"}


@pytest.mark.parametrize("wire", WIRES)
def test_a_killed_grid_is_resumed_and_measures_only_what_is_missing(storage, wire):
    driver = storage.driver("killed", (wire,))
    until(storage.measured, driver)
    until(lambda: runners(storage.board), driver)
    driver.kill()  # in the middle of a network; the driver alone
    driver.wait()
    before = storage.measured()
    assert 0 < len(before) < ROWS
    assert storage.driver("killed", ()).wait(PATIENCE_S) == 0, storage.text("killed")
    after = storage.measured()
    assert {node: after[node] for node in before} == before
    assert len(after) == ROWS
    assert_whole(storage, "killed", (wire,))
    boards.until(lambda: not runners(storage.board), "a runner is left on the board")


def test_a_board_without_power_fails_its_rows_over_both_wires_and_resume_measures_them(storage):
    driver = storage.driver("power", WIRES)
    until(storage.measured, driver)
    until(lambda: runners(storage.board), driver)
    with storage.board.fault("power"):
        assert driver.wait(PATIENCE_S) == 1, storage.text("power")
    before, rows = storage.measured(), storage.rows("power")
    failed = [row for wire in WIRES for row in rows[wire] if row["status"] != "ok"]
    assert len(failed) == 2 * ROWS - len(before) > 0
    assert {row["status"] for row in rows["local"]} == {"ok"}
    for row in failed:
        assert row["status"] == "failed"
        assert re.match(rf"profile_on_device: Device(Lost|Error): {row['device']}: ", row["reason"]), row["reason"]
        assert len(row["reason"].splitlines()) == 1
    assert storage.driver("power", ()).wait(PATIENCE_S) == 0, storage.text("power")
    assert before.items() <= storage.measured().items()
    assert_whole(storage, "power", WIRES)


@pytest.mark.parametrize(
    ("fault", "messages"),
    [
        ("host-key", ("its host key is not the one that ssh knows; nothing was sent", "")),
        ("no-python", ("there is no python3 that runs", "there is no python3 that runs")),
        ("disk-full", ("its disk is full", "its disk is full")),
        ("refuse", ("ssh does not reach it", "adb does not reach it")),
    ],
)
def test_a_board_that_cannot_measure_is_told_first_and_in_each_of_its_rows(storage, fault, messages):
    if fault == "disk-full" and not storage.board.has_small_disk:
        pytest.skip("no mount namespace on this machine")
    wires = WIRES if messages[1] else WIRES[:1]
    storage.board.ssh("rm -rf .cache/quantization-grid /data/local/tmp/quantization-grid")
    with storage.board.fault(fault, "1024" if fault == "disk-full" else ""):
        assert storage.driver("fault", wires).wait(PATIENCE_S) == 1, storage.text("fault")
    rows, told = storage.rows("fault"), storage.text("fault")
    assert {row["status"] for row in rows["local"]} == {"ok"}
    for wire, message in zip(wires, messages, strict=False):
        assert f"device     {wire}: " in told
        assert {row["status"] for row in rows[wire]} == {"failed"}
        for row in rows[wire]:
            assert re.match(rf"profile_on_device: Device(Lost|Error): {wire}: ", row["reason"]), row["reason"]
            assert message in row["reason"]
            assert len(row["reason"].splitlines()) == 1
    assert storage.driver("fault", ()).wait(PATIENCE_S) == 0, storage.text("fault")
    assert_whole(storage, "fault", wires)


def test_two_grids_at_once_measure_one_after_the_other(storage, tmp_path_factory):
    other = Storage(tmp_path_factory.mktemp("other"), storage.board)
    subprocess.run(["cp", "-a", f"{storage.folder}/.", other.folder], check=True)
    drivers = [one.driver("at-once", ("ssh",)) for one in (storage, other)]
    for one, driver in zip((storage, other), drivers, strict=True):  # which ask first who is there
        until(lambda one=one: "device     ssh: Emulated" in one.text("at-once"), driver)
    with counted(storage.board) as counts:
        statuses = [driver.wait(PATIENCE_S) for driver in drivers]
    assert statuses == [0, 0], storage.text("at-once") + other.text("at-once")
    assert max(counts) == 1
    for one in (storage, other):
        assert_whole(one, "at-once", ("ssh",))


def test_ctrl_c_ends_what_runs_on_the_board(storage):
    driver = storage.driver("stopped", ("ssh",))
    until(storage.measured, driver)
    until(lambda: runners(storage.board), driver)
    os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait(120) == 130, storage.text("stopped")
    boards.until(lambda: not runners(storage.board), "a runner is left on the board")
    assert storage.driver("stopped", ()).wait(PATIENCE_S) == 0, storage.text("stopped")
    assert_whole(storage, "stopped", ("ssh",))
