"""Entries of tables, and names within sentences."""

from typing import Any, Literal

from grid.report.document import Cell, Code, Spans
from grid.report.formats import DASH, figure_text, ratio_text, setting_text
from grid.results.ranking import LATENCY, Row, value

Mark = Literal["", "best", "tie"]


def figure_cell(row: Row, column: str, mark: Mark = "") -> Cell:
    """Return a figure as an entry of a table."""
    return Cell((figure_text(row, column),), value(row, column), mark)


def ratio_cell(row: Row, mark: Mark = "") -> Cell:
    """Return the latency ratio as an entry of a table, with its interval at the first row of its timing class."""
    text = f"{figure_text(row, LATENCY.column)}x" if row.get("latency_as") else ratio_text(row)
    return Cell((text,), value(row, LATENCY.column), mark)


def engine_ratio_cell(row: Row) -> Cell:
    """Return the ratio to the fastest float network of the row's engine with its interval, as an entry of a table."""
    figures = [value(row, f"engine_ratio{end}") for end in ("", "_low", "_high")]
    if figures[0] is None:
        return Cell((DASH,), None)
    bounds = "" if None in figures else f" [{figures[1]:.2f}, {figures[2]:.2f}]"
    return Cell((f"{figures[0]:.2f}x{bounds}",), figures[0])


def count_cell(count: int) -> Cell:
    """Return a number of things as an entry of a table."""
    return Cell((str(count),), count)


def setting_cell(setting: Any) -> Cell:
    """Return a setting as an entry of a table; one that is a number is sorted as such."""
    is_number = isinstance(setting, int | float) and not isinstance(setting, bool)
    return Cell((setting_text(setting),), setting if is_number else None)


def text_cell(text: Any) -> Cell:
    """Return text as an entry of a table."""
    return Cell((str(text),))


def name_cell(name: Any) -> Cell:
    """Return a name as an entry of a table."""
    return Cell((Code(str(name)),))


def same_as(row: Row) -> Spans:
    """Return which cell has the same network, or nothing."""
    return ("same as ", Code(str(row["same_as"]))) if row.get("same_as") else ()


def reason_of(row: Row) -> str:
    """Return why a row has no figures."""
    return str(row.get("reason") or "no reason given")


def on_processor(name: str | None) -> str:
    """Return where a latency was measured, as the end of a phrase; nothing without a name."""
    return f" on {name}" if name else ""


def in_sentence(names: list[Code], most: int = 3) -> Spans:
    """Return the first names with commas between them, and how many more there are."""
    listed: list[str | Code] = []
    for name in names[:most]:
        listed += [", ", name] if listed else [name]
    return (*listed, f" and {len(names) - most} more") if len(names) > most else tuple(listed)
