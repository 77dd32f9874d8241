"""A PyTorch that has lost ``torch.ao``: its int8 engines are excluded with the reason, and all else works."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from quant.engines.catalog import PACKAGES, TORCH, missing
from tests.grid.tiny import ROOT, SIZE
from tests.without_torch_ao import ALL, OURS, REFUSED, environment

WHO = {"xnnpack": OURS}
"""To whom ``torch.ao`` is refused where not to all: packages of this engine import it themselves."""
ROOMS = {"train": 12, "val": 4, "test": 4}
ENGINES = [
    pytest.param(engine, marks=pytest.mark.skipif(missing(engine) is not None, reason=str(missing(engine))))
    for engine in PACKAGES
]


def run(folder: Path, whom: str, command: list[str], seconds: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment(folder, whom), capture_output=True, text=True,
        timeout=seconds, check=False,
    )  # fmt: skip


def test_it_is_refused_to_whom_it_should_be(tmp_path):
    ours = "import torch, sys; from quant.engines import saturation"
    assert REFUSED in run(tmp_path, OURS, ["-c", ours]).stderr
    theirs = "exec(compile('import torch.ao.quantization', 'theirs', 'exec'), {'__name__': 'theirs'})"
    assert run(tmp_path, OURS, ["-c", theirs]).returncode == 0
    assert REFUSED in run(tmp_path, ALL, ["-c", theirs]).stderr


def test_the_default_grid_says_why_nothing_is_left_and_what_to_do(at, tmp_path):
    size = [part for key in ("network", "data") for part in ("--set", f"{key}.input_size={SIZE}")]
    rooms = [part for key, count in ROOMS.items() for part in ("--set", f"data.rooms_{key}={count}")]
    done = run(tmp_path, ALL, ["runner.py", *at.arguments("--dry-run", *size, *rooms, grid="full")])
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert first.startswith("3 cells, 12 excluded; ")
    assert "; none of the 12 int8 cells is left (qnnpack needs torch.ao, and PyTorch " in first
    assert first.endswith("none here: use another engine, such as --set engine=xnnpack)")


@pytest.mark.parametrize("engine", TORCH)
def test_each_engine_of_pytorch_is_missing_with_the_reason(engine, tmp_path):
    code = f"from quant.engines.catalog import missing; print(missing({engine!r}))"
    assert run(tmp_path, ALL, ["-c", code]).stdout.startswith(f"{engine} needs torch.ao, and PyTorch ")


def test_kernels_that_this_pytorch_was_built_without_are_missing_too(monkeypatch):
    monkeypatch.setattr("torch.backends.quantized.supported_engines", ["none", "onednn"])
    assert missing("onednn") is None
    assert "has no qnnpack here, but onednn: use another engine" in str(missing("qnnpack"))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_grid_of_another_engine_gives_all_its_cells(at, tmp_path, engine):
    arguments = at.arguments(
        "--set", f"engine=[qnnpack,{engine}]", "--set", "fuse_bn=true", "--analyze", tracking_uri=None
    )  # fmt: skip
    done = run(tmp_path, WHO.get(engine, ALL), ["runner.py", *arguments], 600)
    assert done.returncode == 0, done.stdout + done.stderr
    with (at.run("asked") / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    on_it = [row for row in rows if row["engine"] == engine]
    assert {row["status"] for row in on_it if row["granularity"] != "per_tensor"} == {"ok"}
    assert len([row for row in on_it if row["status"] == "ok" and row["graph_hash"]]) == 2
    (reason,) = {row["reason"] for row in rows if row["engine"] == "qnnpack" and row["granularity"] == "per_channel"}
    assert "qnnpack needs torch.ao" in reason
    inspections = list((at.storage / "stages").glob("*/inspection.json"))
    assert inspections
    for one in inspections:
        assert "torch.ao" in json.loads(one.read_text())["absent"]["qnnpack"]
