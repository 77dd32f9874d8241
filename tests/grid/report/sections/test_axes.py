"""Which axis matters: the answer in words, a line an axis, and a picture where there are many of them."""

from grid.report.document import Items, Plot, Table, plain_text
from grid.report.inputs import ReportInputs
from grid.report.sections.axes import which_axis_matters
from tests.grid.report.made_up_inputs import made_up_inputs
from tests.grid.report.report_rows import context, grid_rows
from tests.grid.results.test_axes import AXES, ranked


def words(section) -> list[str]:
    (items,) = (block for block in section.blocks if isinstance(block, Items))
    return [plain_text(item) for item in items.items]


def of_axes(monkeypatch, gain):
    monkeypatch.setattr("grid.report.sections.axes.ranked_axes", lambda rows, found: list(ranked(gain).values()))
    return which_axis_matters(ReportInputs(grid_rows(), context()))


def test_the_section_says_which_axes_matter_which_depend_and_which_do_nothing(monkeypatch):
    def gain(s):
        per_tensor = s["granularity"] == "per_tensor"
        return 0.011 * s["fuse_bn"] - (0.012 if s["weight_bits"] == 4 else 0.002) * per_tensor

    section = of_axes(monkeypatch, gain)
    matters, depends, nothing = words(section)
    assert matters.startswith("Makes a difference: fuse_bn (true, +0.0")
    assert depends.startswith("Makes a difference that depends on other axes: granularity (up to 0.01")
    assert nothing in ("Makes no difference: qat.epochs, method.", "Makes no difference: method, qat.epochs.")
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert [row[1].spans[0] for row in table.rows][:3] == ["granularity", "fuse_bn", "weight_bits"]
    assert str(table.rows[0][6].spans[0]).startswith("depends on weight_bits: +0.00")
    assert len(table.rows) == len(AXES)


def test_more_than_a_few_axes_are_drawn_in_the_order_of_the_table(monkeypatch):
    section = of_axes(monkeypatch, lambda s: 0.01 * s["fuse_bn"])
    (plot,) = (block for block in section.blocks if isinstance(block, Plot))
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    names = [line.name.partition(":")[0] for line in plot.shown.lines]
    assert names == [row[1].spans[0] for row in table.rows]
    assert plot.shown.lines[0].verdict == "better"


def test_three_axes_are_a_table_and_no_picture():
    section = which_axis_matters(ReportInputs(grid_rows(), context()))
    assert not [block for block in section.blocks if isinstance(block, Plot)]
    assert words(section)[0].startswith("Not tested: granularity (per_channel, +0.0")


def test_a_grid_of_one_axis_needs_no_ranking():
    assert which_axis_matters(made_up_inputs(losses={"good": 0.0, "bad": 0.02})) is None
