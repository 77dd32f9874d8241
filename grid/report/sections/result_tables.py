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
    text_cell,
)
from grid.report.document import Cell, Column, Spans, Strong, Table, spans
from grid.report.formats import DASH, digits_of, figure_text
from grid.results.comparisons.evidence import Evidence
from grid.results.comparisons.groups import best, rank_groups
from grid.results.comparisons.image_tables import TEST
from grid.results.measures import Measures
from grid.results.processors import by_processor
from grid.results.ranking import (
    LATENCY,
    RECIPE,
    SIZE,
    SQNR,
    Measure,
    Row,
    axes_of,
    contenders,
    over_seeds,
    several_seeds,
    value,
)

MOST_OF_A_REASON = 120
MOST_GROUPED = 100
Marks = Mapping[tuple[str, str], Mark]


def results_table(evidence: Evidence) -> Table:
    """Return the main table: one line a cell, the best int8 value of a column and its ties marked.

    With several seeds those of ``seeds_table`` are marked, and none here. Each processor has columns of its own for
    its latencies, with a best value of its own.
    """
    rows, measures = evidence.rows, evidence.measures
    compared = (*measures.accuracy, SIZE)
    marked = not several_seeds(rows)
    further = [axis for axis in axes_of(rows) if axis not in RECIPE]
    columns = [Column("#", "number"), Column("cell", "name")]
    columns += [Column(title, filter=title) for title in ("fuse BN", "granularity", "method")]
    columns += [_setting_column(axis, rows) for axis in further]
    groups = rank_letters(evidence) if marked else {}
    marks = _marks(contenders(rows), evidence, compared) if marked else {}
    lines = []
    for number, row in enumerate(rows, 1):
        cells = [count_cell(number), name_cell(row["cell"])]
        cells += [setting_cell(row.get(key)) for key in (*RECIPE, *further)]
        lines.append(cells)
    for measure in compared:
        columns.append(_measured(measure, measures))
        for cells, row in zip(lines, rows, strict=True):
            cells.append(figure_cell(row, measure.column, _mark(marks, row, measure)))
        for name, title in _beside(measure, measures).items():
            if any(value(row, name) is not None for row in rows):
                columns.append(Column(title, "number"))
                for cells, row in zip(lines, rows, strict=True):
                    cells.append(figure_cell(row, name))
        if measure is measures.headline and groups:
            columns.append(Column(f"{measure.title} group"))
            for cells, row in zip(lines, rows, strict=True):
                cells.append(text_cell(groups.get(row["cell"], DASH)))
    for where, view in processor_views(rows):
        columns += [Column(f"p50 ms{where}", "number"), Column(f"x float [95 % CI]{where}", "number")]
        marks = _marks(contenders(view), evidence.of(view), (LATENCY,)) if marked else {}
        for cells, row in zip(lines, view, strict=True):
            cells += [figure_cell(row, "latency_ms_p50"), ratio_cell(row, _mark(marks, row, LATENCY))]
    notes = (Cell(_note(row), choice=row["status"]) for row in rows)
    rows_of_table = ((*cells, note) for cells, note in zip(lines, notes, strict=True))
    return Table((*columns, Column("note", filter="status")), tuple(rows_of_table))


def seeds_table(evidence: Evidence) -> Table:
    """Return the table over seeds: mean and standard deviation of each recipe, best and ties marked."""
    rows, compared = evidence.rows, (*evidence.measures.accuracy, SIZE)
    columns = [Column("#", "number"), Column("recipe", "name"), Column("seeds", "number")]
    groups = rank_letters(evidence)
    columns += [Column(f"{evidence.measures.headline.title} group")] if groups else []
    lines = [
        [count_cell(number), name_cell(row["cell"]), _seeds_cell(row)]
        + ([text_cell(groups.get(row["cell"], DASH))] if groups else [])
        for number, row in enumerate(over_seeds(rows), 1)
    ]
    shares = [("", rows, compared), *((where, view, (LATENCY,)) for where, view in processor_views(rows))]
    for where, view, measures in shares:
        columns += [_measured(measure, evidence.measures, where) for measure in measures]
        merged = over_seeds(view)
        marks = _marks(contenders(merged), evidence.of(view), measures)
        for cells, row in zip(lines, merged, strict=True):
            cells += [_mean_cell(row, measure, _mark(marks, row, measure)) for measure in measures]
    return Table(tuple(columns), tuple(map(tuple, lines)))


def _measured(measure: Measure, measures: Measures, where: str = "") -> Column:
    """The column of a measure; accuracy says of which images it is."""
    tested = measure in (measures.headline, *measures.others)
    return Column(f"{'test ' if tested else ''}{measure.title}{where}", "number")


def _beside(measure: Measure, measures: Measures) -> Mapping[str, str]:
    """Further columns of the main table behind those of a measure, where a row has them."""
    if measure is measures.headline:
        return {measure.on("val"): f"validation {measure.title}"}
    return {"noise_rms_m": "noise rms m", "noise_to_error": "noise / float error"} if measure is SQNR else {}


def rank_letters(evidence: Evidence) -> dict[str, str]:
    """Return the letters of each int8 cell or recipe: those that share one are not told apart in the headline.

    Nothing where no pair can be tested, and with more than ``MOST_GROUPED`` cells.
    """
    candidates = contenders(over_seeds(evidence.rows) if several_seeds(evidence.rows) else evidence.rows)
    if evidence.tables.sample(TEST).scenes < 2 or not 1 < len(candidates) <= MOST_GROUPED:
        return {}
    letters: dict[str, str] = {}
    for number, group in enumerate(rank_groups(candidates, evidence.measures.headline, evidence)):
        letter = _letter(number)
        letters |= {cell: letters.get(cell, "") + letter for cell in group}
    return letters


def _letter(number: int) -> str:
    """a to z, then a1 to z1 and so on."""
    return f"{chr(ord('a') + number % 26)}{number // 26 or ''}"


def processor_views(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Return the rows as each processor knows them, behind what its columns are called; of one alone, nothing."""
    named = by_processor(rows)
    return [(on_processor(name if len(named) > 1 else None), view) for name, view in named.items()]


def _setting_column(axis: str, rows: Sequence[Row]) -> Column:
    """The column of a further axis: of figures, if all its values are numbers."""
    cells = [setting_cell(row.get(axis)) for row in rows]
    numbers = all(cell.figure is not None or cell.spans == (DASH,) for cell in cells)
    return Column(axis, "number" if numbers else "text", axis)


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
        text += f" ± {deviation:.{digits_of(measure.column)}f}"
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
