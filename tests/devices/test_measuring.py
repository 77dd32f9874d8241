"""The product on the emulated board, over ssh and over adb: networks are measured, and each fault has one message."""

import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from grid.devices import board as boards
from grid.devices.address import PROCESS, Device, read_devices
from grid.devices.board import Board, File
from grid.devices.command_line import board_of
from grid.devices.measure import measure
from grid.devices.transport import SSH_CONFIG, DeviceError, DeviceLost
from grid.space.settings import LatencySpec
from tests.devices.test_board import int8_convolution

pytestmark = pytest.mark.long
pytest.importorskip("onnxruntime")
SSH, ADB = "ssh", "adb"
SPEC = LatencySpec(seconds=0.05, loads=3, warmup=1, threads=1)


@pytest.fixture
def host(board, monkeypatch):
    """This machine with the board's ssh configuration and its adb."""
    monkeypatch.setenv(SSH_CONFIG, str(board.ssh_config))
    monkeypatch.setenv("PATH", f"{board.folder}:{os.environ['PATH']}")
    monkeypatch.setattr(boards, "SILENCE_S", 60.0)
    return board


def device_of(board, wire, **options) -> Device:
    address = board.url if wire == SSH else f"adb:{board.serial}"
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return read_devices([f"board={address}{f'?{query}' if query else ''}"])[0]


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> tuple[File, Path]:
    """An int8 convolution with float edges, and inputs for it."""
    import onnx
    from onnx import helper

    folder = tmp_path_factory.mktemp("network")
    model = onnx.load_from_string(int8_convolution())
    graph = model.graph
    kinds = onnx.TensorProto
    graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1 / 255), "in_scale"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.uint8(0), "in_zero"))
    graph.node.insert(0, helper.make_node("QuantizeLinear", ["image", "in_scale", "in_zero"], ["input"]))
    graph.node.append(helper.make_node("DequantizeLinear", ["output", "output_scale", "output_zero"], ["levels"]))
    del graph.input[:], graph.output[:]
    graph.input.append(helper.make_tensor_value_info("image", kinds.FLOAT, [1, 3, 16, 16]))
    graph.output.append(helper.make_tensor_value_info("levels", kinds.FLOAT, [1, 8, 16, 16]))
    onnx.save(model, folder / "network.onnx")
    images = np.random.default_rng(0).uniform(0, 1, (2, 3, 16, 16)).astype(np.float32)
    np.save(folder / "images.npy", images)
    np.save(folder / "image.npy", images[:1])
    return File(folder / "network.onnx", "onnxruntime"), folder / "images.npy"


@pytest.mark.parametrize("wire", [SSH, ADB])
def test_the_board_says_what_it_is(host, wire):
    facts = Board(device_of(host, wire)).probe()
    assert facts.machine == "aarch64"
    assert {one.part for one in facts.clusters} == {"Cortex-A55", "Cortex-A76"}
    assert facts.fastest().part == "Cortex-A76"
    assert facts.temperature_c == 45.0


@pytest.mark.parametrize("wire", [SSH, ADB])
def test_outputs_there_are_those_of_this_machine_within_a_level_and_files_are_sent_once(host, wire, network):
    import onnxruntime

    file, images = network
    board = Board(device_of(host, wire))
    (there,), _ = board.outputs(file, images, (), 1)
    session = onnxruntime.InferenceSession(str(file.path), providers=["CPUExecutionProvider"])
    here = np.concatenate([session.run(None, {"image": image[None]})[0] for image in np.load(images)])
    assert np.abs(there - here).max() <= 0.08 + 1e-6, "one step of its output"
    assert len(np.unique(here)) > 100
    again = Board(device_of(host, wire))
    again.outputs(file, images, (), 1)
    assert again.sent == 0


def test_networks_are_timed_on_the_fast_cluster_in_fresh_processes(host, network):
    file, images = network
    found = measure(Board(device_of(host, SSH)), [file], images.with_name("image.npy"), SPEC)
    assert [times.shape[1] for times in found.loads] == [1, 1, 1]
    assert set(found.cores) == set(found.facts.fastest().cores)


def test_a_hot_board_is_told(host, network):
    file, images = network
    board = Board(device_of(host, SSH))
    with host.fact("/sys/class/thermal/thermal_zone0/temp", "85000\n"):
        found = measure(board, [file], images.with_name("image.npy"), SPEC, sleep=lambda seconds: None)
    assert "stayed at 85 degrees" in found.throttled


def test_a_phone_without_python_runs_networks_by_the_benchmark_of_litert(host, tmp_path):
    pytest.importorskip("ai_edge_litert")
    import torch
    from torch import nn

    from quant.engines.exported import export

    torch.manual_seed(0)
    file = File(tmp_path / "network.tflite", "litert")
    export(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), "litert", torch.zeros(1, 3, 9, 7), file.path)
    images = np.random.default_rng(0).normal(size=(2, 3, 9, 7)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "image.npy", images[:1])
    here = Board(Device("host", PROCESS, "", python=sys.executable, folder=str(tmp_path / "here")))
    (expected,), _ = here.outputs(file, tmp_path / "images.npy", (), 1)
    with host.fault("no-python"):
        phone = board_of(device_of(host, ADB, benchmark=host.folder / "benchmark_model"))
        assert phone.runtimes()["runtimes"].keys() == {"litert"}
        (found,), memory_mb = phone.outputs(file, tmp_path / "images.npy", (), 1, [expected.shape[1:]])
        timing = measure(phone, [file], tmp_path / "image.npy", SPEC)
    assert np.allclose(found, expected, atol=1e-5)
    assert memory_mb > 0
    assert timing.cores == timing.facts.fastest().cores
    assert (timing.loads[0] > 0).all()


@pytest.mark.parametrize(
    ("wire", "fault", "message"),
    [
        (SSH, "refuse", "ssh does not reach it"),
        (SSH, "host-key", "its host key is not the one that ssh knows; nothing was sent"),
        (SSH, "no-python", "there is no python3 that runs. Install Python there, or name it"),
        (SSH, "freeze", "ssh does not reach it"),
        (ADB, "refuse", "adb does not reach it"),
        (ADB, "no-python", "there is no python3 that runs"),
        (ADB, "unauthorized", "Allow this computer on its screen"),
        (ADB, "offline", "adb does not reach it"),
    ],
)
def test_a_board_that_cannot_measure_has_one_message_and_measures_when_it_is_mended(host, wire, fault, message):
    with host.fault(fault), pytest.raises(DeviceError) as caught:
        Board(device_of(host, wire)).runtimes()
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert Board(device_of(host, wire)).runtimes()["runtimes"].keys() >= {"onnxruntime"}


@pytest.mark.parametrize("wire", [SSH, ADB])
def test_a_full_disk_is_told_and_half_a_file_is_none(host, wire, tmp_path):
    if not host.has_small_disk:
        pytest.skip("no mount namespace on this machine")
    file = tmp_path / "large.bin"
    file.write_bytes(os.urandom(400_000))
    with host.fault("disk-full", "65536"), pytest.raises(DeviceError, match="its disk is full"):
        Board(device_of(host, wire)).push(file)
    board = Board(device_of(host, wire))
    board.push(file)
    assert board.sent == 400_000


@pytest.mark.parametrize("wire", [SSH, ADB])
def test_a_board_that_goes_in_the_middle_is_lost_and_can_be_measured_again(host, wire, network):
    file, images = network
    board = Board(device_of(host, wire))
    began = threading.Event()
    board.progress = lambda figures: began.set()
    caught: list[Exception] = []

    def run() -> None:
        try:
            board.time([file], images.with_name("image.npy"), (), 1, {"warmup": 0, "seconds": 600, **NUMBERS})
        except DeviceError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert began.wait(90)
    with host.fault("power"):
        thread.join(60)
    assert not thread.is_alive()
    assert len(caught) == 1
    assert isinstance(caught[0], DeviceError)
    again = Board(device_of(host, wire))
    times, _ = again.time([file], images.with_name("image.npy"), (), 1, {"warmup": 0, "seconds": 0, **NUMBERS})
    assert len(times) == 5


NUMBERS = {"fewest": 5, "most": 10**9, "number": 0}


def test_a_board_that_hangs_is_given_up(host, monkeypatch, network):
    file, _ = network
    monkeypatch.setattr(boards, "SILENCE_S", 3.0)
    board = Board(device_of(host, SSH))
    board.push(file.path)
    board.push(boards.DEVICE_SCRIPT)
    with host.fault("hang"), pytest.raises(DeviceLost, match="said nothing for"):
        board.ask({"do": "probe"})
