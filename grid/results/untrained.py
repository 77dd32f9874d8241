"""Fine-tuned networks that training has not changed: they are what they started from, under another name."""

from collections.abc import Sequence

from grid.results.ranking import Row, axes_of, value


def is_untrained(row: Row) -> bool:
    """Whether fine-tuning moved no integer weight, or its best epoch is its start (of all seeds of a recipe)."""
    return row["method"] in ("qat", "ptq+qat") and 0.0 in (value(row, "weights_changed"), value(row, "best_epoch"))


def without_untrained(rows: Sequence[Row], all_rows: Sequence[Row]) -> list[Row]:
    """The rows but for those that are untrained beside the ptq row that they started from, or would have.

    That row is equal in all settings that both have. Where it is not among ``rows`` the untrained one stays.
    """
    axes = [axis for axis in axes_of(all_rows) if axis != "method" and not axis.startswith("qat.")]
    starts = [row for row in rows if row["method"] == "ptq"]
    found = []
    for row in rows:
        if is_untrained(row) and any(_fits(start, row, axes) for start in starts):
            continue
        found.append(row)
    return found


def _fits(start: Row, row: Row, axes: Sequence[str]) -> bool:
    both = [axis for axis in axes if start.get(axis) not in (None, "") and row.get(axis) not in (None, "")]
    return all(str(start[axis]) == str(row[axis]) for axis in both)
