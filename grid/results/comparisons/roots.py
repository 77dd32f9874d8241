"""Which float network each cell started from, found in the rows alone."""

import math
from collections.abc import Mapping, Sequence

from grid.results.ranking import Row, axes_of, value


def root_names(rows: Sequence[Row]) -> dict[str, str | None]:
    """By cell the float row that its network started from, None where no such row was measured; a root names itself.

    It is the float network of the same settings, as far as float networks have these, and of the same seed where the
    seed is one of them. It has no noise against itself; other float rows (BatchNorm folded, other engines) do.
    """
    floats = [row for row in rows if row["method"] == "fp32" and row["status"] == "ok" and not row.get("fuse_bn")]
    plain = [row for row in floats if value(row, "sqnr_db") is None and not row.get("engine")]
    plain = plain or [row for row in floats if value(row, "sqnr_db") is None]
    axes = [axis for axis in axes_of(rows) if axis in ("encoder", "merge_branches") or "." in axis]
    by_settings: dict[tuple[str, ...], list[Row]] = {}
    shared = [axis for axis in axes if any(row.get(axis) not in (None, "") for row in plain)]
    for row in plain:
        by_settings.setdefault(_settings(row, shared), []).append(row)
    found: dict[str, str | None] = {}
    for row in rows:
        there = by_settings.get(_settings(row, shared), [])
        seeds = [root for root in there if str(root.get("seed")) == str(row.get("seed"))]
        root = next(iter(seeds or there), None)
        found[row["cell"]] = root["cell"] if root else None
    return found


def trained_on(rows: Sequence[Row], roots: Mapping[str, str | None]) -> set[str]:
    """The cells whose network was drawn behind the float root: int8 ones, and float ones that were trained further."""
    seconds = {row["cell"]: value(row, "train_s") or 0.0 for row in rows}
    return {
        row["cell"]
        for row in rows
        if row["method"] != "fp32" or seconds[row["cell"]] > seconds.get(roots[row["cell"]] or "", math.inf)
    }


def _settings(row: Row, axes: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(row.get(axis)) for axis in axes)
