"""How much a figure moves when a recipe's network is drawn again: by another seed, or as a null twin."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from grid.results.comparisons.roots import root_names, trained_on
from grid.results.ranking import Row, axes_of, place_of, recipe_of, value

Kind = tuple[str, str]
"""Of a recipe: its method and the bits of its weights. Networks of one kind move alike when drawn again."""
FLOAT = "fp32"


@dataclass(frozen=True)
class Spread:
    """The variance of one draw, and on how many degrees of freedom it is known."""

    variance: float
    degrees_of_freedom: int


@dataclass(frozen=True)
class Draws:
    """What is known of redraws in one column: by kind, and of the float networks that were trained."""

    by_kind: Mapping[Kind, Spread] = field(default_factory=dict)
    of_float: Spread | None = None


def kind_of(row: Row) -> Kind:
    """The kind of a row's recipe."""
    return str(row["method"]), str(row.get("weight_bits") or "")


def draws(rows: Sequence[Row], column: str) -> Draws:
    """What the measured ``rows`` show of redraws in ``column``, pooled over the recipes of each kind.

    Where a kind has several seeds these are its draws. With one seed those of ptq are its null twins: cells that differ
    in ``fuse_bn`` alone are the same function, folded before or after, and so the same network drawn again.
    Where the float network is trained with each seed, figures are taken less that of their own.
    """
    measured = [row for row in rows if row["status"] == "ok" and value(row, column) is not None]
    roots = root_names(rows)
    figures = {row["cell"]: float(row[column]) for row in measured}
    trained = len({roots[row["cell"]] for row in measured if row["method"] != FLOAT}) > 1

    def relative(row: Row) -> float:
        root = roots[row["cell"]] if trained else None
        return figures[row["cell"]] - figures.get(root or "", 0.0)

    drawn = trained_on(rows, roots)
    behind = [row for row in measured if row["cell"] in drawn]
    axes = axes_of(rows)
    seeds = _pooled(((kind_of(row), recipe_of(row["cell"])), relative(row)) for row in behind)
    but_fuse_bn = [axis for axis in axes if axis != "fuse_bn"]
    once = alone([row for row in behind if row["method"] == "ptq" and not row.get("same_as")], axes)
    twins = _pooled(((kind_of(row), *place_of(row, but_fuse_bn)), relative(row)) for row in once)
    floats = [row for row in measured if roots[row["cell"]] == row["cell"]]
    of_floats = _pooled(((kind_of(row), recipe_of(row["cell"])), figures[row["cell"]]) for row in floats)
    return Draws({**twins, **seeds}, next(iter(of_floats.values()), None))


def alone(rows: Sequence[Row], axes: Sequence[str]) -> list[Row]:
    """The rows that are alone at their place on the axes: others differ in something that the rows do not show."""
    counts = Counter(place_of(row, axes) for row in rows)
    return [row for row in rows if counts[place_of(row, axes)] == 1]


def _pooled(figures: Iterable[tuple[tuple[Kind, *tuple[str, ...]], float]]) -> dict[Kind, Spread]:
    """Variances by the first part of the key, pooled over the groups of figures with one whole key."""
    groups: dict[tuple[Kind, *tuple[str, ...]], list[float]] = {}
    for key, figure in figures:
        groups.setdefault(key, []).append(figure)
    sums: dict[Kind, tuple[float, int]] = {}
    for key, group in groups.items():
        if len(group) > 1:
            total, degrees = sums.get(key[0], (0.0, 0))
            sums[key[0]] = total + statistics.variance(group) * (len(group) - 1), degrees + len(group) - 1
    return {key: Spread(total / degrees, degrees) for key, (total, degrees) in sums.items()}
