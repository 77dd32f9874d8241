"""The command line as one frozen value, and what a run keeps of it."""

import dataclasses
import json
import shlex

import pytest

from grid.run.options import ACTIONS, GRID, parse, repeating_command, saved
from model.errors import InputError


def test_a_run_keeps_names_as_names_and_files_by_their_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("full", "rooms", "none"):
        (tmp_path / name).mkdir()
    kept = saved(parse(["--checkpoint", "none"]), "first")["arguments"]
    assert [kept[key] for key in ("grid", "data", "checkpoint", "network")] == ["full", "rooms", "none", None]
    kept = saved(parse(["--grid", "own.yaml", "--data", "none", "--checkpoint", "full"]), "first")["arguments"]
    assert [kept[key] for key in ("grid", "data", "checkpoint")] == [
        str(tmp_path / name) for name in ("own.yaml", "none", "full")
    ]


@pytest.mark.parametrize("flag", ["--resume", "--sync"])
def test_a_run_goes_on_in_its_own_tracking_store_and_asks_again_for_one_with_secrets(tmp_path, flag):
    (tmp_path / "runs" / "first").mkdir(parents=True)

    def started(uri: str) -> None:
        facts = saved(parse(["--tracking-uri", uri]), "first")
        (tmp_path / "runs" / "first" / "run.json").write_text(json.dumps(facts))

    again = [flag, "first", "--storage", str(tmp_path)]
    started("http://host:5000")
    assert parse(again).tracking_uri == "http://host:5000"
    assert parse([*again, "--tracking-uri", "sqlite:////other.db"]).tracking_uri == "sqlite:////other.db"
    started("http://me:hunter2@host:5000")
    assert "hunter2" not in (tmp_path / "runs" / "first" / "run.json").read_text()
    with pytest.raises(InputError, match=r"--tracking-uri: first writes to http://\*\*\*@host:5000, whose secrets"):
        parse(again)
    assert parse([*again, "--tracking-uri", "http://me:new@host:5000"]).tracking_uri == "http://me:new@host:5000"


OLD_RUN = {
    "run_name": "smoke-base",
    "arguments": {
        **{"grid": "smoke", "data": "rooms", "skip_bad": False, "checkpoint": None, "network": None},
        **{"tracking_uri": None, "address": None, "cpus_per_trial": 1, "gpus_per_trial": 1.0, "retries": 2},
        **{"stall_minutes": 30.0, "seeds": None, "set": ["qat.epochs=2"], "analyze": False},
        **{"target": "maximize ssim", "register": None},
    },
}
"""What the first version left in ``run.json``, in a folder directly in the storage."""


def test_a_run_of_the_first_version_is_resumed_with_its_own_command(tmp_path):
    (tmp_path / "smoke-base").mkdir()
    (tmp_path / "smoke-base" / "run.json").write_text(json.dumps(OLD_RUN))
    options = parse(["--resume", "smoke-base", "--storage", str(tmp_path), "--retries", "5"])
    assert (options.grid, options.set, options.retries) == ("smoke", ("qat.epochs=2",), 5)
    again = saved(options, "smoke-base")
    later = {"margin": [], "task": "depth", "device": []}
    assert again["arguments"] == {**OLD_RUN["arguments"], "retries": 5, **later}
    assert [name for name in again["arguments"] if name not in later] == list(OLD_RUN["arguments"])


def test_the_action_is_the_flag_that_names_it_and_else_the_grid():
    assert parse([]).action == GRID
    assert parse(["--dry-run"]).action == GRID
    found = [parse([f"--{name.replace('_', '-')}", "1"]).action for name in ACTIONS if name != "sync"]
    assert found == [name for name in ACTIONS if name != "sync"]
    assert parse(["--ui", "0"]).action == "ui"


def test_the_command_that_repeats_a_grid_gives_the_same_options_but_for_the_name_of_the_run():
    given = ["--seeds", "0,1", "--set", "qat.epochs=2", "--analyze", "--target", "minimize mse", "--run-name", "mine"]
    options = parse(["--grid", "smoke", *given])
    program, script, *arguments = shlex.split(repeating_command(options))
    assert (program, script) == ("python", "runner.py")
    assert parse(arguments) == dataclasses.replace(options, run_name=None)


def test_margins_are_kept_with_the_command_and_repeated():
    options = parse(["--margin", "ssim=0.002", "--margin", "mse=5%,latency=1%"])
    assert options.margin == ("ssim=0.002", "mse=5%,latency=1%")
    assert "--margin ssim=0.002 --margin mse=5%,latency=1%" in repeating_command(options)
    assert saved(options, "run")["arguments"]["margin"] == list(options.margin)
