"""The figures of all cells: plotted, over seeds, cell by cell, and the reasons of those without figures."""

from collections import Counter
from collections.abc import Sequence
from functools import partial

from grid.report.cells import engine_ratio_cell, figure_cell, name_cell, reason_of, text_cell
from grid.report.document import (
    MOST_ROWS,
    Block,
    Cell,
    Code,
    Column,
    Items,
    Paragraph,
    Picture,
    Plot,
    Section,
    Spans,
    Strong,
    Table,
    spans,
)
from grid.report.figures.panels import FEW, MOST_BARS, trade_off
from grid.report.figures.tradeoff import draw_tradeoff
from grid.report.formats import DASH
from grid.report.inputs import ReportInputs
from grid.report.sections.result_tables import processor_views, rank_letters, results_table, seeds_table
from grid.results.processors import APART
from grid.results.ranking import SQNR, UNKNOWN, Measure, Row, over_seeds, processors, several_seeds, value

FEW_REASONS = 12
"""With more cells without figures their kinds are counted first."""
_SCALE = " MSE and SSIM are on depth / 10 m."
_TRAINING_COUNTS = ("best_epoch", "bn_live_steps")


def tradeoff(inputs: ReportInputs) -> Section | None:
    """Return the figure of all measured cells."""
    plotted = trade_off(inputs.rows, inputs.evidence)
    if plotted is None:
        return None
    picture = Picture(
        "tradeoff.png", f"{plotted.headline.title} against size and latency", partial(draw_tradeoff, plotted)
    )
    text = (
        "A number beside a cell is its line in the first results table; grey bars are 95 % intervals of the latency "
        "ratio. A cell is on the front of all three when no other is better by a test in one of them and as good in "
        "the others."
    )
    count = len(plotted.panels[0].points)
    if count > FEW:
        text += " Of cells that lie together only the best has a number, of those on the front first."
    if count > MOST_BARS:
        text += " Cells without a number have no bar."
    if len(processors(inputs.rows)) > 1:
        text += " Each processor has its own latencies, plot and front; sizes are those of all cells."
    return Section(("Accuracy against size and latency",), (Plot(plotted, picture), Paragraph((text,))))


def seeds(inputs: ReportInputs) -> Section | None:
    """Return the table of recipes, where there are several seeds."""
    if not several_seeds(inputs.rows):
        return None
    table = inputs.in_order(seeds_table(inputs.evidence), over_seeds(inputs.rows))
    return Section(("Results over seeds",), (*_which_first(table, inputs.measures.headline), table, _legend(inputs)))


def results(inputs: ReportInputs) -> Section:
    """Return the table of cells."""
    if several_seeds(inputs.rows):
        return Section(("Results, cell by cell",), (inputs.in_order(results_table(inputs.evidence)),))
    table = inputs.in_order(results_table(inputs.evidence))
    return Section(("Results",), (*_which_first(table, inputs.measures.headline), table, _legend(inputs)))


def _which_first(table: Table, headline: Measure) -> tuple[Paragraph, ...]:
    """What a long table begins with."""
    if len(table.rows) <= MOST_ROWS:
        return ()
    text = (
        "First the float baselines, then the recommended recipe, the Pareto front, the others by test "
        f"{headline.title}, and last what has no figures. On the page, the search finds rows with all of the words "
        "that are typed, in any order; a click on a title sorts."
    )
    return (Paragraph((text,)),)


def without_figures(inputs: ReportInputs) -> Section | None:
    """Return the full reasons, which the table shortens; nothing where every cell is ok."""
    rows = [row for row in inputs.rows if row["status"] != "ok"]
    if not rows:
        return None
    blocks: list[Block] = []
    if len(rows) > FEW_REASONS:
        counts = Counter((str(row["status"]), _beginning(reason_of(row))) for row in rows)
        kinds = tuple((f"{count} {status}: {what}",) for (status, what), count in counts.most_common(FEW_REASONS))
        more = len(counts) - len(kinds)
        blocks.append(Items((*kinds, (f"and {more} further kinds of reasons",)) if more else kinds))
    if len(rows) > MOST_ROWS:
        lines = tuple((name_cell(row["cell"]), text_cell(row["status"]), Cell(spans(reason_of(row)))) for row in rows)
        blocks.append(Table((Column("cell", "name"), Column("status", filter="status"), Column("reason")), lines))
    else:
        items = ((Code(str(row["cell"])), f" {row['status']}: ", *spans(reason_of(row))) for row in rows)
        blocks.append(Items(tuple(items)))
    return Section(("Cells without figures",), tuple(blocks))


def _beginning(reason: str) -> str:
    """The stage and the kind of error, which cells have in common."""
    return ": ".join(part.strip() for part in " ".join(reason.split()).split(":")[:2])[:80]


def further_figures(inputs: ReportInputs) -> Section | None:
    """Return the metrics and timings that the main table has no room for."""
    measured = [row for row in inputs.rows if row["status"] == "ok"]
    return (
        Section(("Further figures",), (inputs.in_order(further_table(measured, inputs.measures.others[1:])),))
        if measured
        else None
    )


def further_table(rows: Sequence[Row], metrics: Sequence[Measure]) -> Table:
    """Return further metrics, the noise of each output, timings and what training changed of measured rows."""
    shown = {metric.column: metric.title for metric in metrics}
    shown |= {name: f"SQNR dB, {name.partition('.')[2]}" for row in rows for name in row if name.startswith("sqnr_db.")}
    columns = [Column("cell", "name"), *(Column(title, "number") for title in shown.values())]
    lines = [[name_cell(row["cell"]), *(figure_cell(row, name) for name in shown)] for row in rows]
    for where, view in processor_views(rows):
        titles = ("p90 ms", "profiler step ms", "x its engine's float [95 % CI]")
        columns += [Column(f"{title}{where}", "number") for title in titles]
        for cells, row in zip(lines, view, strict=True):
            cells += [figure_cell(row, "latency_ms_p90"), figure_cell(row, "profiler_step_ms"), engine_ratio_cell(row)]
    columns.append(Column("training s", "number"))
    for cells, row in zip(lines, rows, strict=True):
        cells.append(figure_cell(row, "train_s"))
    if any(value(row, "weights_changed") is not None for row in rows):
        columns += [Column(title, "number") for title in ("weights changed", "best epoch", "live BatchNorm steps")]
        for cells, row in zip(lines, rows, strict=True):
            cells += [_share_cell(row, "weights_changed"), *(_count_cell(row, name) for name in _TRAINING_COUNTS)]
    return Table(tuple(columns), tuple(map(tuple, lines)))


def _share_cell(row: Row, column: str) -> Cell:
    share = value(row, column)
    return Cell((DASH if share is None else f"{100 * share:.2g} %",), share)


def _count_cell(row: Row, column: str) -> Cell:
    count = value(row, column)
    return Cell((DASH if count is None else f"{count:.0f}",), count)


def _legend(inputs: ReportInputs) -> Items:
    """How to read the tables of results."""
    rows = inputs.rows
    lines: list[Spans] = [
        (
            Strong(("Bold",)),
            f": best int8 value of its column; ≈: not told apart from it (margins: {_margins(inputs)}).",
        ),
        (f"All figures are those of the test images{_validation(inputs)}.{_SCALE if inputs.is_depth else ''}",),
    ]
    if any(value(row, "noise_rms_m") is not None for row in rows):
        text = (
            "Noise: rms difference to the float network that the cell was made from, and its share of that network's "
            "own rms error. Of a trained cell it holds what training changed as well."
        )
        lines.append((text,))
    if rank_letters(inputs.evidence):
        title = inputs.measures.headline.title
        text = (
            f"{title} group: cells that share a letter are not told apart in {title}; all pairs are one family of "
            "tests. A cell of two letters lies between two groups."
        )
        lines.append((text,))
    lines.append((f"x float: {_latency(rows)}",))
    lines.append((f"{DASH}: no figure.",))
    return Items(tuple(lines))


def _validation(inputs: ReportInputs) -> str:
    """Which column is of other images, where there is one."""
    headline = inputs.measures.headline
    known = any(value(row, headline.on("val")) is not None for row in inputs.rows)
    return f", but for validation {headline.title}: the validation images choose the recommended cell" if known else ""


def _latency(rows: Sequence[Row]) -> str:
    """How the ratio of latencies was measured."""
    loads = any(value(row, "latency_loads") is not None for row in rows)
    where = "several fresh processes" if loads else "one process"
    text = f"latency divided by that of the float network, measured in turns in {where}, batch 1; below 1 is faster."
    if any(row.get("timing_class") for row in rows):
        text += " Networks of the same operators have one latency, and its interval stands with the first of them."
    return f"{text} {_timed_on(rows)}".strip()


def _margins(inputs: ReportInputs) -> str:
    """Up to which difference two values are equivalent."""
    units = {SQNR.key: " dB"}
    margins = {measure: inputs.margins[measure.key] for measure in inputs.measures.main}
    return "; ".join(
        f"{one.name}: {margin}{'' if margin.relative else units.get(one.key, '')}" for one, margin in margins.items()
    )


def _timed_on(rows: Sequence[Row]) -> str:
    """Which processors the latencies are of."""
    names = processors(rows)
    if len(names) < 2:
        return "".join(f"Timed on: {name}. " for name in names if name != UNKNOWN)
    return f"Timed on {len(names)} processors: {'; '.join(names)}. {APART} "
