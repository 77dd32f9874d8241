"""What a search space may say, and what is said about a wrong one."""

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grid.latency import LatencySpec
from grid.settings import (
    Settings,
    field_types,
    flatten,
    groups,
    read_group,
    resolve,
    setting_types,
    unflatten,
)
from grid.space import FOLDER, SearchSpace, load_space
from model.errors import InputError
from model.network import NetworkSpec
from model.pack import PackSpec
from model.training import TrainSpec
from quant.recipe import (
    ACTIVATION_RANGES,
    EQUALIZE_RANGES,
    GRANULARITIES,
    METHODS,
    CalibrateSpec,
    EqualizeSpec,
    QatSpec,
)

fractions = st.floats(0, 1, allow_nan=False)
cell_settings = st.builds(
    Settings,
    fuse_bn=st.booleans(),
    granularity=st.sampled_from(GRANULARITIES),
    method=st.sampled_from(METHODS),
    seed=st.integers(0, 2**31),
    network=st.builds(NetworkSpec, input_size=st.sampled_from([64, 224])),
    train=st.builds(TrainSpec, epochs=st.integers(1, 99), learning_rate=st.floats(1e-9, 1)),
    equalize=st.none() | st.builds(EqualizeSpec, ranges=st.sampled_from(EQUALIZE_RANGES), iterations=st.integers(1, 9)),
    calibrate=st.builds(
        CalibrateSpec, images=st.integers(1, 10**6), activation_range=st.sampled_from(ACTIVATION_RANGES)
    ),
    qat=st.builds(QatSpec, epochs=st.integers(1, 99), learning_rate=fractions, distillation=fractions),
    latency=st.builds(LatencySpec, seconds=st.floats(0.1, 100)),
)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes ``mine.yaml`` in the working directory and loads it."""
    monkeypatch.chdir(tmp_path)

    def load(text: str, *overrides: str, seeds=None) -> SearchSpace:
        Path("mine.yaml").write_text(text, encoding="utf-8")
        return load_space("mine.yaml", overrides, seeds)

    return load


def messages(mine, text: str, *overrides: str, seeds=None) -> list[str]:
    with pytest.raises(InputError) as caught:
        mine(text, *overrides, seeds=seeds)
    return str(caught.value).splitlines()


# ---- flat settings


@given(cell_settings)
def test_flat_settings_are_json_scalars_and_read_back_to_the_same_cell(cell):
    flat = flatten(cell)
    assert unflatten(json.loads(json.dumps(flat))) == cell
    assert all(value is None or type(value) in (bool, int, float, str) for value in flat.values())


@given(cell_settings)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_settings_written_as_yaml_are_read_as_the_same_cell(tmp_path, cell):
    nested: dict[str, object] = {}
    for key, value in flatten(cell).items():
        group, dot, name = key.partition(".")
        if dot:
            nested.setdefault(group, {})[name] = value
        else:
            nested[key] = False if key in groups() else value
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump({"settings": nested}))
    assert load_space(file).base == flatten(cell)


def test_a_group_that_is_off_is_one_key_with_none():
    flat = flatten(Settings(equalize=None))
    assert flat["equalize"] is None
    assert not [key for key in flat if key.startswith("equalize.")]
    assert "equalize" not in flatten(Settings())


def test_every_field_of_every_spec_is_a_setting_even_one_that_is_added_later(monkeypatch):
    expected = {f.name for f in dataclasses.fields(Settings)} - set(groups()) | {"equalize"}
    for name, (spec, _) in groups().items():
        expected |= {f"{name}.{f.name}" for f in dataclasses.fields(spec)}
    assert set(setting_types()) == expected

    later = dataclasses.make_dataclass("Later", [("images", int, 3), ("bias", float | None, None)], frozen=True)
    assert field_types(later) == {"images": int, "bias": float | None}


def test_a_spec_field_that_is_no_json_scalar_is_refused():
    wrong = dataclasses.make_dataclass("Wrong", [("layers", tuple[str, ...], ())], frozen=True)
    with pytest.raises(TypeError, match=r"Wrong\.layers is a tuple"):
        field_types(wrong)


def test_a_group_read_from_the_settings_of_a_stage_that_did_not_state_it_fails():
    with pytest.raises(KeyError, match=r"calibrate\."):
        read_group({"calibrate.images": 4}, "calibrate")
    assert read_group(flatten(Settings()), "calibrate") == CalibrateSpec()
    assert read_group(flatten(Settings(equalize=None)), "equalize") is None


def test_turning_a_group_off_takes_out_its_settings():
    flat = resolve(flatten(Settings()), {"equalize": False, "equalize.iterations": 9})
    assert flat == flatten(Settings(equalize=None))
    assert resolve(flatten(Settings()), {"equalize": True}) == flatten(Settings())


# ---- what is read


@pytest.mark.parametrize(("name", "cells"), [("full", 12), ("smoke", 4), ("published", 12)])
def test_the_shipped_search_spaces_load(name, cells):
    space = load_space(name)
    assert space.name == name
    assert space.source == FOLDER / f"{name}.yaml"
    assert len(list(space.combinations())) == cells
    assert space.baselines


def test_the_default_budgets_fit_two_cores():
    full = load_space("full")
    assert full.pack == PackSpec(rooms_train=512, rooms_val=48, rooms_test=128)
    budgets = [full.base[key] for key in ("calibrate.images", "qat.epochs", "qat.images_per_epoch")]
    assert budgets == [64, 3, 128]


def test_the_published_search_space_calibrates_with_250_batches_and_trains_for_10_epochs():
    base = load_space("published").base
    assert base["calibrate.images"] == 250 * base["calibrate.batch_size"]
    assert (base["qat.epochs"], base["qat.images_per_epoch"], base["train.epochs"]) == (10, 0, 25)


def test_combinations_are_the_product_of_the_axes_with_the_first_axis_slowest(mine):
    space = mine("axes: {method: [ptq, qat], qat.epochs: [3, 2, 1]}")
    found = [(flat["method"], flat["qat.epochs"]) for flat in space.combinations()]
    assert found == list(itertools.product(["ptq", "qat"], [3, 2, 1]))
    assert all(unflatten(flat) for flat in space.combinations())


def test_a_group_can_be_an_axis_of_on_and_off(mine):
    space = mine("axes: {equalize: [on, off]}\nsettings: {equalize: {iterations: 2}}")
    assert [flat.get("equalize.iterations") for flat in space.combinations()] == [2, None]
    assert [unflatten(flat).equalize for flat in space.combinations()] == [EqualizeSpec(iterations=2), None]


def test_numbers_have_one_spelling(mine):
    space = mine("settings: {qat: {learning_rate: 1e-4, weight_decay: -0.0, distillation: 1}}")
    found = {key: value for key, value in space.base.items() if key.startswith("qat.")}
    assert found["qat.learning_rate"] == 1e-4  # YAML 1.1 reads 1e-4 as text
    assert json.dumps(found["qat.weight_decay"]) == "0.0"
    assert type(found["qat.distillation"]) is float


def test_the_data_takes_the_size_of_the_network_unless_it_is_given(mine):
    assert mine("settings: {network: {input_size: 64}}").pack.input_size == 64
    assert mine("name: mine", "network.input_size=96").pack.input_size == 96


def test_set_replaces_a_setting_an_axis_and_the_data(mine):
    text = "axes: {method: [ptq, qat], qat.epochs: [1, 2]}\nsettings: {calibrate: {images: 9}}"
    space = mine(text, "calibrate.images=5", "method=qat", "data.rooms_train=7", "seed=[3, 4]", "seed=[5, 6]")
    assert space.base["calibrate.images"] == 5
    assert space.axes == (("method", ("qat",)), ("qat.epochs", (1, 2)), ("seed", (5, 6)))
    assert space.pack.rooms_train == 7


def test_set_turns_a_group_off_and_naming_one_of_its_settings_turns_it_on(mine):
    assert mine("name: a", "equalize=false").base["equalize"] is None
    assert mine("settings: {equalize: off}", "equalize.iterations=2").base["equalize.iterations"] == 2


def test_seeds_are_an_axis(mine):
    assert mine("settings: {seed: 9}", seeds=[0, 1]).axes == (("seed", (0, 1)),)
    assert mine("axes: {seed: [4]}", seeds=[2]).axes == (("seed", (2,)),)


def test_exclusions_hold_lists_and_single_values(mine):
    space = mine("exclude: [{when: {granularity: per_tensor, method: [qat, ptq+qat]}, reason: too slow}]")
    assert space.exclude[0].when == {"granularity": ("per_tensor",), "method": ("qat", "ptq+qat")}
    assert space.exclude[0].reason == "too slow"


# ---- what is refused

ERRORS = [
    (
        "axes: {granularity: [per_tensor, per_chanel]}",
        "axes.granularity[1]='per_chanel' is unknown; expected one of per_channel, per_tensor. "
        "Did you mean per_channel?",
    ),
    ("axes: {method: []}", "axes.method=[] is no axis; expected a list of one value or more."),
    ("axes: {method: ptq}", "axes.method='ptq' is no axis; expected a list of one value or more."),
    ("axes: {seed: [1, 2, 1]}", "axes.seed[2]=1 is there twice; expected each value once."),
    (
        "axes: {qat.learning_rate: [1, 1.0]}",
        "axes.qat.learning_rate[1]=1.0 is there twice; expected each value once.",
    ),
    ("axes: {seed: [-1]}", "axes.seed[0]=-1 is out of range; expected at least 0."),
    ("axes: {qat.epocs: [1]}", "axes.qat.epocs is an unknown key; expected one of qat.epochs, "),
    ("axes: {qat: [1]}", "axes.qat is an unknown key; expected one of qat.epochs, "),
    ("axes: {equalize: [1]}", "axes.equalize[0]=1 has the wrong type; expected true or false."),
    ("axes: [method]", "axes=['method'] has the wrong type; expected a mapping."),
    ("settings: {calibrate: {images: 0}}", "settings.calibrate.images=0 is out of range; expected at least 1."),
    (
        "settings: {calibrate: {images: 2.5}}",
        "settings.calibrate.images=2.5 has the wrong type; expected a whole number.",
    ),
    (
        "settings: {calibrate: {images: yes}}",
        "settings.calibrate.images=True has the wrong type; expected a whole number.",
    ),
    (
        "settings: {qat: {learning_rate: fast}}",
        "settings.qat.learning_rate='fast' has the wrong type; expected a finite number.",
    ),
    (
        "settings: {qat: {learning_rate: .nan}}",
        "settings.qat.learning_rate=nan has the wrong type; expected a finite number.",
    ),
    ("settings: {fuse_bn: 1}", "settings.fuse_bn=1 has the wrong type; expected true or false."),
    ("settings: {method: 3}", "settings.method=3 has the wrong type; expected text."),
    ("settings: {qat: 3}", "settings.qat=3 has the wrong type; expected a mapping."),
    ("settings: {equalize: null}", "settings.equalize=None has the wrong type; expected true or false."),
    ("settings: {enigne: x}", "settings.enigne is an unknown key; expected one of fuse_bn, granularity, "),
    ("settings: {qat.epochs: 3}", "settings.qat.epochs has a dot in it; expected qat with its settings "),
    ("settings: {network: {encoder: b0}}", "settings.network.encoder='b0' is unknown; expected efficientnet_b0 or"),
    ("settings: {engine: qnnpak}", "settings.engine='qnnpak' is unknown; expected one of qnnpack"),
    ("data: {rooms_train: 0}", "data.rooms_train=0 is wrong; expected at least 1 image."),
    ("data: {room_train: 5}", "data.room_train is an unknown key; expected one of data.input_size, "),
    ("data: {rooms_val: many}", "data.rooms_val='many' has the wrong type; expected a whole number."),
    (
        "settings: {network: {input_size: 64}}\ndata: {input_size: 96}",
        "network.input_size=64 differs from data.input_size=96; expected one size",
    ),
    (
        "axes: {network.input_size: [64, 96]}",
        "network.input_size=96 differs from data.input_size=64; expected one size",
    ),
    (
        "axes: {seed: [1, 2]}\nsettings: {seed: 3}",
        "settings.seed=3 is an axis too, axes.seed; expected one of the two.",
    ),
    (
        "axes: {equalize.iterations: [1, 2]}\nsettings: {equalize: off}",
        "settings.equalize=False turns off what axes.equalize.iterations varies; expected it on",
    ),
    ("exclude: [{when: {method: pdq}, reason: x}]", "exclude[0].when.method[0]='pdq' is unknown; expected one of"),
    ("exclude: [{when: {methd: ptq}, reason: x}]", "exclude[0].when.methd is an unknown key; expected one of"),
    ("exclude: [{when: {method: ptq}, reason: ''}]", "exclude[0].reason='' is no reason; expected a sentence."),
    ("exclude: [{when: {}, reason: x}]", "exclude[0].when={} excludes all; expected one setting or more."),
    ("exclude: [{when: {method: ptq}}]", "exclude[0]={'when': {'method': 'ptq'}} is no exclusion; expected "),
    ("axis: {}", "axis is an unknown key; expected one of name, description, baselines, max_cells, axes, "),
    ("baselines: maybe", "baselines='maybe' has the wrong type; expected true or false."),
    ("name: ../up", "name='../up' is no name; expected letters, digits"),
    ("axes: {seed: [1]}\naxes: {seed: [2]}", "'axes' is there twice in the mapping at line 1; expected each key"),
    ("settings: {qat: {epochs: 1,\n  epochs: 2}}", "'epochs' is there twice in the mapping at line 1; expected"),
    ("axes: {seed: [1", "is not YAML (while parsing a flow sequence"),
    ("- 1", "holds [1]; expected a mapping with name, axes and settings."),
    ("", "holds None; expected a mapping with name, axes and settings."),
    ("max_cells: 3\naxes: {seed: [1, 2, 3, 4]}", "axes span 4 cells; expected at most 3 (max_cells). Raise"),
]


@pytest.mark.parametrize(("text", "expected"), ERRORS, ids=[text[:40] for text, _ in ERRORS])
def test_what_is_wrong_is_told_with_its_place_its_value_and_what_was_expected(mine, text, expected):
    found = messages(mine, text)
    assert len(found) == 1
    assert found[0].startswith(f"mine.yaml: {expected}")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("qat.epocs=2", "--set: qat.epocs is an unknown key; expected one of qat.epochs, "),
        ("epochs=2", "--set: epochs is an unknown key; expected one of fuse_bn, "),
        ("qat.epochs=0", "--set: qat.epochs=0 is out of range; expected at least 1."),
        ("qat.epochs=[1, 0]", "--set: qat.epochs[1]=0 is out of range; expected at least 1."),
        ("qat.epochs=two", "--set: qat.epochs='two' has the wrong type; expected a whole number."),
        ("qat.epochs=", "--set: qat.epochs=None has the wrong type; expected a whole number."),
        ("qat.epochs", "--set: 'qat.epochs' cannot be read; expected key=value, such as qat.epochs=2."),
        ("qat.epochs=[", "--set: 'qat.epochs=[' cannot be read; expected key=value"),
        ("method=[ptq, pdq]", "--set: method[1]='pdq' is unknown; expected one of fp32, ptq, qat, ptq+qat. Did"),
        ("method=ptk", "--set: method='ptk' is unknown; expected one of fp32, ptq, qat, ptq+qat. Did you mean ptq?"),
        ("data.rooms_train=[1, 2]", "--set: data.rooms_train=[1, 2] has the wrong type; expected a whole number."),
        ("data.rooms_train=0", "--set: data.rooms_train=0 is wrong; expected at least 1 image."),
    ],
)
def test_a_wrong_override_is_told_as_such(mine, override, expected):
    found = messages(mine, "name: mine", override)
    assert len(found) == 1
    assert found[0].startswith(expected)


@pytest.mark.parametrize(("seeds", "value"), [([1, 1], "seed[1]=1"), ([-4], "seed[0]=-4"), ([], "seed=[]")])
def test_wrong_seeds_are_told(mine, seeds, value):
    assert messages(mine, "name: mine", seeds=seeds)[0].startswith(f"--seeds: {value}")


def test_an_unknown_search_space_is_told_with_those_that_there_are(tmp_path):
    with pytest.raises(InputError, match=r"--grid: 'ful' is no search space; expected one of full, .*mean full\?"):
        load_space("ful")
    with pytest.raises(InputError, match=r"'.*nowhere\.yaml' is no search space"):
        load_space(tmp_path / "nowhere.yaml")


def test_a_file_that_is_no_text_is_told(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(InputError, match=r"mine\.yaml: is not YAML .*0xff"):
        load_space(tmp_path / "mine.yaml")


def test_everything_wrong_is_shown_at_once(mine):
    found = messages(
        mine,
        """
        axes: {granularity: [per_chanel], method: [ptq, pdq], calibrate.batch_size: [8, 0]}
        settings: {calibrate: {images: 0, percentile: 20}, qat: {epochs: x}}
        exclude: [{when: {engine: cpu}, reason: none}]
        data: {rooms_train: 0}
        """,
        "qat.batch_size=0",
        "nothing",
        seeds=[-1],
    )
    wrong = ["per_chanel", "pdq", "batch_size[1]=0", "images=0", "percentile=20.0", "epochs='x'", "'cpu'"]
    wrong += ["rooms_train=0", "qat.batch_size=0", "nothing", "seed[0]=-1"]
    assert len(found) == len(wrong)
    for value in wrong:
        assert sum(value in line for line in found) == 1, value


def test_two_axes_that_do_not_fit_each_other_are_told_before_anything_runs(mine, monkeypatch):
    def check(self: QatSpec) -> None:
        if self.freeze_bn_after < self.freeze_ranges_after:
            raise InputError("qat.freeze_bn_after", f"{self.freeze_bn_after!r} is too early", "a later one")

    monkeypatch.setattr(QatSpec, "__post_init__", check)
    axes = "axes: {qat.freeze_bn_after: [0.9, 0.5], qat.freeze_ranges_after: [0.4, 0.6]}"
    assert messages(mine, axes) == ["mine.yaml: axes.qat.freeze_bn_after[1]=0.5 is too early; expected a later one."]
    fits = "axes: {qat.freeze_ranges_after: [0.7, 0.8]}\nsettings: {qat: {freeze_bn_after: 0.9}}"
    assert mine(fits).base["qat.freeze_bn_after"] == 0.9


def test_a_grid_of_more_than_2000_cells_needs_max_cells(mine):
    axes = f"axes: {{seed: {list(range(1001))}, fuse_bn: [on, off]}}"
    assert messages(mine, axes)[0].startswith("mine.yaml: axes span 2002 cells; expected at most 2000 (max_cells).")
    assert len(list(mine(f"max_cells: 2002\n{axes}").combinations())) == 2002


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(METHODS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*setting_types(), "qat", "epochs", "when", "reason", 3]), inner, max_size=3)
    ),
    max_leaves=8,
)
sections = ["name", "description", "baselines", "max_cells", "axes", "settings", "exclude", "data", "other"]


@given(document=st.dictionaries(st.sampled_from(sections), junk, min_size=1), override=st.text(max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
def test_whatever_a_file_holds_it_is_read_or_refused_and_never_a_crash(tmp_path, document, override):
    file = tmp_path / "junk.yaml"
    file.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    try:
        space = load_space(file, [override] if override else [])
    except InputError as error:
        assert str(error).strip()
    else:
        assert all(unflatten(flat) for flat in itertools.islice(space.combinations(), 10))
