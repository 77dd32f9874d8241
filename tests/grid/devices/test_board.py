"""A whole device played by a process of this machine: files arrive once, and the runner answers or complains."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from grid.devices.address import PROCESS, Device
from grid.devices.board import Board, File
from grid.devices.transport import DeviceError
from grid.paths import DEVICE_SCRIPT
from model.files import file_sha256

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture
def doubler(tmp_path):
    """A file that gives twice its input [1, 3, 4, 4]."""
    from onnx import TensorProto, helper

    shape = [1, 3, 4, 4]
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)  # noqa: E731
    graph = helper.make_graph(
        [helper.make_node("Add", ["image", "image"], ["out"])], "g", [value("image")], [value("out")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "network.onnx")
    return File(tmp_path / "network.onnx", "onnxruntime")


def board_in(folder, python=sys.executable):
    return Board(Device("host", PROCESS, "", python=python, folder=str(folder)))


@pytest.fixture
def images(tmp_path):
    np.save(tmp_path / "images.npy", np.arange(2 * 48, dtype=np.float32).reshape(2, 3, 4, 4))
    return tmp_path / "images.npy"


def test_outputs_come_back_for_every_image(tmp_path, doubler, images):
    (found,), memory_mb = board_in(tmp_path / "there").outputs(doubler, images, (), 1)
    assert np.array_equal(found, 2 * np.load(images))
    assert memory_mb >= 0
    assert not list((tmp_path / "there").glob("outputs-*")), "nothing but what is sent stays there"


def test_what_is_there_is_not_sent_again_and_what_is_damaged_is(tmp_path, doubler):
    there = tmp_path / "there"
    first, second, third = (board_in(there) for _ in range(3))
    path = first.push(doubler.path)
    assert second.push(doubler.path) == path
    assert (first.sent, second.sent) == (doubler.path.stat().st_size, 0)
    (there / path).write_bytes(b"damaged")
    third.push(doubler.path)
    assert (there / path).read_bytes() == doubler.path.read_bytes()


def test_networks_are_timed_in_turns_in_one_process(tmp_path, doubler, images):
    np.save(tmp_path / "one.npy", np.zeros((1, 3, 4, 4), np.float32))
    plan = {"warmup": 1, "seconds": 0.0, "fewest": 5, "most": 9, "number": 0}
    times, ready_s = board_in(tmp_path / "there").time([doubler, doubler], tmp_path / "one.npy", (), 1, plan)
    assert times.shape == (5, 2)
    assert (times > 0).all()
    assert ready_s > 0


def test_a_device_without_python_says_how_to_name_one(tmp_path):
    with pytest.raises(DeviceError, match=r"no nothing-here that runs. Install Python there, or name it: ...\?python="):
        board_in(tmp_path / "there", python="nothing-here").runtimes()


def test_what_the_runner_complains_about_is_passed_on(tmp_path, images):
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(DeviceError, match=r"host: .*(broken|Protobuf)"):
        board_in(tmp_path / "there").outputs(File(tmp_path / "broken.onnx", "onnxruntime"), images, (), 1)


def test_a_disk_that_has_no_room_for_the_outputs_is_told_as_any_full_disk(tmp_path, doubler, images):
    there = tmp_path / "there"
    there.mkdir()
    (there / f"outputs-{file_sha256(doubler.path)[:16]}-{file_sha256(images)[:16]}.npz").symlink_to("/dev/full")
    with pytest.raises(DeviceError, match=r"^host: its disk is full \(OSError: .*\)\. Make room, or remove"):
        board_in(there).outputs(doubler, images, (), 1)


def test_two_measurements_on_one_device_wait_for_each_other(tmp_path, doubler, images):
    import fcntl

    there = tmp_path / "there"
    board = board_in(there)
    board.push(DEVICE_SCRIPT)
    waits = []
    with open(there / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def release(figures):
            if "waiting" in figures:
                waits.append(figures)
                fcntl.flock(lock, fcntl.LOCK_UN)

        board.progress = release
        board.outputs(doubler, images, (), 1)
    assert waits


def test_the_runner_ends_where_nobody_listens(tmp_path):
    (tmp_path / "script.py").write_bytes(DEVICE_SCRIPT.read_bytes())
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen([sys.executable, tmp_path / "script.py"], stdin=subprocess.PIPE, stdout=writer)
    os.close(writer)
    process.communicate(json.dumps({"do": "probe"}).encode(), timeout=60)
    assert process.returncode == 1


def test_the_runner_needs_nothing_of_this_project():
    text = DEVICE_SCRIPT.read_text()
    assert "import torch" not in text
    assert "from grid" not in text
    assert "from model" not in text
