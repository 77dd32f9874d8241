"""What each axis does, from pairs of cells that are equal in all else."""

import statistics
from collections.abc import Sequence
from functools import partial

from grid.report.cells import count_cell, on_processor, text_cell
from grid.report.document import Cell, Column, Paragraph, Picture, Plot, Section, Table, spans
from grid.report.figures.forest import MOST_LINES, Line, draw_forest, forest
from grid.report.formats import DASH, setting_text
from grid.report.inputs import ReportInputs
from grid.results.comparisons.comparison import ESTIMATES
from grid.results.comparisons.evidence import Evidence
from grid.results.effects import MOST_VALUES, Effect, StepTest, effects, verdict
from grid.results.processors import by_processor
from grid.results.ranking import Measure, Row, axes_of, is_int8, processors


def axis_effects(inputs: ReportInputs) -> Section:
    """Return how to read the differences, and their table."""
    rows, headline = inputs.rows, inputs.measures.headline
    text = (
        "Differences between int8 cells that are equal in every other axis. Pairs that turned out to be the same int8 "
        "network are counted as identical: there the axis has no effect at all. The mean difference of "
        f"{headline.title} is paired over images and resampled by scene, with intervals corrected for the number of "
        "lines (Holm): the chance of one false word among all of them is 5 %."
    )
    if any(len(values) > MOST_VALUES for values in _values(rows)):
        text += f" Of an axis with more than {MOST_VALUES} values the first is compared with {MOST_VALUES} others."
    if len(processors(rows)) > 1:
        text += " Latencies are compared on one processor: a pair that was timed on two has no difference there."
    found = inputs.effects
    table = effects_table(inputs.evidence, found)
    none = Paragraph(("No two int8 cells differ in one axis alone.",))
    plot = _plot(headline, found)
    tested = sum(effect.test is not None for effect in found)
    if tested > MOST_LINES:
        text += f" Of {tested} steps the {MOST_LINES * 3 // 4} best and the {MOST_LINES // 4} worst are drawn."
    blocks = (Paragraph(spans(text)), *([plot] if plot else []), table if table.rows else none)
    return Section(("What each axis does",), blocks)


def _values(rows: Sequence[Row]) -> list[set[str]]:
    return [{str(row.get(axis)) for row in rows if is_int8(row)} for axis in axes_of(rows)]


def _plot(headline: Measure, found: Sequence[Effect]) -> Plot | None:
    """The mean differences of the headline with their intervals."""
    tested = [(effect, effect.test) for effect in found if effect.test is not None]
    lines = [
        Line(_step(effect), test.estimate, test.low, test.high, _colour(test), verdict(effect))
        for effect, test in tested
    ]
    amount = max((test.margin for _, test in tested), default=0.0)
    better = headline.higher_is_better
    label = f"mean difference of test {headline.title} ({'right' if better else 'left'}: the second value is better)"
    shown = forest(lines, amount, label, better)
    if shown is None:
        return None
    return Plot(shown, Picture("axes.png", f"What each axis does to {headline.title}", partial(draw_forest, shown)))


def _step(effect: Effect) -> str:
    return f"{effect.axis}: {setting_text(effect.start)} → {setting_text(effect.to)}"


def _colour(test: StepTest) -> str:
    return "undecided" if test.depends or test.scope == ESTIMATES else test.verdict


def effects_table(evidence: Evidence, on_all: Sequence[Effect]) -> Table:
    """Return what each axis does: paired differences between cells equal in all else.

    The headline with the interval of the mean difference, SQNR in dB, size in MB, latency in float latencies, by
    processor.
    """
    views = by_processor(evidence.rows)
    timed = [effects(view) for view in views.values()] if len(views) > 1 else [on_all]
    lines = [_line(effect, there) for effect, *there in zip(on_all, *timed, strict=True)]
    title = evidence.measures.headline.title
    wheres = [on_processor(name if len(views) > 1 else None) for name in views]
    columns = [Column("axis", "name", "axis"), Column("step"), Column("pairs", "number"), Column(f"{title} shows")]
    columns += [Column(f"Δ {title} mean [min, max]", "number"), Column("interval of its mean", "number")]
    columns += [Column(f"Δ {cost} mean [min, max]", "number") for cost in ("SQNR dB", "size MB")]
    columns += [Column(f"Δ x float latency mean [min, max]{where}", "number") for where in wheres]
    return Table(tuple(columns), tuple(lines))


def _line(effect: Effect, timed: Sequence[Effect]) -> tuple[Cell, ...]:
    test = effect.test
    interval = (test.low, test.high) if test and test.low is not None and test.high is not None else None
    pairs = count_cell(effect.pairs)
    if effect.identical:
        pairs = Cell((f"{effect.pairs} ({effect.identical} identical)",), effect.pairs)
    bounds = " … ".join(signed(bound, 4) for bound in interval) if interval else DASH
    return (
        text_cell(effect.axis),
        text_cell(f"{setting_text(effect.start)} → {setting_text(effect.to)}"),
        pairs,
        text_cell(verdict(effect)),
        span_cell(effect.headline, 4),
        Cell((bounds,), interval[0] if interval else None),
        span_cell(effect.sqnr_db, 2),
        span_cell(effect.size_mb, 3),
        *(span_cell(one.latency_ratio, 2) for one in timed),
    )


def span_cell(differences: Sequence[float], digits: int) -> Cell:
    """Return the mean of differences and, of several, the lowest and the highest; an en dash for none."""
    if not differences:
        return Cell((DASH,))
    mean = statistics.fmean(differences)
    text = signed(mean, digits)
    if len(differences) > 1:
        text += f" [{signed(min(differences), digits)}, {signed(max(differences), digits)}]"
    return Cell((text,), mean)


def signed(figure: float, digits: int) -> str:
    """Return it with its sign; what rounds to nothing is +0, whichever side it comes from."""
    return f"{round(figure, digits) + 0.0:+.{digits}f}"
