"""What is said about a wrong search space: the place, the value, what was expected, and all of it at once."""

import contextlib
import itertools
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grid.paths import SEARCH_SPACES
from grid.space.search_space import SearchSpace, load_space
from grid.space.settings import setting_types
from model.errors import InputError
from quant.recipe import METHODS, QatSpec
from tests.grid.space.specs import unflatten


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


ERRORS = [
    (
        "axes: {granularity: [per_tensor, per_chanel]}",
        "axes.granularity[1]='per_chanel' is unknown; expected one of per_channel, per_tensor. "
        "Did you mean per_channel?",
    ),
    ("axes: {method: []}", "axes.method=[] is not an axis; expected a list of one value or more."),
    ("axes: {method: ptq}", "axes.method='ptq' is not an axis; expected a list of one value or more."),
    ("axes: {seed: [1, 2, 1]}", "axes.seed[2]=1 is there twice; expected each value once."),
    (
        "axes: {qat.travel: [1, 1.0]}",
        "axes.qat.travel[1]=1.0 is there twice; expected each value once.",
    ),
    ("axes: {seed: [-1]}", "axes.seed[0]=-1 is out of range; expected between 0 and 4294967295."),
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
        "settings: {qat: {travel: fast}}",
        "settings.qat.travel='fast' has the wrong type; expected a finite number.",
    ),
    (
        "settings: {qat: {travel: .nan}}",
        "settings.qat.travel=nan has the wrong type; expected a finite number.",
    ),
    (
        "settings: {qat: {learning_rate: 1e-4}}",
        "settings.qat.learning_rate is no setting any more. Set qat.travel, the steps of its integer grid that a ",
    ),
    (
        "axes: {qat.learning_rate: [1e-4, 1e-3]}",
        "axes.qat.learning_rate is no setting any more. Set qat.travel, the steps of its integer grid that a ",
    ),
    ("settings: {fuse_bn: 1}", "settings.fuse_bn=1 has the wrong type; expected true or false."),
    ("settings: {method: 3}", "settings.method=3 has the wrong type; expected text."),
    ("settings: {qat: 3}", "settings.qat=3 has the wrong type; expected a mapping."),
    ("settings: {equalize: null}", "settings.equalize=None has the wrong type; expected true or false."),
    ("settings: {rounding: {}}", "settings.rounding={} has the wrong type; expected true or false."),
    ("settings: {method: {}}", "settings.method={} has the wrong type; expected text."),
    ("settings: {enigne: {}}", "settings.enigne is an unknown key; expected one of fuse_bn, granularity, "),
    ("settings: {enigne: x}", "settings.enigne is an unknown key; expected one of fuse_bn, granularity, "),
    ("settings: {qat.epochs: 3}", "settings.qat.epochs has a dot in it; expected qat with its settings "),
    ("settings: {network: {encoder: b0}}", "settings.network.encoder='b0' is unknown; expected efficientnet_b0, "),
    ("settings: {engine: qnnpak}", "settings.engine='qnnpak' is unknown; expected one of qnnpack"),
    ("data: {rooms_train: 0}", "data.rooms_train=0 is out of range; expected between 1 and 1000000."),
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
        "axes: {equalize.sweeps: [1, 2]}\nsettings: {equalize: off}",
        "settings.equalize=False turns off what axes.equalize.sweeps varies; expected it on",
    ),
    ("exclude: [{when: {method: pdq}, reason: x}]", "exclude[0].when.method[0]='pdq' is unknown; expected one of"),
    ("exclude: [{when: {methd: ptq}, reason: x}]", "exclude[0].when.methd is an unknown key; expected one of"),
    ("exclude: [{when: {method: ptq}, reason: ''}]", "exclude[0].reason='' is not a reason; expected a sentence."),
    ("exclude: [{when: {}, reason: x}]", "exclude[0].when={} excludes all; expected one setting or more."),
    ("exclude: [{when: {method: ptq}}]", "exclude[0]={'when': {'method': 'ptq'}} is not an exclusion; expected "),
    ("axis: {}", "axis is an unknown key; expected one of name, description, baselines, finetuned_baseline, "),
    ("baselines: maybe", "baselines='maybe' has the wrong type; expected true or false."),
    ("name: ../up", "name='../up' is not a name; expected letters, digits"),
    ("axes: {seed: [1]}\naxes: {seed: [2]}", "'axes' is there twice in the mapping at line 1; expected each key"),
    ("settings: {qat: {epochs: 1,\n  epochs: 2}}", "'epochs' is there twice in the mapping at line 1; expected"),
    ("axes: {seed: [1", "is not YAML (while parsing a flow sequence"),
    ("- 1", "holds [1]; expected a mapping with name, axes and settings."),
    ("", "holds None; expected a mapping with name, axes and settings."),
    ("max_cells: 3\naxes: {seed: [1, 2, 3, 4]}", "axes span 4 cells; expected at most 3 (max_cells). Raise"),
]


@pytest.mark.parametrize(("text", "expected"), ERRORS, ids=[text[:40] for text, _ in ERRORS])
def test_what_is_wrong_is_reported_with_its_place_its_value_and_what_was_expected(mine, text, expected):
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
        (
            "method=[ptq, pdq]",
            "--set: method[1]='pdq' is unknown; expected one of fp32, fp32-finetuned, ",
        ),
        (
            "method=ptk",
            "--set: method='ptk' is unknown; expected one of fp32, fp32-finetuned, ",
        ),
        ("data.rooms_train=[1, 2]", "--set: data.rooms_train=[1, 2] has the wrong type; expected a whole number."),
        ("data.rooms_train=0", "--set: data.rooms_train=0 is out of range; expected between 1 and 1000000."),
    ],
)
def test_a_wrong_override_is_reported_as_such(mine, override, expected):
    found = messages(mine, "name: mine", override)
    assert len(found) == 1
    assert found[0].startswith(expected)


@pytest.mark.parametrize(("seeds", "value"), [([1, 1], "seed[1]=1"), ([-4], "seed[0]=-4"), ([], "seed=[]")])
def test_wrong_seeds_are_reported(mine, seeds, value):
    assert messages(mine, "name: mine", seeds=seeds)[0].startswith(f"--seeds: {value}")


def test_an_unknown_search_space_is_reported_with_those_that_there_are(tmp_path):
    known = ", ".join(sorted(file.stem for file in SEARCH_SPACES.glob("*.yaml")))
    with pytest.raises(
        InputError, match=rf"--grid: 'ful' is not a search space; expected one of {known}, .*mean full\?"
    ):
        load_space("ful")
    with pytest.raises(InputError, match=r"'.*nowhere\.yaml' is not a search space"):
        load_space(tmp_path / "nowhere.yaml")


def test_a_file_that_is_no_text_is_reported(tmp_path):
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
        data: {rooms_train: 0, input_size: 100, val_fraction: 1.5}
        """,
        "qat.batch_size=0",
        "nothing",
        seeds=[-1],
    )
    wrong = ["per_chanel", "pdq", "batch_size[1]=0", "images=0", "percentile=20.0", "epochs='x'", "'cpu'"]
    wrong += ["rooms_train=0", "input_size=100", "val_fraction=1.5", "qat.batch_size=0", "nothing", "seed[0]=-1"]
    assert len(found) == len(wrong)
    for value in wrong:
        assert sum(value in line for line in found) == 1, value


def test_two_axes_that_do_not_fit_each_other_are_reported_before_anything_runs(mine, monkeypatch):
    def check(self: QatSpec) -> None:
        if self.freeze_bn_after < self.freeze_ranges_after:
            value = repr(self.freeze_bn_after)
            raise InputError("qat.freeze_bn_after", "is too early", "a later one", value=value)

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
    with contextlib.suppress(InputError):  # anything else is a crash
        space = load_space(file, [override] if override else [])
        assert all(unflatten(flat) for flat in itertools.islice(space.combinations(), 10))
