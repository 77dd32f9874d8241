"""What a search space says, on its own and with --set and --seeds."""

import itertools
import json
from pathlib import Path

import pytest

from grid.paths import SEARCH_SPACES
from grid.space.search_space import Preferred, SearchSpace, load_space
from grid.space.settings import Settings, flatten, is_on
from model.errors import InputError
from quant.recipe import EqualizeSpec
from tests.grid.space.specs import unflatten


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes ``mine.yaml`` in the working directory and loads it."""
    monkeypatch.chdir(tmp_path)

    def load(text: str, *overrides: str, seeds=None) -> SearchSpace:
        Path("mine.yaml").write_text(text, encoding="utf-8")
        return load_space("mine.yaml", overrides, seeds)

    return load


SHIPPED = {"full": 12, "smoke": 4, "published": 12, "best": 12, "encoders": 15, "ptq": 32, "qat": 16, "engines": 24}
SHIPPED |= {"bits": 12}


def test_the_shipped_search_spaces_are_those_that_are_tested_here():
    assert {file.stem for file in SEARCH_SPACES.glob("*.yaml")} == set(SHIPPED)


@pytest.mark.parametrize(("name", "cells"), SHIPPED.items())
def test_the_shipped_search_spaces_load(name, cells):
    space = load_space(name)
    assert space.name == name
    assert space.source == SEARCH_SPACES / f"{name}.yaml"
    crossed = [key for key, _ in space.axes if key != "float_runtime"]  # of a baseline
    assert len(list(space.combinations(crossed))) == cells
    assert space.baselines == (name != "ptq"), "which compares techniques with the plain recipe"


def test_budgets_grow_from_smoke_to_full_to_published():
    keys = ("calibrate.images", "qat.epochs")
    smoke, full, published = ([load_space(name).base[key] for key in keys] for name in ("smoke", "full", "published"))
    assert all(a < b < c for a, b, c in zip(smoke, full, published, strict=True))
    assert load_space("smoke").pack.rooms_train < load_space("full").pack.rooms_train


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
    space = mine("axes: {equalize: [on, off]}\nsettings: {equalize: {sweeps: 2}}")
    assert [flat.get("equalize.sweeps") for flat in space.combinations()] == [2, None]
    assert [unflatten(flat).equalize for flat in space.combinations()] == [EqualizeSpec(sweeps=2), None]


def test_numbers_have_one_spelling(mine):
    space = mine("settings: {qat: {travel: 1e-4, weight_decay: -0.0, distillation: 1}}")
    found = {key: value for key, value in space.base.items() if key.startswith("qat.")}
    assert found["qat.travel"] == 1e-4  # YAML 1.1 reads 1e-4 as text
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
    assert mine("settings: {equalize: off}", "equalize.sweeps=2").base["equalize.sweeps"] == 2


OFF_UNLESS_NAMED = ("bias_correction", "mixed_precision", "analyze")


def on(flat: dict) -> set[str]:
    """Those of OFF_UNLESS_NAMED that are on."""
    read = unflatten(flat)
    return {group for group in OFF_UNLESS_NAMED if getattr(read, group) is not None}


def test_a_group_is_off_by_default_where_its_default_is_none_and_on_elsewhere(mine):
    base = mine("name: a").base
    assert base == flatten(Settings())
    assert on(base) == set()
    assert "equalize" not in base
    assert "rounding" not in base


@pytest.mark.parametrize("group", OFF_UNLESS_NAMED)
def test_a_group_that_is_off_by_default_is_on_where_a_setting_or_an_axis_names_it(mine, group):
    assert on(mine(f"settings: {{{group}: {{images: 3}}}}").base) == {group}
    assert on(mine(f"settings: {{{group}: on}}").base) == {group}
    assert on(mine("name: a", f"{group}=true").base) == {group}
    assert on(mine(f"settings: {{{group}: off}}", f"{group}.images=3").base) == {group}
    for text in (f"axes: {{{group}.images: [3, 4]}}", f"axes: {{{group}: [on], seed: [1, 2]}}"):
        assert [on(flat) for flat in mine(text).combinations()] == [{group}, {group}]
    axis = f"axes: {{{group}: [off, on]}}\nsettings: {{{group}: {{images: 5}}}}"
    combinations = list(mine(axis).combinations())
    assert [on(flat) for flat in combinations] == [set(), {group}]
    assert combinations[1][f"{group}.images"] == 5


@pytest.mark.parametrize("group", OFF_UNLESS_NAMED)
def test_naming_a_group_that_is_off_by_default_to_turn_it_off_leaves_it_off(mine, group):
    assert mine(f"settings: {{{group}: off}}").base == flatten(Settings())
    assert mine(f"settings: {{{group}: {{images: 3}}}}", f"{group}=false").base == flatten(Settings())


def test_seeds_are_an_axis(mine):
    assert mine("settings: {seed: -9}", seeds=[0, 1]).axes == (("seed", (0, 1)),)
    assert mine("axes: {seed: [4]}", seeds=[2]).axes == (("seed", (2,)),)


def test_exclusions_hold_lists_and_single_values(mine):
    space = mine("exclude: [{when: {granularity: per_tensor, method: [qat, ptq+qat]}, reason: too slow}]")
    assert space.exclude[0].when == {"granularity": ("per_tensor",), "method": ("qat", "ptq+qat")}
    assert space.exclude[0].reason == "too slow"


def test_a_task_may_prefer_settings_that_neither_the_file_nor_the_command_line_names():
    preferred = Preferred("task.py", {"qat.distillation": 1.0, "qat.epochs": 7, "mixed_precision.images": 3})
    plain = load_space("smoke")
    found = load_space("smoke", preferred=preferred)
    assert found.base["qat.distillation"] == 1.0 != plain.base["qat.distillation"]
    assert found.base["qat.epochs"] == plain.base["qat.epochs"], "the search space names it"
    assert not is_on(found.base, "mixed_precision"), "a group that nothing turns on stays off"
    told = load_space("smoke", ["qat.distillation=0.25", "mixed_precision=false"], preferred=preferred)
    assert told.base["qat.distillation"] == 0.25
    assert not is_on(told.base, "mixed_precision")
    for on in ("mixed_precision=true", "mixed_precision=[false, true]", "mixed_precision.float_sites=2"):
        (*_, settings) = load_space("smoke", [on], preferred=preferred).combinations()
        assert settings["mixed_precision.images"] == 3
    crossed = load_space("smoke", ["qat.distillation=[0, 0.5]"], preferred=preferred)
    assert dict(crossed.axes)["qat.distillation"] == (0.0, 0.5)
    with pytest.raises(InputError, match=r"task.py: qat.nothing is an unknown key"):
        load_space("smoke", preferred=Preferred("task.py", {"qat.nothing": 1}))
