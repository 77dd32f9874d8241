"""Two drivers at once on one storage: no corruption, and what they share is computed once."""

import csv
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import runner
from grid.storage.result_store import StageStore
from grid.storage.run_lock import only_driver
from model.errors import InputError
from tests.faults.ailing import attempts
from tests.grid.tiny import ROOT, space_file, world, written

GRIDS = {
    "one": "{method: [ptq, ptq+qat], fuse_bn: [true], rounding: [false]}",
    "same": "{method: [ptq, ptq+qat], fuse_bn: [true], rounding: [false]}",
    "other": "{method: [ptq], fuse_bn: [true], rounding: [false], granularity: [per_channel, per_tensor]}",
}


@pytest.mark.long
@pytest.mark.timeout(500)
def test_drivers_of_the_same_and_of_other_grids_share_one_storage(tmp_path, tmp_path_factory):
    here, storage = world(tmp_path_factory), tmp_path / "storage"
    shutil.copytree(here.pack.parent, storage / "packs")
    drivers = {}
    for name, axes in GRIDS.items():
        space_file(tmp_path / f"{name}.yaml", axes)
        command = [sys.executable, "-m", "tests.faults.driver", "--grid", str(tmp_path / f"{name}.yaml")]
        command += ["--checkpoint", str(here.checkpoint), "--storage", str(storage), "--run-name", name]
        with (tmp_path / f"{name}.txt").open("w") as output:
            drivers[name] = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, env=os.environ)
    statuses = {name: driver.wait(400) for name, driver in drivers.items()}
    assert statuses == dict.fromkeys(GRIDS, 0), (tmp_path / "one.txt").read_text()[-2000:]
    rows = {name: rows_of(storage / "runs" / name) for name in GRIDS}
    assert rows["one"] == rows["same"]
    shared = rows["one"].keys() & rows["other"].keys()
    assert len(shared) == 3
    assert all(rows["one"][cell] == rows["other"][cell] for cell in shared)
    counted = Counter(attempts(storage))
    assert {node for node, times in counted.items() if times > 1} == set(), "computed twice"
    store = StageStore(storage)
    assert all(map(store.verify, written(storage)))
    assert list((storage / "quarantine").iterdir()) == []


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    """The rows by cell, without what belongs to the run itself."""
    with (folder / "results.csv").open(newline="") as file:
        rows = {row["cell"]: row for row in csv.DictReader(file)}
    return {cell: {key: value for key, value in row.items() if key != "mlflow_run_id"} for cell, row in rows.items()}


def test_a_run_that_another_process_computes_is_refused_and_that_process_named(tmp_path, tmp_path_factory, capsys):
    here, storage = world(tmp_path_factory), tmp_path / "storage"
    shutil.copytree(here.pack.parent, storage / "packs")
    space_file(tmp_path / "tiny.yaml", GRIDS["one"])
    StageStore(storage)
    arguments = ["--grid", str(tmp_path / "tiny.yaml"), "--storage", str(storage), "--checkpoint", str(here.checkpoint)]
    with only_driver(storage, "monday"):
        assert runner.main([*arguments, "--run-name", "monday"]) == 2
    assert f"run monday: is being computed by process {os.getpid()} on" in capsys.readouterr().err
    assert not (storage / "runs" / "monday").exists()


def test_a_new_run_takes_the_next_name_that_nobody_has(tmp_path):
    StageStore(tmp_path)
    (tmp_path / "runs" / "full-2").mkdir(parents=True)
    with only_driver(tmp_path, "full", new=True) as first, only_driver(tmp_path, "full", new=True) as second:
        assert (first, second) == ("full", "full-3")
    with only_driver(tmp_path, "full"), pytest.raises(InputError, match="run full: is being computed by process"):
        with only_driver(tmp_path, "full"):
            pass
