"""Search spaces and --set: whatever the text, it is read or refused, quickly and without running code."""

import contextlib
import datetime
import string
import time
import typing
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from grid.planning.plan import make_plan
from grid.space.search_space import load_space
from grid.space.settings import groups, setting_types
from grid.space.values import data_types
from grid.space.yaml_reader import read_yaml
from tests.bad_input.answers import handled, refusal
from tests.generated import generated

MARK = Path("ran-by-yaml")
EXAMPLES = 500
PATIENCE_S = 20  # on a busy machine; alone, none takes four


def doubled(first: str, one: str, start: int = 1, levels: int = 12) -> str:
    """A text in which every line holds the one before nine times."""
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{n}: &a{n} {one.format(','.join([f'*a{n - 1}'] * 9))}" for n in range(start, levels)]
    return "\n".join(lines)


TEXTS = {
    "empty": "",
    "spaces": "   \n\n",
    "comment": "# nothing\n",
    "null": "null",
    "text": "just a text",
    "number": "3",
    "list": "[a, b]",
    "tab": "axes:\n\tseed: [1]",
    "open list": "axes: {seed: [1",
    "open text": 'name: "x',
    "two documents": "name: a\n---\nname: b",
    "another version": "%YAML 9.9\n---\nname: a",
    "control character": "name: \0",
    "half of a pair": 'name: "\\ud800"',
    "list as key": "{[1]: 2}",
    "mapping as key": "settings: {{a: 1}: 2}",
    "merge of a number": "<<: 3",
    "equals": "=: =",
    "no anchor": "axes: *nowhere",
    "anchor twice": "a: &x 1\nb: &x 2\nc: *x",
    "itself": "axes: &a [*a]",
    "itself as a mapping": "settings: &s {qat: *s}",
    "same key": "name: a\nname: b",
    "same axis": "axes: {seed: [1], seed: [2]}",
    "same axis value": "axes: {fuse_bn: [on, true, yes]}",
    "deep list": "[" * 50_000,
    "deep mapping": "{a: " * 5_000,
    "deep block": "\n".join(" " * n + "a:" for n in range(400)),
    "deep aliases": "\n".join(["a0: &a0 [1]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 3000)]),
    "billion laughs": doubled("[x,x,x,x,x,x,x,x,x]", "[{}]"),
    "billion laughs in an axis": "axes:\n" + "\n".join(f"  {line}" for line in doubled("[1]", "[{}]").splitlines()),
    "billion merges": doubled("{k: v}", "{{<<: [{}]}}"),
    "billion mappings": doubled("{k: v}", "{{x: [{}]}}"),
    "long text": "name: " + "x" * 90_000,
    "longer than is read": "# " + "x" * 200_000,
    "python call": f"!!python/object/apply:os.system ['touch {MARK}']",
    "python module": "axes: !!python/module:os",
    "python name": "settings: {method: !!python/name:os.system}",
    "python tuple": "settings: {seed: !!python/tuple [1]}",
    "python object": "!!python/object:pathlib.Path {}",
    "unknown tag": "!mine {a: 1}",
    "bool of a text": "baselines: !!bool maybe",
    "int of nothing": 'settings: {seed: !!int ""}',
    "int of a text": "settings: {seed: !!int abc}",
    "float of nothing": 'settings: {train: {learning_rate: !!float ""}}',
    "date of a text": "name: !!timestamp hello",
    "date that is none": "name: 2020-99-99",
    "date": "name: 2020-01-01",
    "binary": "settings: {engine: !!binary aGVsbG8=}",
    "broken binary": "settings: {engine: !!binary abc}",
    "set": "settings: !!set {seed, method}",
    "pairs": "axes: !!pairs [seed: [1]]",
    "ordered map": "axes: !!omap [a, b]",
    "number of 5000 digits": f"settings: {{seed: {'9' * 5000}}}",
    "hexadecimal number": f"settings: {{seed: 0x{'f' * 5000}}}",
    "number of base 60": f"settings: {{seed: 1{':59' * 2000}}}",
    "huge number alone": f"0x{'f' * 5000}",
    "number of 60 digits": f"settings: {{calibrate: {{images: {'9' * 60}}}}}",
    "as many rooms": f"data: {{rooms_train: {'9' * 60}}}",
    "too many rooms": "data: {rooms_train: 1000000000}",
    "huge pictures": "settings: {network: {input_size: 3200000}}",
    "float that is none": "settings: {train: {learning_rate: 1e999}}",
    "long name": "name: " + "x" * 100,
    "name of a folder": "name: ../../up",
    "absolute name": "name: /etc/passwd",
    "no name": 'name: ""',
    "name with a line": 'name: "a\\nb"',
    "no cells": "max_cells: 0",
    "fewer than no cells": "max_cells: -1",
    "max_cells as a text": "max_cells: many",
    "endless cells": "max_cells: 100000000000",
    "axis of itself": "axes: {axes: [1]}",
    "axis of nothing": "axes: {seed: }",
    "axis of lists": "axes: {seed: [[1], [2]]}",
    "axis of mappings": "axes: {seed: [{a: 1}]}",
    "mixed axis": "axes: {seed: [1, two, 3.5, null]}",
    "number as a key": "settings: {3: 4}",
    "null as a key": "settings: {~: 4}",
    "exclusion of a text": "exclude: [x]",
    "exclusion of all": "exclude: [{when: {}, reason: all}]",
    "exclusion of a number": "exclude: [{when: 3, reason: x}]",
    "reason of a list": "exclude: [{when: {seed: 1}, reason: [x]}]",
    "many wrong values": f"axes: {{seed: [{','.join(['x'] * 40_000)}]}}",
    "many equal values": f"axes: {{granularity: [{','.join(['perc'] * 15_000)}]}}",
    "many unknown keys": "\n".join(f"key{n}: 1" for n in range(8_000)),
    "many near keys": "settings:\n  calibrate:\n" + "\n".join(f"    image{n}: 1" for n in range(5_000)),
}
HUGE = {
    "one axis": f"axes: {{seed: {list(range(15_000))}}}",
    "three axes": f"axes: {{seed: {list(range(1000))}, qat.epochs: {list(range(1, 1001))}, "
    f"calibrate.images: {list(range(1, 1001))}}}",
    "three axes of one group": f"axes: {{calibrate.batch_size: {list(range(1, 1001))}, "
    f"calibrate.images: {list(range(1, 1001))}, calibrate.percentile: {list(range(50, 100))}}}",
    "many axes": "axes:\n" + "\n".join(f"  {key}: [off, on]" for key, kind in setting_types().items() if kind is bool)
    + "\n" + "\n".join(f"  {key}: {list(range(1, 40))}" for key in ("qat.epochs", "seed", "calibrate.images")),
    "allowed too many": f"max_cells: 1000000000\naxes: {{seed: {list(range(900))}, qat.epochs: {list(range(1, 900))}}}",
}  # fmt: skip
BYTES = {
    "UTF-16": "name: größe".encode("utf-16"),
    "UTF-16 without a mark": "name: a".encode("utf-16-le"),
    "UTF-32": "name: a".encode("utf-32"),
    "Latin-1": "name: größe".encode("latin-1"),
    "no text": bytes(range(256)),
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "compressed": b"\x1f\x8b\x08" + bytes(100),
}
FINE = {
    "byte order mark": b"\xef\xbb\xbfname: a",
    "lines of Windows": b"name: a\r\naxes:\r\n  seed: [1]\r\n",
    "anchors": b"axes: {calibrate.images: &n [3, 4], qat.epochs: *n}",
}
SETTINGS = setting_types() | data_types()
WRONG_VALUES: dict[type, list[typing.Any]] = {
    bool: ["x", "", 0, 1, 2.5, [True], datetime.date(2020, 1, 1), b"x"],
    int: ["x", "", "3", True, 1.5, float("nan"), float("inf"), [1], {"a": 1}, {}, datetime.date(2020, 1, 1), 10**30],
    float: ["fast", "", True, float("nan"), float("-inf"), "1e999", [0.5], {"a": 1}, {}, b"1", 10**30],
    str: [3, 1.5, True, ["a"], {"a": 1}, {}, datetime.date(2020, 1, 1), b"ptq", "", "no such word", "a\0b"],
}


def wrong_for(key: str) -> list[typing.Any]:
    parts = typing.get_args(SETTINGS[key]) or (SETTINGS[key],)
    wrong = [value for kind in parts if kind is not type(None) for value in WRONG_VALUES[kind]]
    return wrong if type(None) in parts else [None, *wrong]


UNKNOWN = [f"{group}.{name}" for group in groups() for name in ("no", "", "images.more", "__class__", "x" * 300)]
INPUTS = len(TEXTS) + len(HUGE) + len(BYTES) + len(FINE) + 2 * EXAMPLES + len(UNKNOWN) * 2
INPUTS += sum(len(wrong_for(key)) * (1 if key in data_types() else 2) for key in SETTINGS) + len(TEXTS)
"""How many are tried here, those of --set too."""


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mine.yaml"


@pytest.mark.parametrize("name", TEXTS)
def test_a_bad_text_is_refused_in_seconds_and_runs_nothing(file, name):
    file.write_text(TEXTS[name], encoding="utf-8", errors="surrogatepass")
    started = time.monotonic()
    assert refusal(lambda: load_space(file)).startswith("mine.yaml: ")
    assert time.monotonic() - started < PATIENCE_S
    assert not MARK.exists()


@pytest.mark.parametrize("name", TEXTS)
def test_a_bad_text_is_no_crash_as_an_override(file, name):
    file.write_text("name: a")
    message = handled(lambda: load_space(file, [f"seed={TEXTS[name]}", f"{TEXTS[name]}=1"]))
    assert message.startswith("--set: ")
    assert not MARK.exists()


@pytest.mark.parametrize("name", HUGE)
def test_a_huge_grid_is_refused_by_its_count_before_any_cell_is_made(file, name, monkeypatch):
    file.write_text(HUGE[name])
    monkeypatch.setattr("grid.space.values.itertools.product", None)  # nothing may cross the axes
    monkeypatch.setattr("grid.space.search_space.itertools.product", None)
    started = time.monotonic()
    assert "max_cells" in refusal(lambda: load_space(file))
    assert time.monotonic() - started < PATIENCE_S


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_are_no_utf_8_are_refused(file, name):
    file.write_bytes(BYTES[name])
    assert refusal(lambda: load_space(file)).startswith("mine.yaml: ")


@pytest.mark.parametrize("name", FINE)
def test_what_editors_add_and_aliases_that_stay_small_are_read(file, name):
    file.write_bytes(FINE[name])
    assert load_space(file).name in ("a", "mine")


@pytest.mark.parametrize("key", SETTINGS)
def test_no_setting_takes_a_value_of_another_type_fixed_or_as_an_axis(file, key):
    group, dot, name = key.rpartition(".")
    for value in wrong_for(key):
        section = {group: {name: value}} if dot else {name: value}
        document = section if group == "data" else {"settings": section}
        text = yaml.safe_dump(document)
        file.write_text(text, encoding="utf-8")
        assert (name or key) in refusal(lambda: load_space(file)), text
        if group != "data":
            file.write_text(yaml.safe_dump({"axes": {key: [value]}}), encoding="utf-8")
            assert f"axes.{key}" in refusal(lambda: load_space(file)), text


@pytest.mark.parametrize("key", UNKNOWN, ids=lambda key: key[:30])
def test_no_unknown_key_is_passed_over(file, key):
    group, _, name = key.partition(".")
    file.write_text(yaml.safe_dump({"settings": {group: {name: 1}}}))
    assert "unknown key" in refusal(lambda: load_space(file))
    file.write_text(yaml.safe_dump({"axes": {key: [1]}}))
    assert "unknown key" in refusal(lambda: load_space(file))


WORDS = [
    "axes",
    "settings",
    "seed",
    "method",
    "ptq",
    "qat",
    "{",
    "}",
    "[",
    "]",
    ":",
    ": ",
    ",",
    "- ",
    "&a ",
    "*a",
    "<<",
]
WORDS += ["!!int", "!!bool ", "!!set ", "!!binary ", "'", '"', "|", ">", "#", "?", "%", "@", "`", "\n", "\n  ", "\t"]
WORDS += ["0x", "1e400", ".nan", "~", "2020-01-01", "\\ud800", "\ufeff", "---", "...", "null", "on", "0", "-1"]
texts = st.lists(st.sampled_from(WORDS) | st.text(string.printable, max_size=3), max_size=25).map("".join)


@given(text=texts | st.text(max_size=60))
@generated(EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_grid_or_refused(file, text):
    file.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    handled(lambda: make_plan(load_space(file), None, "0" * 16))


@given(text=texts)
@generated(EXAMPLES)
def test_any_text_is_yaml_or_a_value_error(text):
    with contextlib.suppress(ValueError):  # anything else is a crash
        value, twice = read_yaml(text)
        assert repr(value)
        assert all(isinstance(one, str) for one in twice)
