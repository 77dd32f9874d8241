"""What rows are: their figures, the measures that rank them, their axes, and the recipes that seeds repeat."""

import math
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """A column that ranks rows; ``key`` is what targets and margins call it.

    ``by_image`` is what it is the mean of in ``per_image.csv``; a size or a latency is nothing of an image.
    """

    key: str
    column: str
    name: str
    title: str
    higher_is_better: bool
    by_image: str = ""

    @property
    def of_processor(self) -> bool:
        """Whether it is a latency: one of another processor says nothing about it."""
        return is_latency(self.column)

    @property
    def sign(self) -> float:
        """1 where more of it is better, else -1."""
        return 1.0 if self.higher_is_better else -1.0

    def gain(self, row: Row, split: str = "test") -> float:
        """The row's figure as one of which more is better; minus infinity where it has none."""
        figure = value(row, self.on(split))
        return -math.inf if figure is None else self.sign * figure

    def on(self, split: str) -> str:
        """The column of the figure on a split, ``test`` or ``val``; that of a size or a latency is the same."""
        return f"val_{self.column.removeprefix('test_')}" if self.by_image and split == "val" else self.column


SQNR = Measure("sqnr_db", "sqnr_db", "SQNR", "SQNR dB", True, "noise_mse")
SIZE = Measure("size_mb", "size_mb", "size", "size MB", False)
LATENCY = Measure("latency", "latency_ratio", "latency", "x float latency", False)
LATENCY_MS = Measure("latency_ms", "latency_ms_p50", "latency_ms", "p50 ms", False)
_UNDOTTED = ("engine", "encoder", "device", "merge_branches", "weight_bits")
RECIPE = ("fuse_bn", "granularity", "method")
UNKNOWN = "unknown"
"""The processor of a latency whose row names none."""


def is_int8(row: Row) -> bool:
    """True for a measured int8 network."""
    return bool(row["status"] == "ok" and row["method"] != "fp32")


def value(row: Row, column: str) -> float | None:
    """Return the figure, or None where there is none (missing or NaN)."""
    found = row.get(column)
    return None if found is None or found == "" or math.isnan(float(found)) else float(found)


def is_latency(column: str) -> bool:
    """Whether a column holds times of a forward pass, which depend on the processor."""
    return column.startswith(("latency_", "engine_ratio")) or column == "profiler_step_ms"


def processor_of(row: Row) -> str | None:
    """Return the CPU model that the row's latency is of; None of a row that has no latency."""
    timed = any(value(row, column) is not None for column in ("latency_ratio", "latency_ms_p50"))
    return (row.get("cpu_model") or UNKNOWN) if timed else None


def processors(rows: Iterable[Row]) -> list[str]:
    """Return the CPU models that latencies of the rows are of, in the order of the rows."""
    return [name for name in dict.fromkeys(map(processor_of, rows)) if name is not None]


def contenders(rows: Iterable[Row]) -> list[Row]:
    """Return the measured int8 rows, each network once (``same_as`` rows left out)."""
    return [row for row in rows if is_int8(row) and not row.get("same_as")]


def axes_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the columns that are axes: the recipe's three, and every other setting that the int8 rows vary.

    A setting is one of ``_UNDOTTED`` or a column with a dot in its name (``qat.epochs``); ``seed`` is none.
    """
    settings = {key: None for row in rows for key in row if key in _UNDOTTED or "." in key}
    cells = [row for row in rows if row["method"] != "fp32"]
    return (*RECIPE, *(key for key in settings if len({str(row.get(key)) for row in cells}) > 1))


def recipe_of(cell: str) -> str:
    """Return the name of a cell's recipe: without the ``-s<seed>`` at its end."""
    return re.sub(r"-s\d+$", "", cell)


def several_seeds(rows: Iterable[Row]) -> bool:
    """Whether the int8 rows were measured with more than one seed."""
    return len({row.get("seed") for row in rows if is_int8(row)}) > 1


def compared(rows: Sequence[Row]) -> list[Row]:
    """Return the rows as figures show them: a row a recipe where there are several seeds, else as they are."""
    return over_seeds(rows) if several_seeds(rows) else list(rows)


_MERGED: dict[str, Callable[[list[float]], float]] = {
    f"{ratio}_{end}": merge
    for ratio in ("latency_ratio", "latency_own_ratio", "engine_ratio")
    for end, merge in (("low", min), ("high", max))
}
"""An interval over seeds holds those of all of them; other figures are means."""
_FIGURES = ("sqnr_db", "noise_rms_m", "noise_to_error", "size_mb", "weights_changed", "best_epoch")


def over_seeds(rows: Iterable[Row]) -> list[Row]:
    """Return one row a recipe: means over its measured seeds, ``<column>_std``, ``seeds`` and ``seeds_planned``.

    ``seeds`` were measured, of as many as were planned: a mean over those that did not fail says so. Rows that were
    not measured are else left out; a recipe with one seed keeps its row and has no deviation. Seeds that were timed on
    different processors have no latency in common: see ``grid.results.processors`` for those of each.
    """
    groups: dict[str, list[Row]] = {}
    planned: dict[str, int] = {}
    for row in rows:
        recipe = recipe_of(row["cell"])
        planned[recipe] = planned.get(recipe, 0) + (row["status"] != "excluded")
        if row["status"] == "ok":
            groups.setdefault(recipe, []).append(row)
    merged = []
    for name, group in groups.items():
        row = dict(group[0], seeds=len(group), seeds_planned=planned[name], cell=name)
        timed_on = processors(group)
        if len(timed_on) == 1:
            row["cpu_model"] = timed_on[0]
        elif timed_on:
            row |= {key: None for key in row if is_latency(key) or key == "cpu_model"}
        numeric = [
            key for key in row if key.startswith(("test_", "val_", "latency_", "engine_ratio")) and key != "latency_as"
        ]
        numeric += [key for key in row if key in _FIGURES]
        for column in numeric:
            members = [] if is_latency(column) and len(timed_on) > 1 else group
            values = [found for member in members if (found := value(member, column)) is not None]
            row[column] = _MERGED.get(column, statistics.fmean)(values) if values else None
            row[f"{column}_std"] = statistics.stdev(values) if len(values) > 1 else None
        if len(group) > 1:
            row["same_as"] = None
        merged.append(row)
    return merged


def place_of(row: Row, axes: Iterable[str]) -> tuple[str, ...]:
    """Return where a row stands on the axes, and its seed: what two rows have in common or not."""
    return tuple(str(row.get(name)) for name in (*axes, "seed"))
