"""Fresh loads: each is a process of its own on the cores of whoever asks, and one that fails says how."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from grid.space.settings import LatencySpec
from grid.stages.fresh_loads import LoadServer, measure_fresh, running_server
from grid.stages.latency import time_pairs
from grid.stages.load_server import LoadRequest, as_run, keep_memory, run_load
from grid.stages.work import StageError
from model.network.build import build_network
from model.network.spec import NetworkSpec
from quant.artifact import Form, save_network

SIZE = 64
SPEC = LatencySpec(seconds=0.1, loads=3, warmup=1)
EXAMPLE = np.zeros((1, 3, SIZE, SIZE), np.float32)


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    """The folder of a tiny float network."""
    folder, spec = tmp_path_factory.mktemp("network"), NetworkSpec(input_size=SIZE)
    save_network(folder, build_network(spec).eval(), Form(spec, fused=False, form="float"))
    return folder


def own_network(folder: Path, body: str) -> tuple[Path, Path]:
    """A user's network whose forward runs ``body`` in other processes: its file, and the folder of a saved one."""
    file = folder / "odd.py"
    file.write_text(
        "import os, signal, time, torch\n"
        "class Odd(torch.nn.Conv2d):\n"
        f"    def forward(self, x):\n        if os.getpid() != {os.getpid()}:\n            {body}\n"
        "        return super().forward(x)\n"
        "def build(input_size):\n    return Odd(3, 1, 4, 4)\n"
    )
    from model.network.user_network import register_network

    spec = NetworkSpec(register_network(file), SIZE)
    saved = folder / "saved"
    saved.mkdir()
    save_network(saved, build_network(spec).eval(), Form(spec, fused=False, form="float"))
    return file, saved


def test_every_load_is_a_process_of_its_own_with_a_ratio_near_one_for_equal_networks(network, tmp_path):
    seen: list = []
    found = measure_fresh(network, network, EXAMPLE, SPEC, tmp_path, progress=seen.append)
    assert [one["step"] for one in seen] == [1, 2, 3]
    assert len(found.latency.load_ratios) == len(found.ready_s) == 3
    assert 0.5 < found.latency.ratio < 2
    assert "ProfilerStep*" in found.table
    assert found.step_ms > 0
    assert found.operators.keys() == {"candidate", "reference"}
    assert {one.kind for one in found.operators["candidate"]} >= {"convolution", "depthwise", "linear"}
    assert found.untold == {}


def test_operators_that_cannot_be_told_leave_the_latency_and_say_why(network, tmp_path, monkeypatch):
    def broken(*_):
        raise KeyError("no such event")

    np.save(tmp_path / "example.npy", EXAMPLE)
    monkeypatch.setattr("grid.stages.load_server.operator_times", broken)
    monkeypatch.setattr("grid.stages.load_server.keep_memory", lambda: None)  # it would last
    latency = {"seconds": 0.1, "loads": 3, "warmup": 1, "threads": 1}
    try:
        found = run_load(
            LoadRequest(str(network), str(network), str(tmp_path / "example.npy"), 0, latency, operators=True)
        )
    finally:
        gc.enable()
    assert len(found["times"]) >= 5
    assert found["operators"] == {}
    assert found["untold"] == dict.fromkeys(("candidate", "reference"), "KeyError: 'no such event'")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no processes")
def test_loads_are_forks_on_the_asked_cores_with_as_many_threads_as_the_spec_says(tmp_path):
    where = tmp_path / "seen"
    body = (
        f"open({str(where)!r}, 'a').write(f'{{os.getpid()}} {{os.sched_getaffinity(0)}} {{torch.get_num_threads()}};')"
    )
    file, saved = own_network(tmp_path, body)
    home = os.sched_getaffinity(0)
    core = max(home)
    try:
        os.sched_setaffinity(0, {core})
        measure_fresh(saved, saved, EXAMPLE, SPEC, tmp_path, own_network=file)
    finally:
        os.sched_setaffinity(0, home)
    lines = set(filter(None, where.read_text().split(";")))
    assert len(lines) == 3, "one process a load"
    assert {line.partition(" ")[2] for line in lines} == {f"{{{core}}} 1"}
    assert str(os.getpid()) not in {line.partition(" ")[0] for line in lines}


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        ("raise ValueError('no such depth')", StageError, r"load 1 of 3 of saved.*ValueError: no such depth"),
        ("os.kill(os.getpid(), signal.SIGKILL)", ChildProcessError, r"load 1 of 3 of saved.*was killed by SIGKILL"),
        ("os._exit(7)", ChildProcessError, r"ended with status 7, without a result"),
    ],
)
def test_a_load_that_fails_or_dies_says_how_and_the_next_one_works(tmp_path, network, body, error, words):
    file, saved = own_network(tmp_path, body)
    with pytest.raises(error, match=words):
        measure_fresh(saved, network, EXAMPLE, SPEC, tmp_path, own_network=file)
    assert measure_fresh(network, network, EXAMPLE, SPEC, tmp_path).latency.pairs >= 15


def test_a_load_that_hangs_is_ended(tmp_path, network):
    file, saved = own_network(tmp_path, "time.sleep(60)")
    np.save(tmp_path / "example.npy", EXAMPLE)
    latency = {"seconds": 0.1, "loads": 3, "warmup": 1, "threads": 1}
    request = LoadRequest(
        str(saved), str(network), str(tmp_path / "example.npy"), 0, latency, own_network=str(file), timeout_s=1.0
    )
    assert running_server().ask(request) == {"died": "gave no result within 1 s and was ended"}


def test_a_server_that_died_is_named_and_another_one_is_started(tmp_path, network):
    server = running_server()
    server.process.kill()
    with pytest.raises(ChildProcessError, match="the process that forks loads ended with -9"):
        server.ask(LoadRequest("", "", "", 0, {}))
    assert measure_fresh(network, network, EXAMPLE, SPEC, tmp_path).latency.pairs >= 15


def test_a_server_ends_with_the_process_that_asked_it():
    server = LoadServer()
    server.connection.close()
    assert server.process.wait(timeout=60) == 0


def test_channels_last_computes_the_same_and_lays_weights_out_otherwise():
    network = build_network(NetworkSpec(input_size=SIZE)).eval()
    image = torch.rand(1, 3, SIZE, SIZE)
    with torch.inference_mode():
        expected = network(image)
        run = as_run(network, "channels_last")
        assert torch.allclose(run(image), expected, atol=1e-4)  # type: ignore[arg-type]
    weights = [weight for weight in network.parameters() if weight.ndim == 4 and min(weight.shape[1:]) > 1]
    assert weights
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert as_run(network, "eager") is network


def test_memory_is_kept_so_that_forwards_fetch_no_pages():
    import resource

    network = torch.nn.Sequential(*(torch.nn.Conv2d(8, 8, 3, padding=1) for _ in range(4)))
    image = torch.rand(1, 8, 512, 512)

    def fetched() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        time_pairs(network, network, image, LatencySpec(seconds=0.1, loads=3, warmup=0))
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        torch.set_num_threads(1)
        keep_memory()
        fetched()
        os.write(writer, str(fetched()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    a_forward = 4 * 2048  # its layers' outputs; a buffer may still find its place late
    assert int(os.read(reader, 64)) < a_forward, "over all forwards"
