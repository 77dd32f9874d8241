"""Whether the int8 figures can be trusted: simulated against real accuracy, and which network each cell is."""

import statistics
from collections.abc import Sequence

from grid.report.cells import figure_cell, name_cell, same_as, text_cell
from grid.report.document import Cell, Column, Paragraph, Section, Table
from grid.report.formats import DASH, setting_text
from grid.report.inputs import ReportInputs
from grid.report.sections.effects import signed
from grid.results.ranking import Measure, Row, is_int8, value


def trust(inputs: ReportInputs) -> Section | None:
    """Return how far simulation and int8 network are apart, with the table of what was checked."""
    int8 = [row for row in inputs.rows if is_int8(row)]
    if not int8:
        return None
    headline = inputs.measures.headline
    gaps = [abs(gap) for row in int8 if (gap := _gap(row, headline)) is not None]
    largest = f"largest gap {max(gaps):.4f}, mean {statistics.fmean(gaps):.4f}" if gaps else "not compared"
    twins = sum(bool(row.get("same_as")) for row in inputs.rows)
    text = (
        f"{headline.title} of the fake-quantized simulation against the int8 network on its engine: {largest}. "
        f"Cells that turned out to be the same int8 network as another cell: {twins}."
    )
    return Section(
        ("Can the int8 figures be trusted?",), (Paragraph((text,)), inputs.in_order(trust_table(int8, headline)))
    )


def trust_table(rows: Sequence[Row], headline: Measure) -> Table:
    """Return what was checked of each int8 row."""
    columns = [Column("cell", "name")]
    columns += [Column(title, "number") for title in (f"simulated {headline.title}", f"int8 {headline.title}", "gap")]
    return Table((*columns, Column("network hash"), Column("")), tuple(_line(row, headline) for row in rows))


def _line(row: Row, headline: Measure) -> tuple[Cell, ...]:
    gap = _gap(row, headline)
    return (
        name_cell(row["cell"]),
        figure_cell(row, simulated(headline)),
        figure_cell(row, headline.column),
        Cell((DASH if gap is None else signed(gap, 4),), gap),
        text_cell(setting_text(row.get("graph_hash"))[:12]),
        Cell(same_as(row)),
    )


def _gap(row: Row, headline: Measure) -> float | None:
    """The real figure minus the simulated one."""
    real, found = value(row, headline.column), value(row, simulated(headline))
    return None if real is None or found is None else real - found


def simulated(headline: Measure) -> str:
    """The column of the simulation's figure."""
    return f"simulated_{headline.key}"
