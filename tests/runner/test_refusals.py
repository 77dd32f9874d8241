"""What is refused before any work: one message that says where, which value and what was expected."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

import runner
from model.network.build import build_network
from model.network.checkpoint import save_checkpoint
from tests.grid.tiny import ROOT, SPEC
from tests.model.data.nyu_files import kaggle
from tests.runner.desk import Desk, no_cluster

SPACES = sorted(file.stem for file in (ROOT / "search_spaces").glob("*.yaml"))


def refused(arguments: list[str], capsys, at: Desk) -> str:
    """The message of a command that is refused before a run begins."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grid.scheduling.tune.cluster", no_cluster)
        status = runner.main(arguments)
    shown = capsys.readouterr()
    assert status == 2
    assert "Traceback" not in shown.err + shown.out
    assert at.runs() == set(), "a refused command leaves no run"
    assert not (at.storage / "stages").exists() or not list((at.storage / "stages").iterdir())
    return shown.err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smoek", f"'smoek' is not a search space; expected one of {', '.join(SPACES)}"),
        ("missing.yaml", "'missing.yaml' is not a search space"),
    ],
)
def test_an_unknown_search_space_is_named_with_those_that_exist(at, capsys, name, message):
    assert message in refused(at.arguments(grid=name), capsys, at)


def test_everything_wrong_in_a_search_space_is_shown_at_once(at, capsys):
    text = "axes: {granularity: [per_channel, per_chanel]}\nsettings: {qat: {epochs: 0, epoch: 2}}\n"
    (at.folder / "tiny.yaml").write_text(text)
    message = refused(at.arguments(), capsys, at)
    assert "axes.granularity[1]='per_chanel' is unknown; expected one of per_channel, per_tensor" in message
    assert "settings.qat.epochs=0 is out of range" in message
    assert "qat.epoch is an unknown key" in message
    assert message.count("tiny.yaml") == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seeds", "a"], "'a' is not a list of seeds"),
        (["--seeds", "0,,1"], "'0,,1' is not a list of seeds"),
        (["--seeds", "1.5"], "'1.5' is not a list of seeds"),
        (["--seeds", ""], "'' is not a list of seeds"),
        (["--seeds=-1"], "'-1' is not a list of seeds"),
        (["--seeds", "3,3"], "=3 is there twice"),
        (["--seeds", "9" * 30], "9" * 30),
        (["--set", "qat.epochs"], "'qat.epochs' cannot be read"),
        (["--set", "qat.epoch=2"], "qat.epoch is an unknown key"),
        (["--set", "qat.epochs=many"], "qat.epochs='many' has the wrong type"),
        (["--set", "calibrate.images=0"], "calibrate.images=0 is out of range"),
        (["--set", "network.input_size=96"], "network.input_size=96 differs from data.input_size=64"),
        (["--cpus-per-trial", "0"], "--cpus-per-trial"),
        (["--cpus-per-trial", "4096"], "4096"),
        (["--gpus-per-trial=-1"], "--gpus-per-trial"),
        (["--address", "nonsense"], "'nonsense'"),
        (["--address", "127.0.0.1:1"], "127.0.0.1:1"),
    ],
)
def test_a_bad_flag_is_named_with_its_value(at, capsys, more, message):
    assert message in refused(at.arguments(*more), capsys, at)


def test_a_flag_of_the_wrong_type_is_refused(at, capsys):
    with pytest.raises(SystemExit) as stopped:
        runner.main(at.arguments("--cpus-per-trial", "two"))
    assert stopped.value.code == 2
    assert "invalid int value: 'two'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../up", ".hidden", "a/b", "a b", "x" * 101])
def test_a_run_name_that_cannot_be_a_folder_is_refused(at, capsys, name):
    assert f"{name!r} cannot be a folder" in refused(at.arguments(run_name=name), capsys, at)
    assert not (at.folder / "up").exists()


def test_an_unknown_run_cannot_be_resumed_and_those_that_can_are_named(at, capsys):
    assert "'other' is not a run in" in refused(at.arguments(run_name=None, resume="other"), capsys, at)
    at.run("monday").mkdir(parents=True)
    (at.run("monday") / "run.json").write_text("{}")
    assert runner.main(at.arguments(run_name=None, resume="other")) == 2
    assert "expected one of monday" in capsys.readouterr().err


def test_a_run_outside_the_storage_cannot_be_resumed(at, capsys):
    assert "'../storage' cannot be a folder" in refused(at.arguments(run_name=None, resume="../storage"), capsys, at)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("{folder}/mlruns", "is a folder, which MLflow keeps no runs in any more"),
        ("file://{folder}/mlruns", "is a folder"),
        ("http://127.0.0.1:9", "no server answers"),
        ("nonsense://x", "nonsense://x"),
        ("sqlite:///{folder}/tiny.yaml", "file is not a database"),
        ("postgresql://me:secret@127.0.0.1:1/db", "***@127.0.0.1:1/db"),
    ],
)
def test_a_tracking_uri_that_mlflow_cannot_use_is_refused_and_its_password_not_shown(at, capsys, uri, message):
    shown = refused(at.arguments(tracking_uri=uri.format(folder=at.folder)), capsys, at)
    assert message in shown
    assert "--tracking-uri" in shown
    assert "secret" not in shown


def test_a_storage_that_cannot_be_written_to_is_named(at, capsys):
    storage = at.folder / "tiny.yaml" / "results"
    assert runner.main(at.arguments(storage=str(storage))) == 2
    assert f"{storage}: cannot be written to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "message"),
    [("missing", "missing: does not exist"), ("empty", "empty: has no known layout"), ("no.mat", "no.mat")],
)
def test_missing_data_are_named(at, capsys, data, message):
    (at.folder / "empty").mkdir()
    (at.folder / "no.mat").write_bytes(b"no HDF5")
    assert message in refused(at.arguments(data=str(at.folder / data)), capsys, at)


def test_a_broken_image_is_named_with_its_row_and_no_pack_is_left(at, capsys):
    root = kaggle(at.folder / "nyu")
    broken = root / "data" / "nyu2_train" / "office_0002a_out" / "3.png.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    before = sorted((at.storage / "packs").iterdir())
    message = refused(at.arguments(data=str(root)), capsys, at)
    assert "data/nyu2_train/office_0002a_out/3.png.jpg" in message
    assert "nyu2_train.csv row 8" in message
    assert sorted((at.storage / "packs").iterdir()) == before


class Bomb:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def test_an_unreadable_checkpoint_is_named_with_what_is_wrong(at, capsys):
    whole = (at.folder / "tiny.safetensors").read_bytes()
    torch.manual_seed(0)
    sick = build_network(SPEC)
    with torch.no_grad():
        next(sick.parameters())[0] = float("nan")
    save_checkpoint(sick, SPEC, at.folder / "nan.safetensors", {})
    (at.folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (at.folder / "text.pth").write_text("no archive")
    (at.folder / "weights.bin").write_bytes(whole)
    torch.save({"state_dict": {"net.encoder.layer0.0.0.weight": torch.zeros(3)}}, at.folder / "other.ckpt")
    for name, message in {
        "missing.safetensors": "there is no such file",
        "cut.safetensors": "cannot be read as safetensors",
        "nan.safetensors": "1 not finite: encoder.layer0.0.0.weight",
        "text.pth": "cannot be read as a checkpoint",
        "weights.bin": "the suffix '.bin' is unknown",
        "other.ckpt": "its tensors do not fit the network",
    }.items():
        shown = refused(at.arguments(checkpoint=str(at.folder / name)), capsys, at)
        assert shown.startswith(f"{at.folder / name}: ")
        assert message in shown


def test_a_checkpoint_that_no_cell_starts_from_is_refused_instead_of_training_another_network(at, capsys):
    other = ("--set", "network.input_size=32", "--set", "data.input_size=32")
    message = refused(at.arguments(*other), capsys, at)
    assert message.startswith(f"{at.folder / 'tiny.safetensors'}: ")
    assert "64" in message


def test_a_start_of_training_that_the_checkpoint_makes_void_is_refused(at, capsys):
    message = refused(at.arguments("--set", "train.init=[random, checkpoint]"), capsys, at)
    assert message.startswith("--set: train.init[0]='random' trains nothing")
    assert str(at.folder / "tiny.safetensors") in message
    assert "--checkpoint none" in message


@pytest.mark.parametrize("kind", ["torch", "pickle"])
def test_a_checkpoint_that_runs_code_is_refused_and_not_run(at, capsys, kind):
    path, mark = at.folder / "bomb.pth", at.folder / "exploded"
    content = {"state_dict": {"net.a": Bomb(mark)}}
    if kind == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    message = refused(at.arguments(checkpoint=str(path)), capsys, at)
    assert str(path) in message
    assert not mark.exists()
    if kind == "torch":
        assert "posix.system" in message
        assert "It was not run." in message


def test_a_storage_without_runs_has_no_pages(at, capsys):
    assert "holds no runs" in refused(["--ui", "--storage", str(at.storage)], capsys, at)


def test_a_report_of_a_run_that_is_not_there_is_refused(at, capsys):
    assert "'nothing' is not a run in" in refused(["--report", "nothing", "--storage", str(at.storage)], capsys, at)


def test_a_bad_target_is_refused_before_anything_runs(at, capsys):
    assert "'sim' is an unknown metric" in refused([*at.arguments(), "--target", "sim>=1"], capsys, at)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--report", "first", "--sync", "first"], ("--report", "--sync")),
        (["--ui", "--export", "first/fp32"], ("--export", "--ui")),
        (["--resume", "first", "--report", "second"], ("--report", "--resume")),
        (["--sync", "first", "--dry-run"], ("--sync", "--dry-run")),
        (["--resume", "first", "--run-name", "second"], ("--resume", "--run-name")),
        (["--report", "first", "--run-name", "second"], ("--report", "--run-name")),
    ],
)
def test_two_things_at_once_are_refused_by_their_names(at, capsys, flags, named):
    message = refused([*flags, "--storage", str(at.storage)], capsys, at)
    assert message == f"{named[0]} and {named[1]}: cannot be done at once; expected one of them.\n"
