"""What a record adds to its row, where the record alone says it."""

import pytest

from grid.planning import columns


def test_the_row_says_how_many_sites_are_simulated():
    asserted = {"float_sites": [], "simulated_sites": ["a", "b"], "activation_bits": 16}
    row = columns.mixture({"asserted": asserted})
    assert row == {"kept_float": "", "simulated_sites": 2, "note": "16-bit activations are simulated"}
    assert columns.mixture({"asserted": {"float_sites": ["a"]}}) == {"kept_float": "a"}, "a record of before"


def test_the_row_names_the_layers_that_keep_eight_bits():
    record = {"metrics": {"weight_bits": {"stem": 8, "one": 4, "head": 8}}}
    assert columns.widths(record) == {"kept_8bit": "stem head"}


def row(**metrics):
    return columns.finetuning({"seconds": 3.0, "metrics": metrics})


def test_a_training_that_changed_weights_says_how_many_and_nothing_more():
    found = row(best_epoch=2, val_ssim=0.9, weights_changed=0.03, bn_live_steps=16)
    assert found == {"train_s": 3.0, "best_epoch": 2, "weights_changed": 0.03, "bn_live_steps": 16}


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"best_epoch": 0, "weights_changed": 0.0, "bn_live_steps": 0}, "training changed no integer weight"),
        ({"best_epoch": 2, "weights_changed": 0.0, "bn_live_steps": 16}, "training changed no integer weight"),
        ({"best_epoch": 0}, "no epoch was better than the start"),
    ],
)
def test_a_training_that_changed_nothing_says_so(metrics, reason):
    assert row(**metrics)["note"] == f"{reason}: this is PTQ under another name"


def test_a_record_of_before_has_a_row():
    found = row(best_epoch=1, val_ssim=0.9)
    assert found == {"train_s": 3.0, "best_epoch": 1, "weights_changed": None, "bn_live_steps": None}
