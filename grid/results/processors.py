"""Rows as each processor knows them: latencies of two CPU models are never ranked against each other."""

from collections.abc import Sequence

from grid.results.ranking import Row, is_int8, is_latency, processor_of, processors

APART = "Latencies of different processors do not compare."


def by_processor(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return by CPU model the rows as that processor knows them; of one model, or none, the rows as they are.

    Every view has every row in its place. A latency of another processor is no figure there, all other figures stay.
    Among cells that are the same network the first one that was timed there stands for it, and ``same_as`` names that.
    """
    names = processors(rows)
    if len(names) < 2:
        return {names[0] if names else "": list(rows)}
    return {name: _view(rows, name) for name in names}


def is_elsewhere(row: Row) -> bool:
    """Whether a row of a view was timed on other processors alone; one without any latency was not."""
    return processor_of(row) is None and bool(row.get("cpu_model"))


def _view(rows: Sequence[Row], name: str) -> list[Row]:
    view = [row if processor_of(row) in (name, None) else _untimed(row) for row in rows]
    leads: dict[str, str] = {}
    for row in view:
        if is_int8(row) and processor_of(row) == name:
            leads.setdefault(row.get("same_as") or row["cell"], row["cell"])
    return [_named(row, leads) for row in view]


def _untimed(row: Row) -> Row:
    return {key: None if is_latency(key) else figure for key, figure in row.items()}


def _named(row: Row, leads: dict[str, str]) -> Row:
    """The row with the name of the cell that stands for its network in this view."""
    first = row.get("same_as") or row["cell"]
    lead = leads.get(first, first)
    same_as = None if lead == row["cell"] else lead
    return row if row.get("same_as") == same_as else {**row, "same_as": same_as}
