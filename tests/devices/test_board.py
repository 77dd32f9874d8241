"""The emulated board is what it claims to be, over ssh."""

import subprocess
import threading
import time

import numpy as np
import pytest

from tests.devices import parts
from tests.devices.board import until

pytestmark = pytest.mark.long

INFER = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.stdin.buffer.read(), providers=["CPUExecutionProvider"])
inputs = numpy.arange(3 * 16 * 16, dtype="uint8").reshape(1, 3, 16, 16)
sys.stdout.buffer.write(session.run(None, {"input": inputs})[0].tobytes())
"""


def test_commands_run_on_an_arm_board_and_give_their_status(board):
    assert board.ssh("uname -m").stdout == b"aarch64\n"
    assert board.ssh("pwd").stdout.decode() == f"{board.folder}/home\n"
    assert board.ssh("echo out; echo err >&2; exit 7").returncode == 7
    assert board.ssh("cat", bytes(range(256))).stdout == bytes(range(256))
    machine = board.ssh(
        "python3 -Ic 'import platform, sys; print(platform.machine(), sys.prefix, *sys.version_info[:2])'"
    )
    assert machine.stdout == b"aarch64 /usr 3 11\n"
    again = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import os; print(os.uname().machine)'])"
    assert board.ssh(f'python3 -c "{again}"').stdout == b"aarch64\n"


def test_it_has_two_clusters_and_pinning_to_one_is_real(board):
    online = "cat $QUANTIZATION_GRID_SYSROOT/sys/devices/system/cpu/cpu*/cpufreq/related_cpus | sort -u"
    clusters = board.ssh(online).stdout.decode().splitlines()
    assert int(board.ssh("nproc").stdout) == len(" ".join(clusters).split()) > 0
    for cluster in clusters:
        pinned = (
            f"taskset -c {cluster.replace(' ', ',')} python3 -c 'import os; print(*sorted(os.sched_getaffinity(0)))'"
        )
        assert board.ssh(pinned).stdout.decode().strip() == cluster


def test_what_it_says_of_itself_can_be_changed(board):
    name = "/sys/class/thermal/thermal_zone0/temp"
    with board.fact(name, "85000\n"):
        assert board.ssh(f"cat $QUANTIZATION_GRID_SYSROOT{name}").stdout == b"85000\n"
    assert board.ssh(f"cat $QUANTIZATION_GRID_SYSROOT{name}").stdout == b"45000\n"


def test_onnx_runtime_gives_there_what_it_gives_here(board):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = int8_convolution()
    inputs = np.arange(3 * 16 * 16, dtype="uint8").reshape(1, 3, 16, 16)
    here = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"input": inputs})[0]
    assert len(np.unique(here)) > 100, "levels all over the range"
    board.home.joinpath("infer.py").write_text(INFER)
    ran = board.ssh("python3 infer.py", model)
    assert ran.returncode == 0, ran.stderr
    there = np.frombuffer(ran.stdout, "uint8").reshape(here.shape)
    assert np.abs(there.astype(int) - here).max() <= 1


def test_the_runtimes_are_there_in_the_versions_of_this_host(board):
    script = """
import importlib.metadata, ai_edge_litert.interpreter, onnxruntime
print({name: importlib.metadata.version(name) for name in ("numpy", "onnxruntime", "ai-edge-litert")})
"""
    assert board.ssh("python3 -", script.encode()).stdout.decode().strip() == str(parts.pins())


def test_another_host_key_is_refused(board):
    with board.fault("host-key"):
        refused = board.ssh("true")
    assert refused.returncode == 255
    assert b"REMOTE HOST IDENTIFICATION HAS CHANGED" in refused.stderr
    assert board.ssh("true").returncode == 0


def test_nobody_listens(board):
    with board.fault("refuse"):
        refused = board.ssh("true")
    assert (refused.returncode, b"Connection refused" in refused.stderr) == (255, True)
    assert board.ssh("true").returncode == 0


def test_a_board_without_python_has_none(board):
    with board.fault("no-python"):
        missing = board.ssh("python3 -c 1")
    assert (missing.returncode, b"python3: not found" in missing.stderr) == (127, True)
    assert board.ssh("type python3").returncode == 0


def test_a_full_disk_keeps_what_fits(board):
    if not board.has_small_disk:
        pytest.skip("no mount namespace on this machine")
    with board.fault("disk-full", "65536"):
        full = board.ssh("cat > kept", bytes(200_000))
        assert (full.returncode, b"No space left on device" in full.stderr) == (1, True)
        assert 0 < (board.home / "kept").stat().st_size <= 65536
        assert board.ssh("wc -c < kept").returncode == 0, "it can be read"
    assert board.ssh("cat > kept", bytes(200_000)).returncode == 0


def test_a_board_that_hangs_begins_nothing_and_goes_on_with_nothing(board):
    ticks = "while :; do date +%s%N >> ticks; sleep 0.05; done"
    with subprocess.Popen(["ssh", "-F", str(board.ssh_config), "board", ticks], stdin=subprocess.DEVNULL) as running:
        until(lambda: (board.home / "ticks").exists())
        with board.fault("hang"):
            before = (board.home / "ticks").stat().st_size
            with pytest.raises(subprocess.TimeoutExpired):
                board.ssh("true", timeout_s=2)
            assert (board.home / "ticks").stat().st_size == before
            assert running.poll() is None
        until(lambda: (board.home / "ticks").stat().st_size > before)
        with board.fault("power"):
            assert running.wait(10) == 255


def test_a_frozen_board_accepts_and_never_answers(board):
    with board.fault("freeze"):
        frozen = board.ssh("true", options=("-o", "ConnectTimeout=2"))
    assert (frozen.returncode, b"timed out" in frozen.stderr) == (255, True)
    assert board.ssh("true").returncode == 0


def test_a_push_is_cut_in_the_middle(board):
    line = ["ssh", "-F", str(board.ssh_config), "board", "cat > cut"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as pushing:
        pushing.stdin.write(bytes(1_000_000))
        pushing.stdin.flush()
        until(lambda: (board.home / "cut").exists() and (board.home / "cut").stat().st_size > 0)
        with board.fault("die"):
            assert pushing.wait(10) == 255
    assert 0 < (board.home / "cut").stat().st_size <= 1_000_000


@pytest.mark.parametrize(("fault", "ends"), [("die", True), ("power", False)])
def test_a_command_outlives_its_connection_and_not_its_board(board, fault, ends):
    began, ended = board.home / f"began-{fault}", board.home / f"ended-{fault}"
    results = []
    asked = f"touch began-{fault}; sleep 1.5; touch ended-{fault}"
    running = threading.Thread(target=lambda: results.append(board.ssh(asked)))
    running.start()
    until(began.exists)
    with board.fault(fault):
        running.join(10)
        assert results[0].returncode == 255
    time.sleep(2.5)
    assert ended.exists() == ends


def int8_convolution() -> bytes:
    """An ONNX file: one QLinearConv of 3 channels to 8, uint8 in and out."""
    onnx = pytest.importorskip("onnx")
    numbers = np.random.default_rng(0)
    weight = numbers.integers(-127, 128, (8, 3, 3, 3), dtype="int8")
    constants = {
        "input_scale": np.float32(0.02),
        "input_zero": np.uint8(128),
        "weight": weight,
        "weight_scale": numbers.uniform(0.004, 0.006, 8).astype("float32"),
        "weight_zero": np.zeros(8, "int8"),
        "output_scale": np.float32(0.08),
        "output_zero": np.uint8(120),
        "bias": numbers.integers(-9000, 9000, 8, dtype="int32"),
    }
    helper, kinds = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node("QLinearConv", ["input", *constants], ["output"], pads=[1, 1, 1, 1])],
        "convolution",
        [helper.make_tensor_value_info("input", kinds.UINT8, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("output", kinds.UINT8, [1, 8, 16, 16])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return model.SerializeToString()
