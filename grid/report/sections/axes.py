"""Which axis matters, at a glance: each axis once, by how much it changes the headline."""

import statistics
from collections.abc import Sequence
from functools import partial

from grid.report.cells import count_cell, text_cell
from grid.report.document import Block, Cell, Code, Column, Items, Paragraph, Picture, Plot, Section, Spans, Table
from grid.report.figures.forest import Forest, Line, draw_forest
from grid.report.formats import DASH, setting_text
from grid.report.inputs import ReportInputs
from grid.report.sections.effects import signed
from grid.results.axes import DEPENDS, MATTERS, NOT_TESTED, NOTHING, UNDECIDED, AxisEffect, ranked_axes, test_of
from grid.results.comparisons.comparison import NETWORKS
from grid.results.ranking import Measure, processors

FEW_AXES = 4
"""More of them are drawn as well."""
MOST_GAINS = 4


def which_axis_matters(inputs: ReportInputs) -> Section | None:
    """Return the axes by their effect on the headline on test images; nothing where fewer than two were compared."""
    ranked, headline = ranked_axes(inputs.rows, inputs.effects), inputs.measures.headline
    if len(ranked) < 2:
        return None
    text = (
        f"Each axis by what it does to test {headline.title} at most: the mean difference between two of its values, "
        "over pairs of cells that are equal in all else. Every step of every axis stands below, in “What each axis "
        "does”."
    )
    blocks: list[Block] = [Items(_in_short(ranked)), Paragraph((text,))]
    if len(ranked) > FEW_AXES:
        shown = _forest(ranked, headline)
        blocks.append(Plot(shown, Picture("which-axis.png", "Axes by effect", partial(draw_forest, shown))))
    blocks.append(axes_table(ranked, headline, latencies=len(processors(inputs.rows)) < 2))
    return Section(("Which axis matters",), tuple(blocks))


def axes_table(ranked: Sequence[AxisEffect], headline: Measure, latencies: bool = True) -> Table:
    """Return a line an axis: where the headline is best and worst, what lies between them, and what it costs."""
    columns = [Column("#", "number"), Column("axis", "name"), Column("better at"), Column("worse at")]
    columns += [Column(f"Δ test {headline.title}", "number"), Column("its interval", "number"), Column("verdict")]
    columns += [Column("Δ size MB", "number"), *([Column("Δ x float latency", "number")] if latencies else [])]
    return Table(tuple(columns), tuple(_line(place, one, latencies) for place, one in enumerate(ranked, 1)))


def _line(place: int, one: AxisEffect, latencies: bool) -> tuple[Cell, ...]:
    known = one.low is not None and one.high is not None
    interval = f"{signed(one.low or 0.0, 4)} … {signed(one.high or 0.0, 4)}" if known else DASH
    return (
        count_cell(place),
        text_cell(one.axis),
        text_cell(setting_text(one.better)),
        text_cell(setting_text(one.worse)),
        Cell((signed(one.gain, 4),), one.gain),
        Cell((interval,), one.low),
        text_cell(_verdict(one)),
        _mean_cell(one, one.effect.size_mb, 3),
        *([_mean_cell(one, one.effect.latency_ratio, 2)] if latencies else []),
    )


def _mean_cell(one: AxisEffect, differences: Sequence[float], digits: int) -> Cell:
    """The mean of differences, from the worse value to the better one."""
    if not differences:
        return Cell((DASH,))
    mean = one.sign * statistics.fmean(differences)
    return Cell((signed(mean, digits),), mean)


def _verdict(one: AxisEffect) -> str:
    test = test_of(one.effect)
    match one.word:
        case "depends" if one.depends_on:
            gains = sorted(one.gains, key=lambda gain: gain[1])
            if len(gains) > MOST_GAINS:
                gains = [gains[0], gains[-1]]
            told = ", ".join(f"{signed(gain, 4)} at {setting_text(name)}" for name, gain in gains)
            return f"depends on {one.depends_on}: {told}"
        case "depends":
            return "depends on several axes: the pairs disagree"
        case "matters":
            return "matters, for these networks" if test.scope == NETWORKS else "matters"
        case "no difference":
            same = one.effect.identical == one.effect.pairs
            return "none: the networks are the same" if same else f"no difference (within {test.margin:g})"
        case "undecided":
            return f"undecided; {test.needed} would decide" if test.needed else "undecided"
        case _:
            return "not tested: no figures by image"


def _in_short(ranked: Sequence[AxisEffect]) -> tuple[Spans, ...]:
    """The answer in a few lines, a line a word."""
    lines: list[Spans] = []
    told = ((MATTERS, "Makes a difference"), (DEPENDS, "Makes a difference that depends on other axes"))
    for word, words in (*told, (UNDECIDED, "Undecided"), (NOT_TESTED, "Not tested"), (NOTHING, "Makes no difference")):
        spans: list[str | Code] = []
        for one in (one for one in ranked if one.word == word):
            spans += [", " if spans else f"{words}: ", Code(one.axis)]
            spans += [f" ({setting_text(one.better)}, {signed(one.gain, 4)})"] if word in (MATTERS, NOT_TESTED) else []
            spans += [f" (up to {one.reach:.4f})"] if word == DEPENDS else []
        if spans:
            lines.append((*spans, "."))
    return tuple(lines)


def _colour(one: AxisEffect) -> str:
    """Better also where it depends by how much, but everywhere by more than the margin."""
    margin = test_of(one.effect).margin
    if one.word == MATTERS or (one.gains and min(gain for _, gain in one.gains) > margin):
        return "better"
    return "equivalent" if one.word == NOTHING else "undecided"


def _forest(ranked: Sequence[AxisEffect], headline: Measure) -> Forest:
    """A line an axis, in the order of the table."""
    lines = tuple(
        Line(
            f"{one.axis}: {setting_text(one.worse)} → {setting_text(one.better)}",
            one.gain,
            one.low,
            one.high,
            _colour(one),
            _verdict(one),
        )
        for one in ranked
    )
    margin = max(test_of(one.effect).margin for one in ranked)
    return Forest(lines, margin, f"mean difference of test {headline.title} between the better value and the worse")
