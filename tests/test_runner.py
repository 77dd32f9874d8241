"""The command line: what is refused before any work, and a tiny grid that is killed, resumed and run again."""

import contextlib
import csv
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import runner
from grid.planning.plan import Plan
from grid.results.results_csv import RESULT_COLUMNS
from grid.run.options import STORE_NAMES, parse, saved
from grid.scheduling.tune import Dashboard, Ended, Observer, Resources, TrieSearcher
from grid.stages.run import Context, run_node
from grid.storage.result_store import StageStore
from model.data.pack import Pack
from model.errors import InputError
from model.metrics import depth_metrics
from model.network.checkpoint import save_checkpoint
from model.network.depth_network import build_network
from tests.grid.tiny import ROOT, SPEC, World, space_file, world, written
from tests.model.data.nyu_files import kaggle

AXES = "{method: [ptq, ptq+qat], granularity: [per_channel, per_tensor]}"
EXCLUDE = "exclude: [{when: {granularity: per_tensor}, reason: one granularity is enough here}]"
CELLS = ("fp32", "fp32-fuse_bn", "fuse_bn-per_channel-ptq", "fuse_bn-per_channel-ptq+qat")
EXCLUDED = ("fuse_bn-per_tensor-ptq", "fuse_bn-per_tensor-ptq+qat")
KNOWN_FOLDERS = set(STORE_NAMES)
MARK = "TINY_GRID_TEST"
SPACES = sorted(file.stem for file in (ROOT / "search_spaces").glob("*.yaml"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> World:
    return world(tmp_path_factory)


@dataclass(frozen=True)
class Desk:
    """A folder from which the grid is run: a search space, a checkpoint, and a storage with packed rooms."""

    folder: Path

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    def arguments(self, *more: str, **flags: str | None) -> list[str]:
        """A command line that works, with flags replaced or, where None, left out."""
        given: dict[str, str | None] = {
            "grid": str(self.folder / "tiny.yaml"),
            "checkpoint": str(self.folder / "tiny.safetensors"),
            "storage": str(self.storage),
            "run_name": "asked",
            **flags,
        }
        pairs = [(f"--{key.replace('_', '-')}", value) for key, value in given.items() if value is not None]
        return [part for pair in pairs for part in pair] + list(more)

    def runs(self) -> set[str]:
        """Folders in the storage that belong to a run and not to the store."""
        if not self.storage.is_dir():
            return set()
        return {path.name for path in self.storage.iterdir() if path.is_dir()} - KNOWN_FOLDERS


def desk(tiny: World, folder: Path) -> Desk:
    space_file(folder / "tiny.yaml", AXES, EXCLUDE)
    shutil.copy(tiny.checkpoint, folder)
    made = Desk(folder)
    shutil.copytree(tiny.pack.parent, made.storage / "packs")
    return made


@pytest.fixture
def at(tiny, tmp_path) -> Desk:
    return desk(tiny, tmp_path)


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


# ---- what is refused


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
        (["--seeds", "a"], "'a' is no list of seeds"),
        (["--seeds", "0,,1"], "'0,,1' is no list of seeds"),
        (["--seeds", "1.5"], "'1.5' is no list of seeds"),
        (["--seeds", ""], "'' is no list of seeds"),
        (["--seeds=-1"], "'-1' is no list of seeds"),
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


@pytest.mark.parametrize("name", ["stages", "packs", "mlflow-artifacts", "cores"])
def test_a_run_name_that_is_a_folder_of_the_store_is_refused(at, capsys, name):
    assert repr(name) in refused(at.arguments(run_name=name), capsys, at)


def test_an_unknown_run_cannot_be_resumed_and_those_that_can_are_named(at, capsys):
    assert "'other' is no run in" in refused(at.arguments(run_name=None, resume="other"), capsys, at)
    (at.storage / "monday").mkdir()
    (at.storage / "monday" / "run.json").write_text("{}")
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


def test_ctrl_c_before_the_grid_runs_ends_without_a_traceback(at, monkeypatch):
    def interrupt(*_: Any) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "prepare_pack", interrupt)
    assert runner.main(at.arguments()) == 130


# ---- the plan alone


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
    (tmp_path / "first").mkdir()

    def started(uri: str) -> None:
        facts = saved(parse(["--tracking-uri", uri]), "first")
        (tmp_path / "first" / "run.json").write_text(json.dumps(facts))

    again = [flag, "first", "--storage", str(tmp_path)]
    started("http://host:5000")
    assert parse(again).tracking_uri == "http://host:5000"
    assert parse([*again, "--tracking-uri", "sqlite:////other.db"]).tracking_uri == "sqlite:////other.db"
    started("http://me:hunter2@host:5000")
    assert "hunter2" not in (tmp_path / "first" / "run.json").read_text()
    with pytest.raises(InputError, match=r"--tracking-uri: first writes to http://\*\*\*@host:5000, whose secrets"):
        parse(again)
    assert parse([*again, "--tracking-uri", "http://me:new@host:5000"]).tracking_uri == "http://me:new@host:5000"


def test_a_dry_run_prints_cells_and_stages_and_starts_nothing(at):
    code = (
        "import sys, runner\n"
        "status = runner.main(sys.argv[1:])\n"
        "sys.exit(status or 10 * ('ray' in sys.modules) or 20 * ('mlflow' in sys.modules))"
    )
    command = [sys.executable, "-c", code, *at.arguments("--set", "fuse_bn=true", "--dry-run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    counts = "4 cells, 2 excluded; 17 stages (26 if not shared); 0 are in the store, 17 to compute"
    assert done.stdout.startswith(counts)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for cell in CELLS:
        assert any(line.startswith(f"{cell} load(4) ") for line in lines)
    for cell in EXCLUDED:
        assert f"{cell} excluded: one granularity is enough here" in lines
    assert "finetune(1)" in done.stdout
    assert at.runs() == set()
    assert not (at.storage / "mlflow.db").exists()


def test_the_flag_for_an_analysis_is_the_setting_and_plans_one_for_each_int8_cell(at):
    _, plain = quietly(at.arguments("--dry-run"))
    _, by_flag = quietly(at.arguments("--analyze", "--dry-run"))
    _, by_setting = quietly(at.arguments("--set", "analyze=true", "--dry-run"))
    assert by_flag == by_setting
    planned = [line.split()[:2] for line in by_flag.splitlines() if line.startswith("  analyze")]
    assert planned == [["analyze", str(plain.count(" convert("))]]
    assert "analyze" not in plain


# ---- a grid that is killed, resumed, and run again


@dataclass(frozen=True)
class Story:
    """What happened to one storage: a run was killed, resumed, repeated, and followed by one with a bad cell."""

    at: Desk
    killed: dict[str, int]
    resumed: dict[str, int]
    resume: subprocess.CompletedProcess
    again_status: int
    again_output: str
    again_seconds: float
    repeated: dict[str, int]

    @property
    def folder(self) -> Path:
        return self.at.storage / "first"

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.at.storage / 'mlflow.db'}"

    def rows(self, run: str = "first") -> list[dict[str, str]]:
        with (self.at.storage / run / "results.csv").open(newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def marked() -> Iterator[dict[str, str]]:
    """An environment for child processes by which all that they start is found and ended in the end."""
    mark = uuid.uuid4().hex
    yield {**os.environ, MARK: mark}
    for process in _marked(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _marked(mark: str) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


SET = ("--set", "fuse_bn=true", "--set", "equalize.objective=noise")  # the default recipe as it is


@pytest.fixture(scope="module")
def story(tiny, marked, tmp_path_factory) -> Story:
    at = desk(tiny, tmp_path_factory.mktemp("desk"))
    command = [sys.executable, str(ROOT / "runner.py")]
    # From the folder of the files, by relative names, as people do.
    first = ["--grid", "tiny.yaml", "--checkpoint", "tiny.safetensors", "--storage", "storage", "--run-name", "first"]
    with (at.folder / "killed.txt").open("w") as output:
        driver = subprocess.Popen([*command, *first, *SET], cwd=at.folder, env=marked, stdout=output, stderr=output)
        try:
            wait_for_stages(at, driver, 5)
        finally:
            driver.kill()
            driver.wait()
    killed = written(at.storage)
    resume = subprocess.run(
        [*command, "--resume", "first", "--storage", "storage"],
        cwd=at.folder, env=marked, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    resumed = written(at.storage)
    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grid.scheduling.tune.cluster", no_cluster)
        status, text = quietly(at.arguments(*SET, run_name="again"))
    seconds = time.monotonic() - started
    return Story(at, killed, resumed, resume, status, text, seconds, written(at.storage))


def no_cluster(resources: Any) -> Any:
    raise AssertionError("Ray is started")


def quietly(arguments: list[str]) -> tuple[int, str]:
    """Exit status and what was printed, of a run in this process."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        status = runner.main(arguments)
    return status, text.getvalue()


def wait_for_stages(at: Desk, driver: subprocess.Popen, count: int) -> None:
    end = time.monotonic() + 200
    while len(written(at.storage)) < count:
        assert driver.poll() is None, (at.folder / "killed.txt").read_text()
        assert time.monotonic() < end, (at.folder / "killed.txt").read_text()
        time.sleep(0.05)


pytestmark = pytest.mark.timeout(500)


@pytest.mark.slow
def test_a_killed_run_is_finished_by_resume(story):
    assert story.resume.returncode == 0, story.resume.stdout + story.resume.stderr
    assert [(row["cell"], row["status"]) for row in story.rows()] == [
        *((cell, "ok") for cell in CELLS),
        *((cell, "excluded") for cell in EXCLUDED),
    ]


def test_resume_computes_no_finished_stage_again(story):
    assert 5 <= len(story.killed) < len(story.resumed), "the run was killed in its middle"
    assert {node: story.resumed[node] for node in story.killed} == story.killed


def test_a_run_says_where_it_is_and_how_to_look_at_it(story):
    for text in ((story.at.folder / "killed.txt").read_text(), story.resume.stdout):
        assert f"run        {story.folder}" in text
        assert "MLflow     python runner.py --ui --storage " in text
        assert "dashboard  http://127.0.0.1:" in text
    assert "Traceback" not in story.resume.stderr
    for cell in CELLS:
        assert f"{cell} " in story.resume.stdout


def test_a_run_leaves_results_report_plan_and_command(story):
    with (story.folder / "results.csv").open() as file:
        assert tuple(csv.DictReader(file).fieldnames or ())[: len(RESULT_COLUMNS)] == RESULT_COLUMNS
    report = (story.folder / "report.md").read_text()
    assert all(cell in report for cell in (*CELLS, *EXCLUDED))
    assert "17 stages" in (story.folder / "plan.txt").read_text()
    kept = json.loads((story.folder / "run.json").read_text())
    assert kept["run_name"] == "first"
    assert kept["arguments"]["set"] == ["fuse_bn=true", "equalize.objective=noise"]
    assert kept["arguments"]["tracking_uri"] is None


def test_a_run_recommends_a_cell_and_its_report_is_made_again_for_another_target(story):
    assert "maximize ssim: " in story.resume.stdout
    page = (story.folder / "report.html").read_text()
    assert all(cell in page for cell in CELLS)
    table = (story.folder / "results.csv").read_bytes()
    for name in ("report.md", "report.html", "results.csv"):
        (story.folder / name).unlink()
    arguments = ["--report", "first", "--storage", str(story.at.storage)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grid.scheduling.tune.cluster", no_cluster)
        status, text = quietly([*arguments, "--target", "ssim>=2, minimize size_mb"])
        assert status == 0
        assert "ssim>=2, minimize size_mb: no cell" in text
        assert "No cell keeps ssim>=2" in (story.folder / "report.md").read_text()
        assert quietly(arguments)[0] == 0
    assert (story.folder / "report.html").read_text() == page
    assert (story.folder / "results.csv").read_bytes() == table


def test_a_recommended_model_is_registered_once_under_an_alias(story):
    arguments = story.at.arguments(*SET, run_name="again")
    for _ in range(2):
        status, text = quietly([*arguments, "--register", "depth"])
        assert status == 0
        assert "registered models:/depth@recommended" in text
    from mlflow import MlflowClient

    client = MlflowClient(story.uri)
    (version,) = client.search_model_versions("name = 'depth'")
    assert client.get_model_version_by_alias("depth", "recommended").version == version.version
    assert client.get_run(version.run_id).info.run_name in CELLS
    assert Path(version.source.removeprefix("file://"), "MLmodel").is_file()


def test_a_storage_without_runs_has_no_pages(at, capsys):
    assert "holds no runs" in refused(["--ui", "--storage", str(at.storage)], capsys, at)


def test_a_report_of_a_run_that_is_not_there_is_refused(at, capsys):
    assert "'nothing' is no run in" in refused(["--report", "nothing", "--storage", str(at.storage)], capsys, at)


def test_a_bad_target_is_refused_before_anything_runs(at, capsys):
    assert "'sim' is an unknown metric" in refused([*at.arguments(), "--target", "sim>=1"], capsys, at)


def test_a_run_is_resumed_from_any_folder(story, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert runner.main(["--resume", "first", "--storage", str(story.at.storage), "--dry-run"]) == 0
    assert "17 are in the store, 0 to compute" in capsys.readouterr().out


def test_mlflow_has_one_finished_run_a_cell_below_one_finished_grid(story):
    runs = runs_of(story, "first")
    assert len(runs["parents"]) == 1
    assert runs["parents"][0].info.status == "FINISHED"
    names = sorted(run.info.run_name for run in runs["children"])
    assert names == sorted((*CELLS, *EXCLUDED))
    assert {run.info.status for run in runs["children"]} == {"FINISHED"}
    assert len({run.data.tags["grid.cell"] for run in runs["children"]}) == len(names)
    status = {run.info.run_name: run.data.tags["grid.status"] for run in runs["children"]}
    assert status == dict.fromkeys(CELLS, "ok") | dict.fromkeys(EXCLUDED, "excluded")


def test_mlflow_has_the_same_figures_and_settings_as_results_csv(story):
    children = {run.info.run_name: run for run in runs_of(story, "first")["children"]}
    for row in story.rows():
        run = children[row["cell"]]
        assert row["mlflow_run_id"] == run.info.run_id
        for column in ("test_ssim", "test_mse", "sqnr_db", "size_mb", "latency_ms_p50", "latency_ratio_low"):
            assert run.data.metrics.get(column) == (float(row[column]) if row[column] else None), column
        assert run.data.params["method"] == row["method"]
        assert run.data.params["fuse_bn"] == row["fuse_bn"]
        assert set(run.data.params) <= {"method", "fuse_bn", "granularity", "engine", "seed", "network.encoder"}
        if row["method"] == "ptq+qat" and row["status"] == "ok":
            assert "val_ssim" in run.data.metrics
    (parent,) = runs_of(story, "first")["parents"]
    assert parent.data.params["qat.epochs"] == "1", "what all cells have in common stands with the grid"


def test_every_int8_cell_and_no_other_has_a_logged_model(story):
    children = {run.info.run_name: run for run in runs_of(story, "first")["children"]}
    with_model = {name for name, run in children.items() if "grid.model_uri" in run.data.tags}
    assert with_model == {row["cell"] for row in story.rows() if row["graph_hash"]}
    assert len(with_model) == 2


def runs_of(story: Story, name: str) -> dict[str, list[Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(story.uri)
    experiment = client.get_experiment_by_name("quantization-grid")
    assert experiment is not None
    parents = client.search_runs([experiment.experiment_id], f"tags.`grid.run` = '{name}'")
    children = [
        run
        for parent in parents
        for run in client.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    ]
    return {"parents": list(parents), "children": children}


PREDICT = """
import sys
import h5py, mlflow.pyfunc, numpy as np
database, model, pack, out = sys.argv[1:]
mlflow.set_tracking_uri(database)
loaded = mlflow.pyfunc.load_model(model)
with h5py.File(pack) as file:
    depth_m = loaded.predict(file["test"]["image"][:])
np.save(out, depth_m)
import model, quant
print(model.__path__[0], quant.__path__[0])
"""


@pytest.mark.slow
def test_a_logged_model_loads_in_a_fresh_process_and_gives_the_recorded_ssim(story, tiny, tmp_path):
    row = next(row for row in story.rows() if row["method"] == "ptq+qat")
    run = next(run for run in runs_of(story, "first")["children"] if run.info.run_id == row["mlflow_run_id"])
    out = tmp_path / "depth.npy"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, story.uri, run.data.tags["grid.model_uri"], str(tiny.pack), str(out)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(ROOT) not in done.stdout, "the model brings its own code"
    depth_m = np.load(out)
    with h5py.File(tiny.pack) as file:
        assert depth_m.shape == (len(file["test"]["image"]), 1, 16, 16)
    found = depth_metrics(torch.from_numpy(depth_m) / 10, Pack(tiny.pack).depth("test"))
    assert found["ssim"] == pytest.approx(float(row["test_ssim"]), abs=1e-6)
    assert found["rmse_m"] == pytest.approx(float(row["test_rmse_m"]), abs=1e-5)


def test_the_same_grid_again_computes_no_stage_and_starts_no_ray(story):
    assert story.again_status == 0
    assert story.repeated == story.resumed
    assert "0 to compute" in (story.at.storage / "again" / "plan.txt").read_text()
    assert "dashboard" not in story.again_output
    assert story.again_seconds < 120
    figures = [column for column in RESULT_COLUMNS if column != "mlflow_run_id"]
    for one, other in zip(story.rows(), story.rows("again"), strict=True):
        assert [one[column] for column in figures] == [other[column] for column in figures]


def test_a_finished_run_resumed_again_changes_nothing_in_mlflow(story):
    before = runs_of(story, "first")
    assert quietly(["--resume", "first", "--storage", str(story.at.storage)])[0] == 0
    after = runs_of(story, "first")
    ends = [{run.info.run_id: run.info.end_time for run in runs["children"]} for runs in (before, after)]
    assert ends[0] == ends[1]
    assert len(after["parents"]) == 1
    assert after["parents"][0].info.status == "FINISHED"


@pytest.mark.slow
def test_a_damaged_result_is_computed_again_by_the_next_run(story, tiny, tmp_path):
    at = desk(tiny, tmp_path)
    shutil.copytree(story.at.storage / "stages", at.storage / "stages")
    damaged = next(
        path.parent
        for path in (at.storage / "stages").glob("*/result.json")
        if json.loads(path.read_text())["stage"] == "fuse"
    )
    network = damaged / "network.safetensors"
    network.write_bytes(network.read_bytes()[:-4] + b"oops")
    _, text = quietly(at.arguments(*SET, "--dry-run"))
    assert "16 are in the store, 1 to compute" in text


def test_a_failed_cell_is_a_row_with_its_reason_and_exit_status_1(story, monkeypatch):
    monkeypatch.setattr("grid.scheduling.tune.cluster", lambda resources: contextlib.nullcontext(Dashboard("", None)))
    monkeypatch.setattr("grid.scheduling.tune.run_plan", run_plan_here)
    monkeypatch.setattr("grid.stages.run.finetune", breaks)
    status, text = quietly(story.at.arguments(*SET, "--set", "qat.epochs=2", run_name="failing"))
    assert status == 1
    rows = {row["cell"]: row for row in story.rows("failing")}
    assert {cell: rows[cell]["status"] for cell in CELLS} == dict.fromkeys(CELLS[:3], "ok") | {CELLS[3]: "failed"}
    reason = rows[CELLS[3]]["reason"]
    assert reason.startswith("finetune: RuntimeError: ")
    assert reason in (story.at.storage / "failing" / "report.md").read_text()
    assert f"FAILED {CELLS[3]}: {reason}" in text
    runs = runs_of(story, "failing")
    assert runs["parents"][0].info.status == "FAILED"
    child = next(run for run in runs["children"] if run.info.run_name == CELLS[3])
    assert (child.info.status, child.data.tags["grid.reason"]) == ("FAILED", reason)


def breaks(*_: Any, **__: Any) -> None:
    raise RuntimeError("it broke")


def run_plan_here(plan: Plan, context: Context, resources: Resources, observer: Observer) -> Ended:
    """The scheduler of ``grid.scheduling.tune`` with this process in Tune's place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ray.cluster_resources", lambda: {"CPU": 1.0})
        searcher = TrieSearcher(plan, StageStore(context.storage), resources, observer)
        while not searcher.is_done():
            config = searcher.suggest("trial")
            assert isinstance(config, dict)
            node = next(node for node in plan.nodes if node.id == config["node"])
            observer.started(node)
            try:
                run_node(node, context)
            except Exception as error:
                searcher.reasons[node.id] = f"{node.stage}: {type(error).__name__}: {error}"
            searcher.on_trial_complete("trial")
    return Ended(searcher.failures)


@pytest.mark.parametrize("loud", [False, True])
def test_an_interrupted_run_says_how_to_go_on_and_is_not_called_finished(story, monkeypatch, loud):
    def interrupt(*_: Any) -> Ended:
        if loud:
            raise KeyboardInterrupt
        return Ended({})  # Tune takes the first Ctrl-C as the end of its work

    monkeypatch.setattr("grid.scheduling.tune.cluster", lambda resources: contextlib.nullcontext(Dashboard("", None)))
    monkeypatch.setattr("grid.scheduling.tune.run_plan", interrupt)
    status, text = quietly(story.at.arguments(*SET, "--set", "qat.epochs=7", run_name="cut", tracking_uri=story.uri))
    assert status == 130
    again = f"python runner.py --resume cut --storage {story.at.storage} --tracking-uri {story.uri}"
    assert again in " ".join(text.split())
    rows = {row["cell"]: row for row in story.rows("cut")}
    assert (rows[CELLS[3]]["status"], rows[CELLS[2]]["status"]) == ("skipped", "ok")
    runs = runs_of(story, "cut")
    assert runs["parents"][0].info.status == "KILLED"
    assert CELLS[3] not in {run.info.run_name for run in runs["children"]}
