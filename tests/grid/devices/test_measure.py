"""When a device is waited for, and which loads are measured again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from grid.devices.address import Device
from grid.devices.board import File
from grid.devices.facts import Cluster, Facts
from grid.devices.measure import measure
from grid.devices.transport import DeviceError
from grid.space.settings import LatencySpec

SPEC = LatencySpec(seconds=1.0, loads=3, warmup=1, threads=1)
FILES = [File(Path("a"), "onnxruntime"), File(Path("b"), "onnxruntime")]
BIG, LITTLE = Cluster((4, 5), "Cortex-A78", 2400, ""), Cluster((0, 1, 2, 3), "Cortex-A55", 1800, "")


class Played:
    """A board whose canary takes ``canary`` seconds load by load, at ``degrees`` probe by probe; the last ones stay."""

    def __init__(self, canary, degrees=(40.0,), clusters=(LITTLE, BIG), **device):
        self.device = Device("board", "ssh", "host", **device)
        self.canary, self.degrees, self.clusters = list(canary), list(degrees), clusters
        self.ran = []
        self.progress = lambda figures: None

    def probe(self):
        now = self.degrees.pop(0) if len(self.degrees) > 1 else self.degrees[0]
        return Facts("aarch64", "", "", tuple(self.clusters), {}, now, 0)

    def time(self, files, example, cores, threads, plan):
        self.ran.append(cores)
        canary = self.canary.pop(0) if len(self.canary) > 1 else self.canary[0]
        return np.array([[0.5 * canary, canary]] * 5), 0.1


def timed(board, plan=SPEC, slept=None):
    return measure(board, FILES, Path("image.npy"), plan, (slept if slept is not None else []).append)


def test_networks_run_on_the_fastest_cluster_unless_cores_are_named():
    board = Played([1.0])
    assert timed(board).cores == (4, 5)
    assert timed(Played([1.0], cores=(0, 1))).cores == (0, 1)


def test_more_threads_than_cores_are_refused():
    with pytest.raises(DeviceError, match="3 threads on 2 cores"):
        timed(Played([1.0]), replace(SPEC, threads=3))


def test_a_load_in_which_the_canary_drifts_is_measured_again():
    board = Played([1.0, 1.2, 1.0, 1.01])
    found = timed(board)
    assert found.canary == (1.0, 1.0, 1.01)
    assert (found.repeated, found.throttled) == (1, "")


def test_what_still_drifts_is_kept_and_called_throttled():
    found = timed(Played([1.0, 1.0, 1.5]))
    assert (len(found.loads), found.repeated) == (3, 3)
    assert "1.50 times as long" in found.throttled


def test_a_hot_device_is_waited_for():
    slept = []
    found = timed(Played([1.0], degrees=[50.0, 80.0, 70.0, 50.0]), slept=slept)
    assert len(slept) == 2
    assert found.throttled == ""


def test_a_device_that_stays_hot_is_measured_and_called_throttled():
    slept = []
    found = timed(Played([1.0], degrees=[80.0], cool_below_c=70.0), slept=slept)
    assert "stayed at 80 degrees" in found.throttled
    assert len(found.loads) == 3
