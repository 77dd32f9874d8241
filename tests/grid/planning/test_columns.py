"""What a record adds to its row, where the record alone says it."""

from grid.planning import columns


def test_the_row_says_how_many_sites_are_simulated():
    asserted = {"float_sites": [], "simulated_sites": ["a", "b"], "activation_bits": 16}
    row = columns.mixture({"asserted": asserted})
    assert row == {"kept_float": "", "simulated_sites": 2, "note": "16-bit activations are simulated"}
    assert columns.mixture({"asserted": {"float_sites": ["a"]}}) == {"kept_float": "a"}, "a record of before"


def test_the_row_names_the_layers_that_keep_eight_bits():
    record = {"metrics": {"weight_bits": {"stem": 8, "one": 4, "head": 8}}}
    assert columns.widths(record) == {"kept_8bit": "stem head"}
