"""A device without Python, whose networks LiteRT's command line benchmark runs: here a process of this machine."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from grid.devices.address import PROCESS, Device, read_devices
from grid.devices.board import Board, File
from grid.devices.command_line import CommandLineBoard, board_of
from grid.devices.measure import measure
from grid.devices.transport import DeviceError
from grid.space.settings import LatencySpec
from model.errors import InputError
from quant.engines.exported import export
from tests.grid.tiny import ROOT

pytest.importorskip("ai_edge_litert")


class Two(nn.Module):
    """An image and a vector."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.conv(x)
        return image, image.mean((2, 3))


@pytest.fixture
def device(tmp_path):
    """A folder whose ``benchmark_model`` speaks as LiteRT's does."""
    benchmark = tmp_path / "benchmark_model"
    script = ROOT / "tests" / "devices" / "benchmark_model.py"
    benchmark.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    benchmark.chmod(0o755)
    return Device("phone", PROCESS, "", folder=str(tmp_path / "there"), benchmark=str(benchmark))


@pytest.fixture
def files(tmp_path):
    """A network, and inputs for it."""
    path = tmp_path / "network.tflite"
    export(Two().eval(), "litert", torch.zeros(1, 3, 8, 6), path)
    inputs = np.random.default_rng(0).normal(size=(3, 3, 8, 6)).astype(np.float32)
    np.save(tmp_path / "inputs.npy", inputs)
    np.save(tmp_path / "example.npy", inputs[:1])
    return File(path, "litert"), tmp_path / "inputs.npy", tmp_path / "example.npy"


def test_outputs_are_those_that_python_gives(device, files, tmp_path):
    file, inputs, _ = files
    with_python = Board(Device("host", PROCESS, "", python=sys.executable, folder=str(tmp_path / "here")))
    expected, _ = with_python.outputs(file, inputs, (), 1)
    found, memory_mb = board_of(device).outputs(file, inputs, (), 1, [one.shape[1:] for one in expected])
    assert [one.shape for one in found] == [(3, 6, 4, 5), (3, 5)]
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    assert memory_mb == 4.25


def test_networks_take_turns_process_by_process(device, files):
    file, _, example = files
    other = File(file.path.with_name("other.tflite"), "litert")
    other.path.write_bytes(file.path.read_bytes() + bytes(16))
    found = measure(board_of(device), [file, other], example, LatencySpec(0.3, 3, 1, 1))
    assert [times.shape for times in found.loads] == [(2, 2)] * 3
    assert all((times > 0).all() and (times < 1).all() for times in found.loads)
    assert all(0 < ready_s < 60 for ready_s in found.ready_s)


def test_what_the_benchmark_complains_about_is_told(device, files):
    file, inputs, _ = files
    file.path.write_bytes(b"no network")
    with pytest.raises(DeviceError, match=r"^phone: its benchmark failed \(ValueError: .*\)$"):
        board_of(device).outputs(file, inputs, (), 1, [(5,)])


def test_a_device_without_the_benchmark_says_where_it_should_be(tmp_path):
    board = board_of(Device("phone", PROCESS, "", folder=str(tmp_path), benchmark="/data/local/tmp/benchmark_model"))
    assert isinstance(board, CommandLineBoard)
    with pytest.raises(DeviceError, match=r"phone: there is no /data/local/tmp/benchmark_model that runs\. Copy"):
        board.runtimes()


def test_it_runs_litert_alone(device):
    assert board_of(device).runtimes() == {"runtimes": {"litert": "by benchmark_model"}}


def test_the_address_names_it():
    (phone,) = read_devices(["phone=adb:R58M123?benchmark=/data/local/tmp/benchmark_model"])
    assert phone.benchmark == "/data/local/tmp/benchmark_model"
    with pytest.raises(InputError, match="benchmark: '-x' is no path"):
        read_devices(["phone=adb:R58M123?benchmark=-x"])
