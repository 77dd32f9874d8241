"""Files of a run that are cut, of other types or edited by hand: told by name, and no row is made of nonsense."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import runner
from grid.planning.plan import make_plan
from grid.results.rows import commands
from grid.run.files import FILE, RunFiles
from grid.run.options import parse, saved
from grid.run.saved_command import read_arguments, read_facts
from grid.space.search_space import load_space
from grid.storage.result_store import StageStore
from tests.bad_input.answers import handled, refusal
from tests.generated import generated

EXAMPLES = 250
CONTEXT = {"run": "made", "command": "python runner.py", "origin": "rooms", "data_fingerprint": "0", "test_images": 4}
TEXTS = {
    "nothing": "",
    "a space": " ",
    "open": "{",
    "list": "[]",
    "number": "3",
    "null": "null",
    "text": '"plan"',
    "empty": "{}",
    "deep": "[" * 100_000,
    "deep mapping": '{"cells":' * 50_000,
    "zeros": "\0" * 1000,
    "two": "{}{}",
    "YAML": "cells: []",
}
BYTES = {"no UTF-8": b'{"cells": "gr\xf6\xdfe"}', "UTF-16": '{"cells": []}'.encode("utf-16"), "picture": b"\x89PNG\r\n"}


@pytest.fixture(scope="module")
def plan() -> dict[str, Any]:
    """The plan.json of a run that has computed nothing yet."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        made = make_plan(load_space("smoke"), "0" * 64, "0" * 16)
        RunFiles(Path(folder), made, CONTEXT, {"a" * 8: "reason"}, {"fp32": "run"}).save()
        return json.loads((Path(folder) / FILE).read_text())


def set_to(value: object, *place: str | int) -> Callable[[dict[str, Any]], None]:
    def change(document: Any) -> None:
        for key in place[:-1]:
            document = document[key]
        document[place[-1]] = value

    return change


def without(*place: str | int) -> Callable[[dict[str, Any]], None]:
    def change(document: Any) -> None:
        for key in place[:-1]:
            document = document[key]
        del document[place[-1]]

    return change


CELL = ("cells", 0)
EDITS = {
    **{f"no {key}": without(key) for key in ("context", "failures", "mlflow_runs", "repeats", "common", "cells")},
    **{f"{key} of a list": set_to([1], key) for key in ("context", "failures", "mlflow_runs", "repeats", "common")},
    **{f"{key} of a text": set_to("x", key) for key in ("context", "failures", "mlflow_runs", "repeats", "common")},
    "cells of a mapping": set_to({"a": 1}, "cells"),
    "cells of numbers": set_to([1, 2], "cells"),
    "excluded of null": set_to(None, "excluded"),
    "endless repeats": set_to(float("inf"), "repeats"),
    "failures of numbers": set_to({"a": 3}, "failures"),
    "runs of lists": set_to({"fp32": [1]}, "mlflow_runs"),
    "no origin": without("context", "origin"),
    "context of lists": set_to([1], "context", "origin"),
    "no name": without(*CELL, "name"),
    "name of a number": set_to(3, *CELL, "name"),
    "name of a path": set_to("../../up", *CELL, "name"),
    "absolute name": set_to("/etc/passwd", *CELL, "name"),
    "name with a line": set_to("a\nb", *CELL, "name"),
    "key of a list": set_to([], *CELL, "key"),
    "one more field": set_to(3, *CELL, "colour"),
    "settings of a list": set_to([], *CELL, "settings"),
    "setting of a list": set_to([1], *CELL, "settings", "method"),
    "setting of another type": set_to("yes", *CELL, "settings", "fuse_bn"),
    "seed of a text": set_to("0", "common", "seed"),
    "no method": lambda document: [without("settings", "method")(cell) for cell in document["cells"]] and None,
    "no encoder": without("common", "network.encoder"),
    "relevant of what is not there": set_to(["colour"], *CELL, "relevant"),
    "relevant of a number": set_to(3, *CELL, "relevant"),
    "nodes of a list": set_to([], *CELL, "nodes"),
    "node of a number": set_to(3, *CELL, "nodes", "load"),
    "node of a path": set_to("../../up", *CELL, "nodes", "load"),
    "node of nothing": set_to("", *CELL, "nodes", "load"),
    "unknown stage": set_to("abc", *CELL, "nodes", "paint"),
    "excluded of a list": set_to([1], *CELL, "excluded"),
}


@pytest.mark.parametrize("name", TEXTS | BYTES)
def test_a_plan_that_is_no_whole_json_is_reported_by_name(tmp_path, name):
    (tmp_path / FILE).write_bytes(BYTES[name] if name in BYTES else TEXTS[name].encode())
    assert refusal(lambda: RunFiles.load(tmp_path)).startswith(f"{tmp_path}/{FILE}: cannot be read")


@pytest.mark.parametrize("name", EDITS)
def test_a_plan_edited_to_what_no_run_writes_is_reported_by_name(tmp_path, plan, name):
    document = copy.deepcopy(plan)
    EDITS[name](document)
    (tmp_path / FILE).write_text(json.dumps(document))
    assert refusal(lambda: RunFiles.load(tmp_path)).startswith(f"{tmp_path}/{FILE}: cannot be read")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_a_plan_cut_short_is_reported_by_name(tmp_path, plan, kept):
    text = json.dumps(plan)
    (tmp_path / FILE).write_text(text[: int(kept * len(text))])
    assert refusal(lambda: RunFiles.load(tmp_path)).startswith(f"{tmp_path}/{FILE}: cannot be read")


def test_an_untouched_plan_is_read(tmp_path, plan):
    (tmp_path / FILE).write_text(json.dumps(plan))
    assert len(RunFiles.load(tmp_path).plan.cells) == len(plan["cells"])


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
junk = st.recursive(scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> StageStore:
    return StageStore(tmp_path_factory.mktemp("storage"))


@given(data=st.data(), value=junk)
@generated(EXAMPLES)
def test_a_plan_changed_anywhere_gives_rows_or_is_reported(store, plan, data, value):
    document: Any = copy.deepcopy(plan)
    place, depth = document, data.draw(st.integers(1, 5))
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        depth -= 1
        if depth == 0 or not isinstance(place[key], dict | list):
            place[key] = value
            break
        place = place[key]
    (store.root / FILE).write_text(json.dumps(document))

    def rows() -> None:
        files = RunFiles.load(store.root)
        assert len(files.rows(store)) == len(files.plan.cells) + len(files.plan.excluded)
        assert commands(files.plan, "runner.py").keys() == {cell.name for cell in files.plan.cells}

    handled(rows)


# ---- run.json

DEFAULTS = vars(parse([]))
ARGUMENTS: dict[str, Any] = {
    "list": [],
    "text": "--grid smoke",
    "null": None,
    "unknown option": {"colour": "red"},
    "storage of a number": {"storage": 3},
    "grid of a list": {"grid": ["smoke"]},
    "grid of null": {"grid": None},
    "set of a text": {"set": "seed=1"},
    "set of numbers": {"set": [1]},
    "set of null": {"set": None},
    "cores of a text": {"cpus_per_trial": "two"},
    "cores of true": {"cpus_per_trial": True},
    "cores in float": {"cpus_per_trial": 1.5},
    "share of a text": {"gpus_per_trial": "half"},
    "share of null": {"gpus_per_trial": None},
    "flag of a text": {"skip_bad": "yes"},
    "flag of a number": {"analyze": 1},
    "checkpoint of a number": {"checkpoint": 3},
    "checkpoint of a mapping": {"checkpoint": {"path": "x"}},
    "seeds of a list": {"seeds": [0, 1]},
    "target of a number": {"target": 3},
}


@pytest.mark.parametrize("name", TEXTS | BYTES)
def test_facts_of_a_run_that_are_no_whole_json_are_reported_by_name(tmp_path, name):
    file = tmp_path / "run.json"
    file.write_bytes(BYTES[name] if name in BYTES else TEXTS[name].encode())
    assert refusal(lambda: read_arguments(file, DEFAULTS)).startswith(f"{file}: cannot be read")


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_that_no_command_line_gives_are_reported_by_name(tmp_path, name):
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"run_name": "x", "arguments": ARGUMENTS[name]}))
    assert refusal(lambda: read_arguments(file, DEFAULTS)).startswith(f"{file}: ")


@pytest.mark.parametrize("pack", [3, None, ["x"], {}])
def test_a_pack_that_is_no_text_is_reported(tmp_path, pack):
    (tmp_path / "run.json").write_text(json.dumps({"arguments": {}, "pack": pack}))
    assert refusal(lambda: read_facts(tmp_path / "run.json"))


def test_the_arguments_that_a_run_saves_are_read(tmp_path):
    given = ["--set", "seed=1", "--seeds", "0,1", "--skip-bad", "--gpus-per-trial", "0.5", "--target", "minimize mse"]
    options = parse([*given, "--margin", "ssim=0.002", "--margin", "mse=5%"])
    (tmp_path / "run.json").write_text(json.dumps(saved(options, "x")))
    found = read_arguments(tmp_path / "run.json", DEFAULTS)
    assert (found.pop("set"), found.pop("margin")) == (list(options.set), list(options.margin))
    assert found.pop("device") == list(options.device)
    assert found.items() <= vars(options).items()


@given(arguments=st.dictionaries(st.sampled_from(sorted(DEFAULTS)), junk, max_size=3) | junk)
@generated(EXAMPLES)
def test_any_arguments_are_taken_as_options_or_reported(store, arguments):
    (store.root / "run.json").write_text(json.dumps({"arguments": arguments}))

    def read() -> None:
        found = read_arguments(store.root / "run.json", DEFAULTS)
        assert found.keys() <= DEFAULTS.keys()

    handled(read)


# ---- the command line

RUNS = [
    "",
    " ",
    "..",
    "../x",
    "/etc",
    "a/b",
    "~",
    "x" * 101,
    "a\0b",
    "a\nb",
    "größe/x",
    "stages",
    ".hidden",
    "$HOME",
    "-",
]


@pytest.mark.parametrize("flag", ["--report", "--export"])
@pytest.mark.parametrize("name", [name for name in RUNS if name])
def test_a_run_that_no_folder_can_be_is_refused(tmp_path, capsys, flag, name):
    (tmp_path / "etc").mkdir()
    given_name = f"{name}/fp32" if flag == "--export" else name
    assert runner.main([f"{flag}={given_name}", "--storage", str(tmp_path / "results")]) == 2
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err + shown.out
    assert shown.err.count("\n") <= 2


@pytest.mark.parametrize("name", [name for name in RUNS if name])
def test_a_run_name_that_no_folder_can_have_starts_nothing(tmp_path, capsys, name):
    assert runner.main([f"--resume={name}", "--storage", str(tmp_path / "results")]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not list(tmp_path.glob("*/*/run.json"))


@pytest.mark.parametrize("name", ["nothing", "open", "list", "deep"])
def test_a_report_of_a_damaged_plan_is_refused_by_the_command_line(tmp_path, capsys, name):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / FILE).write_text(TEXTS[name])
    assert runner.main(["--report", "mine", "--storage", str(tmp_path)]) == 2
    assert f"mine/{FILE}: cannot be read" in capsys.readouterr().err


INPUTS = 2 * (len(TEXTS) + len(BYTES)) + len(EDITS) + 5 + 2 * EXAMPLES + len(ARGUMENTS) + 5 + 3 * (len(RUNS) - 1) + 4
