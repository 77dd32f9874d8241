"""The figures of all cells: plotted, over seeds, cell by cell, and the reasons of those without figures."""

from collections.abc import Sequence
from functools import partial

from grid.report.cells import engine_ratio_cell, figure_cell, name_cell, reason_of
from grid.report.document import Code, Column, Items, Paragraph, Picture, Plot, Section, Strong, Table, spans
from grid.report.figures.panels import trade_off
from grid.report.figures.tradeoff import draw_tradeoff
from grid.report.formats import DASH
from grid.report.inputs import ReportInputs
from grid.report.sections.result_tables import processor_views, results_table, seeds_table
from grid.results.processors import APART
from grid.results.ranking import MEASURES, UNKNOWN, Row, processors, several_seeds


def tradeoff(inputs: ReportInputs) -> Section | None:
    """Return the figure of all measured cells."""
    plotted = trade_off(inputs.rows, inputs.evidence)
    if plotted is None:
        return None
    picture = Picture("tradeoff.png", "SSIM against size and latency", partial(draw_tradeoff, plotted))
    text = (
        "Each number is a line of the first results table; grey bars are 95 % intervals of the latency ratio. "
        "A cell is on a front when no other beats it by more than a tie."
    )
    if len(processors(inputs.rows)) > 1:
        text += " Each processor has its own latencies, plot and front; sizes are those of all cells."
    return Section(("Accuracy against size and latency",), (Plot(plotted, picture), Paragraph((text,))))


def seeds(inputs: ReportInputs) -> Section | None:
    """Return the table of recipes, where there are several seeds."""
    if not several_seeds(inputs.rows):
        return None
    return Section(("Results over seeds",), (seeds_table(inputs.evidence), _legend(inputs)))


def results(inputs: ReportInputs) -> Section:
    """Return the table of cells."""
    if several_seeds(inputs.rows):
        return Section(("Results, cell by cell",), (results_table(inputs.evidence),))
    return Section(("Results",), (results_table(inputs.evidence), _legend(inputs)))


def without_figures(inputs: ReportInputs) -> Section | None:
    """Return the full reasons, which the table shortens; nothing where every cell is ok."""
    lines = tuple(
        (Code(str(row["cell"])), f" {row['status']}: ", *spans(reason_of(row)))
        for row in inputs.rows
        if row["status"] != "ok"
    )
    return Section(("Cells without figures",), (Items(lines),)) if lines else None


def further_figures(inputs: ReportInputs) -> Section | None:
    """Return the metrics and timings that the main table has no room for."""
    measured = [row for row in inputs.rows if row["status"] == "ok"]
    return Section(("Further figures",), (further_table(measured),)) if measured else None


def further_table(rows: Sequence[Row]) -> Table:
    """Return depth metrics and timings of measured rows."""
    columns = [Column("cell", "name"), *(Column(title, "number") for title in ("abs rel", "RMSE m", "δ1"))]
    depth = ("test_abs_rel", "test_rmse_m", "test_delta1")
    lines = [[name_cell(row["cell"]), *(figure_cell(row, name) for name in depth)] for row in rows]
    for where, view in processor_views(rows):
        titles = ("p90 ms", "profiler step ms", "x its engine's float [95 % CI]")
        columns += [Column(f"{title}{where}", "number") for title in titles]
        for cells, row in zip(lines, view, strict=True):
            cells += [figure_cell(row, "latency_ms_p90"), figure_cell(row, "profiler_step_ms"), engine_ratio_cell(row)]
    rows_of_table = ((*cells, figure_cell(row, "train_s")) for cells, row in zip(lines, rows, strict=True))
    return Table((*columns, Column("training s", "number")), tuple(rows_of_table))


def _legend(inputs: ReportInputs) -> Paragraph:
    """How to read the tables of results."""
    rows = inputs.rows
    text = (
        f": best int8 value of its column; ≈: not told apart from it (margins: {_margins(inputs)}). "
        "x float: latency divided by that of the float network, measured alternately in several fresh processes, batch "
        "1. Networks of the same operators have one latency, and its interval stands with the first of them; "
        f"below 1 is faster. {_timed_on(rows)}{DASH}: no figure. MSE and SSIM on depth / 10 m."
    )
    return Paragraph((Strong(("Bold",)), text))


def _margins(inputs: ReportInputs) -> str:
    """Up to which difference two values are equivalent."""
    return "; ".join(f"{measure.name}: {inputs.margins[measure.key]}" for measure in MEASURES)


def _timed_on(rows: Sequence[Row]) -> str:
    """Which processors the latencies are of."""
    names = processors(rows)
    if len(names) < 2:
        return "".join(f"Timed on: {name}. " for name in names if name != UNKNOWN)
    return f"Timed on {len(names)} processors: {'; '.join(names)}. {APART} "
