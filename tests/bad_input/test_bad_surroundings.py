"""The command line around a grid: texts of flags, storages that no folder can be, and environments of all kinds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import runner
from grid.results.target import parse_target
from grid.run.options import read_seeds
from grid.storage.runs import checked_run_name
from tests.bad_input.answers import handled
from tests.generated import generated
from tests.grid.tiny import ROOT

EXAMPLES = 300
SPACE = """
name: größe
axes: {method: [ptq, qat]}
settings: {network: {input_size: 64}}
data: {input_size: 64, rooms_train: 2, rooms_val: 1, rooms_test: 1}
exclude: [{when: {method: qat}, reason: "not 'now' | `or` ever"}]
"""


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Path:
    """The working directory, with a search space of one cell and two baselines."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(SPACE, encoding="utf-8")
    return tmp_path


def planned(*more: str) -> int:
    """The exit status of planning that grid."""
    return runner.main(["--grid", "mine.yaml", "--checkpoint", "none", "--dry-run", *more])


# ---- texts of flags

WORDS = st.sampled_from(["ssim", ">=", "<=", "0.8", ",", "minimize", "maximize", " ", "nan", "inf", "-1", "1e999", "٣"])
texts = st.text(max_size=30) | st.lists(WORDS, max_size=9).map("".join) | st.lists(WORDS, max_size=9).map(" ".join)


@given(text=texts)
@generated(EXAMPLES)
def test_any_target_is_a_target_or_reported(text):
    handled(lambda: parse_target(text))


@given(text=st.text("0123456789,-. ٣", max_size=12) | st.text(max_size=12))
@generated(EXAMPLES)
def test_any_seeds_are_whole_numbers_or_reported(text):
    handled(lambda: read_seeds(text))


@given(name=st.text(max_size=110) | st.text("ab./\\~\0\n -", max_size=12))
@generated(EXAMPLES)
def test_any_run_name_is_one_folder_below_the_storage_or_reported(name):
    def check() -> None:
        assert Path("results", checked_run_name(name)).resolve().parent == Path("results").resolve()

    handled(check)


FLAGS = [
    ["--grid", "x" * 5000],
    ["--grid", "."],
    ["--grid", "/dev/zero"],
    ["--grid", "nowhere/mine.yaml"],
    ["--data", "x" * 5000],
    ["--data", ""],
    ["--data", "mine.yaml"],
    ["--data", "/dev/null"],
    ["--data", "https://example.org/nyu.mat"],
    ["--checkpoint", "x" * 5000 + ".pth"],
    ["--checkpoint", "."],
    ["--checkpoint", "mine.yaml"],
    ["--checkpoint", "https://example.org/a.ckpt"],
    ["--network", "x" * 5000 + ".py"],
    ["--network", "."],
    ["--network", "mine.yaml"],
    ["--network", "https://example.org/a.py"],
    ["--target", "best"],
    ["--target", "ssim>=nan, minimize mse"],
    ["--target", "minimize " + "x" * 5000],
    ["--set", "="],
    ["--set", "=1"],
    ["--set", "\0=\0"],
    ["--set", "seed=!!python/object/apply:os.system [exit]"],
    ["--set", "network.input_size=3200000"],
    ["--set", "data.rooms_train=1000000000000"],
    ["--set", "seed=" + "[" * 5000],
    ["--seeds", "0,1,,2"],
    ["--seeds", "0x10"],
    ["--seeds", "1" * 40],
    ["--seeds", "9" * 5000],
    ["--seeds", "\u0661"],
    ["--resume", ""],
    ["--report", ""],
    ["--sync", ""],
    ["--export", ""],
    ["--run-name", ""],
    ["--register", ""],
    ["--register", "a/b:c"],
    ["--gpus-per-trial", "nan"],
    ["--stall-minutes", "inf"],
    ["--storage", "s3://"],
    ["--storage", "nonsense://bucket/x"],
    ["--storage", "s3://key:secret@bucket/x?nonsense=1"],
]


@pytest.mark.parametrize("more", FLAGS, ids=lambda more: " ".join(more)[:40])
def test_a_flag_of_nonsense_is_refused_with_one_message_before_any_work(desk, capsys, more):
    assert planned(*more) == 2
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    assert 0 < len(shown.err) < 12_000
    assert shown.out == ""
    assert not Path("results", "packs").exists()


STORAGES = {
    "a file": "mine.yaml",
    "below a file": "mine.yaml/results",
    "a device": "/dev/null",
    "below a device": "/dev/null/results",
    "a long name": "x" * 300,
    "a long path": "/".join(["x" * 200] * 30),
    "a link to nothing": "dangling",
    "a link to itself": "loop",
    "of the kernel": "/proc/results",
}


@pytest.mark.parametrize("name", STORAGES)
def test_a_storage_that_no_folder_can_be_is_refused(desk, capsys, name):
    Path("dangling").symlink_to("/proc/nowhere/results")
    Path("loop").symlink_to("loop")
    assert planned("--storage", STORAGES[name]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert "cannot be written to" in shown


@pytest.mark.parametrize("name", ["a b", "größe", "it's", 'a"b', "$HOME", "a;b", "a%20b", "x" * 200, "-x", "\udcff"])
def test_a_storage_of_any_name_that_the_disk_takes_is_planned_in(desk, capsys, name):
    assert planned(f"--storage={name}") == 0
    assert Path(name, "packs").is_dir()
    assert "Traceback" not in capsys.readouterr().err


ENVIRONMENTS: dict[str, dict[str, str | None]] = {
    "a terminal that knows ASCII alone": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "another alphabet, and a home that is not there": {
        "LC_ALL": "tr_TR.UTF-8",
        "LANG": "tr_TR.UTF-8",
        "HOME": "/nowhere",
        "XDG_CACHE_HOME": "/nowhere",
        "TMPDIR": "/nowhere",
        "OMP_NUM_THREADS": "nonsense",
    },
    "no home, and nonsense": {
        "HOME": None,
        "USER": None,
        "LOGNAME": None,
        "OMP_NUM_THREADS": "",
        "MKL_NUM_THREADS": "-1",
        "MLFLOW_TRACKING_URI": "nonsense://x",
        "COLUMNS": "wide",
        "TERM": "nonsense",
        "TZ": "Nowhere/Nothing",
    },
}


@pytest.mark.slow
def test_a_grid_is_planned_alike_in_any_environment(desk):
    storage = desk / "it's größe"
    assert planned("--storage", str(storage)) == 0
    command = [sys.executable, str(ROOT / "runner.py"), "--grid", "mine.yaml", "--checkpoint", "none", "--dry-run"]
    shown = {}
    for name, changes in ENVIRONMENTS.items():
        environment = {key: value for key, value in ({**os.environ, **changes}).items() if value is not None}
        done = subprocess.run([*command, "--storage", str(storage)], cwd=desk, env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        assert b"Traceback" not in done.stderr
        shown[name] = done.stdout.decode().partition("\nabout ")[0]
    assert len(set(shown.values())) == 1


INPUTS = 3 * EXAMPLES + len(FLAGS) + len(STORAGES) + 10 + len(ENVIRONMENTS)
