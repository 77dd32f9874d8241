"""Each network against float: the words and counts are those of the tests."""

from grid.report.document import plain_text
from grid.report.inputs import ReportInputs
from grid.report.sections.against_float import against_float_network
from tests.grid.report.made_up_inputs import made_up_inputs
from tests.grid.report.report_rows import context, grid_rows, text_of
from tests.grid.results.comparisons.made_up_images import CLASSES, coarse


def lines_of(section) -> dict:
    (plot,) = (block for block in section.blocks if block.kind == "plot")
    return {line.name: line for line in plot.shown.lines}


def test_a_small_loss_is_equivalent_a_large_one_worse_and_the_band_is_the_margin():
    section = against_float_network(made_up_inputs())
    lines = lines_of(section)
    assert [lines[name].verdict for name in ("good", "fair", "bad")] == ["equivalent", "worse", "worse"]
    assert list(lines) == ["good", "fair", "bad"], "the best first"
    for line in lines.values():
        assert line.low < line.estimate < line.high
    (plot,) = (block for block in section.blocks if block.kind == "plot")
    assert plot.shown.margin == 0.001
    assert "Of 3 comparisons: 1 equivalent, 2 worse." in plain_text(section.blocks[0].spans)


def test_one_scene_gives_no_interval_and_no_verdict():
    lines = lines_of(against_float_network(made_up_inputs(scenes=1)))
    assert {line.verdict for line in lines.values()} == {"undecided"}
    assert {line.words for line in lines.values()} == {"undecided: not tested"}
    assert all(line.low is None and line.high is None for line in lines.values())


def test_where_redraws_are_unknown_the_verdict_is_on_these_networks():
    section = against_float_network(made_up_inputs())
    assert lines_of(section)["bad"].words == "worse, these networks"
    assert "several seeds tell more" in plain_text(section.blocks[0].spans)


def test_verdicts_in_the_metric_that_the_task_watches_stand_beside_those_in_a_coarse_headline():
    evidence = coarse()
    inputs = ReportInputs(evidence.rows, context(), task=CLASSES, margins=evidence.margins)
    inputs.__dict__["evidence"] = evidence
    text = plain_text(against_float_network(inputs).blocks[0].spans)
    assert "Of 2 comparisons: 2 undecided." in text
    assert "chosen (margin 0.02; a family of its own): 1 equivalent, 1 worse." in text
    assert "a family of its own" not in plain_text(against_float_network(made_up_inputs()).blocks[0].spans)


def test_without_a_float_network_there_is_no_such_section():
    assert "## Against float" not in text_of(grid_rows()[2:])
    assert "## Against float" in text_of(grid_rows())
