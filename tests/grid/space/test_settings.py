"""Settings as specs and as flat JSON scalars are the same thing."""

import dataclasses
import json

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grid.space.search_space import load_space
from grid.space.settings import (
    LatencySpec,
    Settings,
    field_types,
    flatten,
    groups,
    read_group,
    resolve,
    setting_types,
)
from model.network.spec import NetworkSpec
from model.training import TrainSpec
from quant.recipe import (
    ACTIVATION_RANGES,
    BIAS_CORRECTIONS,
    EQUALIZE_OBJECTIVES,
    GRANULARITIES,
    METHODS,
    AnalyzeSpec,
    BiasCorrectionSpec,
    CalibrateSpec,
    EqualizeSpec,
    MixedPrecisionSpec,
    QatSpec,
    RoundingSpec,
)
from tests.grid.space.specs import unflatten

fractions = st.floats(0, 1, allow_nan=False)
cell_settings = st.builds(
    Settings,
    fuse_bn=st.booleans(),
    granularity=st.sampled_from(GRANULARITIES),
    method=st.sampled_from(METHODS),
    seed=st.integers(0, 2**31),
    network=st.builds(NetworkSpec, input_size=st.sampled_from([64, 224])),
    train=st.builds(TrainSpec, epochs=st.integers(1, 99), learning_rate=st.floats(1e-9, 1)),
    equalize=st.none()
    | st.builds(EqualizeSpec, objective=st.sampled_from(EQUALIZE_OBJECTIVES), sweeps=st.integers(1, 9)),
    calibrate=st.builds(
        CalibrateSpec, images=st.integers(1, 10**6), activation_range=st.sampled_from(ACTIVATION_RANGES)
    ),
    rounding=st.none() | st.builds(RoundingSpec, images=st.integers(1, 99)),
    bias_correction=st.none() | st.builds(BiasCorrectionSpec, method=st.sampled_from(BIAS_CORRECTIONS)),
    mixed_precision=st.none() | st.builds(MixedPrecisionSpec, target_sqnr_db=st.none() | st.floats(-99, 99)),
    qat=st.builds(QatSpec, epochs=st.integers(1, 99), travel=fractions, distillation=fractions),
    latency=st.builds(LatencySpec, seconds=st.floats(0.1, 100)),
    analyze=st.none() | st.builds(AnalyzeSpec, images=st.integers(1, 99)),
)


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
        if group == "network" and name in NetworkSpec.TOLD_BY_DATA:
            continue
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
    expected = {f.name for f in dataclasses.fields(Settings)} - set(groups())
    expected |= {name for name, (_, optional) in groups().items() if optional}
    for name, (spec, _) in groups().items():
        expected |= {f"{name}.{f.name}" for f in dataclasses.fields(spec)}
    expected -= {f"network.{name}" for name in NetworkSpec.TOLD_BY_DATA}
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
    flat = resolve(flatten(Settings()), {"equalize": False, "equalize.sweeps": 9})
    assert flat == flatten(Settings(equalize=None))
    assert resolve(flatten(Settings()), {"equalize": True}) == flatten(Settings())
