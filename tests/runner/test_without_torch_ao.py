"""A PyTorch that has lost ``torch.ao``: its int8 engines are excluded with the reason, and all else works."""

import csv
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

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
    assert first.startswith("4 cells, 12 excluded; ")
    assert "; none of the 12 int8 cells is left (qnnpack needs torch.ao, and PyTorch " in first
    assert first.endswith("none here: use another engine, such as --set engine=xnnpack)")


def test_each_engine_of_pytorch_is_missing_with_the_reason(tmp_path):
    code = f"from quant.engines.catalog import missing; print(*map(missing, {TORCH!r}), sep='\\n')"
    reasons = run(tmp_path, ALL, ["-c", code]).stdout.splitlines()
    for engine, reason in zip(TORCH, reasons, strict=True):
        assert reason.startswith(f"{engine} needs torch.ao, and PyTorch ")


def test_kernels_that_this_pytorch_was_built_without_are_missing_too(monkeypatch):
    monkeypatch.setattr("torch.backends.quantized", SimpleNamespace(supported_engines=["none", "onednn"]))
    assert missing("onednn") is None
    assert "has no qnnpack here, but onednn: use another engine" in str(missing("qnnpack"))


@pytest.mark.long
@pytest.mark.parametrize("engine", ENGINES)
def test_a_grid_of_another_engine_gives_all_its_cells(at, tmp_path, engine):
    chosen = (f"engine=[qnnpack,{engine}]", "fuse_bn=true", "granularity=per_channel", "method=ptq+qat")
    arguments = at.arguments(*(part for one in chosen for part in ("--set", one)))
    done = run(tmp_path, WHO.get(engine, ALL), ["runner.py", *arguments], 600)
    assert done.returncode == 0, done.stdout + done.stderr
    with (at.run("asked") / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    by_engine = {row["engine"]: row for row in rows if row["method"] == "ptq+qat"}
    assert by_engine.keys() == {"qnnpack", engine}
    assert by_engine["qnnpack"]["status"] == "excluded"
    assert "qnnpack needs torch.ao" in by_engine["qnnpack"]["reason"]
    assert by_engine[engine]["graph_hash"]
    assert {row["status"] for row in rows if row is not by_engine["qnnpack"]} == {"ok"}
