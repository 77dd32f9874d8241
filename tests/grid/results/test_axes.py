"""Which axis matters: by its largest step, turned to its better value, with what it depends on."""

import itertools

import numpy as np
import pytest

from grid.results.axes import DEPENDS, MATTERS, NOT_TESTED, NOTHING, AxisEffect, ranked_axes
from grid.results.effects import effects
from tests.grid.report.report_rows import row
from tests.grid.results.comparisons.made_up_images import evidence_of, scenes_of

AXES = {
    "fuse_bn": (False, True),
    "granularity": ("per_channel", "per_tensor"),
    "method": ("qat", "ptq+qat"),
    "weight_bits": (8, 4),
    "qat.epochs": (1, 2, 3),
}


def ranked(gain, images: bool = True) -> dict[str, AxisEffect]:
    """The axes of a whole factorial in which ``gain`` of the settings is added to SSIM, by name in their order."""
    noise, scene = np.random.default_rng(1), scenes_of(32)
    common = 0.8 + noise.normal(0, 0.05, 32)[scene]
    rows, ssim = [], {}
    for values in itertools.product(*AXES.values()):
        cell = "-".join(map(str, values))
        settings = dict(zip(AXES, values, strict=True))
        rows.append(row(cell, graph_hash=cell, **settings))
        ssim[cell] = common + gain(settings) + noise.normal(0, 1e-4, 32)[scene] + noise.normal(0, 1e-4, 128)
    evidence = evidence_of(rows, ssim, scene)
    return {one.axis: one for one in ranked_axes(evidence.rows, effects(evidence.rows, evidence if images else None))}


def test_axes_are_ranked_by_what_their_largest_step_does_and_turned_to_the_better_value():
    found = ranked(lambda s: -0.01 * (s["granularity"] == "per_tensor") + 0.002 * s["qat.epochs"])
    assert list(found)[:2] == ["granularity", "qat.epochs"]
    granularity, epochs = found["granularity"], found["qat.epochs"]
    assert (granularity.worse, granularity.better, granularity.word) == ("per_tensor", "per_channel", MATTERS)
    assert granularity.gain == pytest.approx(0.01, abs=3e-4)
    assert granularity.low < granularity.gain < granularity.high
    assert (epochs.worse, epochs.better, epochs.word) == (1, 3, MATTERS)
    assert epochs.gain == pytest.approx(0.004, abs=3e-4)
    assert {found[axis].word for axis in ("fuse_bn", "method", "weight_bits")} == {NOTHING}


def test_an_axis_that_depends_on_another_names_it_and_says_what_it_does_at_each_of_its_values():
    found = ranked(lambda s: -0.012 * (s["weight_bits"] == 4 and s["granularity"] == "per_tensor"))
    granularity = found["granularity"]
    assert (granularity.word, granularity.depends_on) == (DEPENDS, "weight_bits")
    assert dict(granularity.gains) == pytest.approx({8: 0.0, 4: 0.012}, abs=3e-4)
    assert granularity.reach == pytest.approx(0.012, abs=3e-4)
    assert found["weight_bits"].depends_on == "granularity"
    assert found["fuse_bn"].word == NOTHING


def test_an_axis_that_helps_here_and_harms_there_is_not_taken_for_one_that_does_nothing():
    found = ranked(lambda s: 0.006 * (1 if s["fuse_bn"] == (s["method"] == "qat") else -1))
    assert set(list(found)[:2]) == {"fuse_bn", "method"}
    assert found["fuse_bn"].word == DEPENDS
    assert found["fuse_bn"].gain < 1e-3
    assert found["fuse_bn"].reach == pytest.approx(0.012, abs=3e-4)


def test_an_axis_that_depends_on_several_at_once_names_none():
    three = ("granularity", "method", "weight_bits")
    found = ranked(lambda s: 0.004 * s["fuse_bn"] * (-1) ** sum(s[axis] == AXES[axis][1] for axis in three))
    assert (found["fuse_bn"].word, found["fuse_bn"].depends_on, found["fuse_bn"].gains) == (DEPENDS, "", ())


def test_without_figures_by_image_axes_are_ranked_by_estimates_and_say_so():
    found = ranked(lambda s: 0.01 * s["fuse_bn"], images=False)
    assert next(iter(found)) == "fuse_bn"
    assert {one.word for one in found.values()} == {NOT_TESTED}
    assert found["fuse_bn"].low is None
