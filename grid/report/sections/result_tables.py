"""The tables of results: a line a cell, and a line a recipe where there are several seeds."""

from collections.abc import Mapping, Sequence

from grid.report.cells import (
    Mark,
    count_cell,
    figure_cell,
    name_cell,
    on_processor,
    ratio_cell,
    reason_of,
    same_as,
    setting_cell,
)
from grid.report.document import Cell, Column, Spans, Strong, Table, spans
from grid.report.formats import DASH, DIGITS, figure_text
from grid.results.comparisons.evidence import Evidence
from grid.results.comparisons.groups import best
from grid.results.processors import by_processor
from grid.results.ranking import (
    LATENCY,
    MEASURES,
    RECIPE,
    Measure,
    Row,
    axes_of,
    contenders,
    over_seeds,
    several_seeds,
    value,
)

MOST_OF_A_REASON = 120
ACCURACY_AND_SIZE = tuple(measure for measure in MEASURES if not measure.of_processor)
Marks = Mapping[tuple[str, str], Mark]


def results_table(evidence: Evidence) -> Table:
    """Return the main table: one line a cell, the best int8 value of a column and its ties marked.

    With several seeds those of ``seeds_table`` are marked, and none here. Each processor has columns of its own for
    its latencies, with a best value of its own.
    """
    rows = evidence.rows
    marked = not several_seeds(rows)
    further = [axis for axis in axes_of(rows) if axis not in RECIPE]
    columns = [Column("#", "number"), Column("cell", "name")]
    columns += map(Column, ("fuse BN", "granularity", "method"))
    columns += [_setting_column(axis, rows) for axis in further]
    columns += [Column(measure.title, "number") for measure in ACCURACY_AND_SIZE]
    marks = _marks(contenders(rows), evidence, ACCURACY_AND_SIZE) if marked else {}
    lines = []
    for number, row in enumerate(rows, 1):
        cells = [count_cell(number), name_cell(row["cell"])]
        cells += [setting_cell(row.get(key)) for key in (*RECIPE, *further)]
        cells += [figure_cell(row, one.column, _mark(marks, row, one)) for one in ACCURACY_AND_SIZE]
        lines.append(cells)
    for where, view in processor_views(rows):
        columns += [Column(f"p50 ms{where}", "number"), Column(f"x float [95 % CI]{where}", "number")]
        marks = _marks(contenders(view), evidence.of(view), (LATENCY,)) if marked else {}
        for cells, row in zip(lines, view, strict=True):
            cells += [figure_cell(row, "latency_ms_p50"), ratio_cell(row, _mark(marks, row, LATENCY))]
    rows_of_table = ((*cells, Cell(_note(row))) for cells, row in zip(lines, rows, strict=True))
    return Table((*columns, Column("note")), tuple(rows_of_table))


def seeds_table(evidence: Evidence) -> Table:
    """Return the table over seeds: mean and standard deviation of each recipe, best and ties marked."""
    rows = evidence.rows
    columns = [Column("#", "number"), Column("recipe", "name"), Column("seeds", "number")]
    lines = [
        [count_cell(number), name_cell(row["cell"]), _seeds_cell(row)] for number, row in enumerate(over_seeds(rows), 1)
    ]
    shares = [("", rows, ACCURACY_AND_SIZE), *((where, view, (LATENCY,)) for where, view in processor_views(rows))]
    for where, view, measures in shares:
        columns += [Column(f"{measure.title}{where}", "number") for measure in measures]
        merged = over_seeds(view)
        marks = _marks(contenders(merged), evidence.of(view), measures)
        for cells, row in zip(lines, merged, strict=True):
            cells += [_mean_cell(row, measure, _mark(marks, row, measure)) for measure in measures]
    return Table(tuple(columns), tuple(map(tuple, lines)))


def processor_views(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Return the rows as each processor knows them, behind what its columns are called; of one alone, nothing."""
    named = by_processor(rows)
    return [(on_processor(name if len(named) > 1 else None), view) for name, view in named.items()]


def _setting_column(axis: str, rows: Sequence[Row]) -> Column:
    """The column of a further axis: of figures, if all its values are numbers."""
    cells = [setting_cell(row.get(axis)) for row in rows]
    return Column(axis, "number" if all(cell.figure is not None or cell.spans == (DASH,) for cell in cells) else "text")


def _seeds_cell(row: Row) -> Cell:
    """How many seeds were measured; of how many, where some were not."""
    seeds, planned = int(row["seeds"]), int(row["seeds_planned"])
    return count_cell(seeds) if seeds == planned else Cell((f"{seeds} of {planned}",), seeds)


def _marks(candidates: Sequence[Row], evidence: Evidence, measures: Sequence[Measure]) -> Marks:
    """The best value and what cannot be told from it by (cell, column)."""
    marks: dict[tuple[str, str], Mark] = {}
    for measure in measures:
        if first_and_ties := best(candidates, measure, evidence):
            first, ties = first_and_ties
            marks[first, measure.column] = "best"
            marks |= {(cell, measure.column): "tie" for cell in ties}
    return marks


def _mark(marks: Marks, row: Row, measure: Measure) -> Mark:
    return marks.get((row["cell"], measure.column), "")


def _mean_cell(row: Row, measure: Measure, mark: Mark) -> Cell:
    """The mean over seeds with its standard deviation."""
    text, deviation = figure_text(row, measure.column), value(row, f"{measure.column}_std")
    if deviation is not None:
        text += f" ± {deviation:.{DIGITS[measure.column]}f}"
    return Cell((text,), value(row, measure.column), mark)


def _note(row: Row) -> Spans:
    """Why a row has no figures of its own, or what is to be known about them."""
    if row.get("same_as"):
        return same_as(row)
    if row["status"] == "ok":
        return spans(str(row.get("note") or row.get("reason") or ""))
    reason = " ".join(reason_of(row).split())
    short = reason if len(reason) <= MOST_OF_A_REASON else f"{reason[: MOST_OF_A_REASON - 1]}…"
    return (Strong((row["status"],)), ": ", *spans(short))
