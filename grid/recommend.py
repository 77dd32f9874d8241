"""Which cell to take: a target such as ``ssim>=0.80, size_mb<=1.7, minimize latency`` against the rows."""

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from grid.entry import nearest
from grid.ranking import (
    LATENCY,
    MSE,
    SIZE,
    SQNR,
    SSIM,
    Measure,
    Row,
    best,
    contenders,
    is_int8,
    over_seeds,
    pareto_front,
    recipe_of,
    seed_spread,
    value,
)
from model.errors import InputError

METRICS = {
    "ssim": SSIM,
    "mse": MSE,
    "sqnr_db": SQNR,
    "size_mb": SIZE,
    "latency": LATENCY,
    "latency_ms": Measure("latency_ms_p50", "latency_ms", "p50 ms", False, tie_relative=0.03),
    "abs_rel": Measure("test_abs_rel", "abs_rel", "abs rel", False, tie_relative=0.01),
    "rmse_m": Measure("test_rmse_m", "rmse_m", "RMSE m", False, tie_relative=0.01),
    "delta1": Measure("test_delta1", "delta1", "δ1", True, tie=0.001),
}
"""What a target may name. ``latency`` is the ratio to the float network, ``latency_ms`` the milliseconds."""
DEFAULT = "maximize ssim"
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_CONSTRAINT = re.compile(r"(\w+)\s*(>=|<=|>|<)\s*(\S+)")
_OBJECTIVE = re.compile(r"(minimize|maximize)\s+(\S+)")
_FORM = "METRIC>=NUMBER or METRIC<=NUMBER, as many as you like, and one `minimize METRIC` or `maximize METRIC`"


@dataclass(frozen=True)
class Constraint:
    """A bound on one metric."""

    metric: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric}{self.sign}{self.bound:g}"

    def of(self, row: Row) -> float | None:
        """The row's figure."""
        return value(row, METRICS[self.metric].column)

    def miss(self, row: Row) -> float:
        """By how much the row fails; 0 where it does not, infinite where it has no figure."""
        found = self.of(row)
        if found is None:
            return float("inf")
        return 0.0 if _OPERATORS[self.sign](found, self.bound) else abs(found - self.bound)

    def is_met(self, row: Row) -> bool:
        """Whether the row's figure is there and within the bound."""
        found = self.of(row)
        return found is not None and _OPERATORS[self.sign](found, self.bound)

    def relative_miss(self, row: Row) -> float:
        """``miss`` in parts of the bound, to compare misses of different metrics."""
        return self.miss(row) / (abs(self.bound) or 1.0)


@dataclass(frozen=True)
class Target:
    """What is wanted: bounds that must hold, and the metric that decides among the cells that keep them."""

    constraints: tuple[Constraint, ...]
    objective: str

    def __str__(self) -> str:
        verb = "maximize" if METRICS[self.objective].higher_is_better else "minimize"
        return ", ".join([*map(str, self.constraints), f"{verb} {self.objective}"])


@dataclass(frozen=True)
class Recommendation:
    """The cell to take (None: no cell keeps all bounds) and the sentences that say why."""

    target: Target
    cell: str | None
    reasons: tuple[str, ...]
    front: tuple[str, ...]


def parse_target(text: str) -> Target:
    """Read a target; without an objective it is the highest SSIM. Raises InputError that names the wrong part."""
    constraints, objectives = [], []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if found := _CONSTRAINT.fullmatch(part):
            metric, sign, number = found.groups()
            constraints.append(Constraint(_known(metric), sign, _number(part, number)))
        elif found := _OBJECTIVE.fullmatch(part):
            verb, metric = found.groups()
            better = "maximize" if METRICS[_known(metric)].higher_is_better else "minimize"
            if verb != better:
                raise InputError("--target", f"{part!r} asks for the worst", f"{better} {metric}")
            objectives.append(metric)
        else:
            raise InputError("--target", f"{part!r} is neither a bound nor an objective", _FORM)
    if len(objectives) > 1:
        problem = f"{' and '.join(objectives)} cannot both decide"
        raise InputError("--target", problem, "one objective", "Give the other one a bound.")
    return Target(tuple(constraints), objectives[0] if objectives else "ssim")


def _known(metric: str) -> str:
    if metric not in METRICS:
        options = f"one of {', '.join(METRICS)}"
        raise InputError("--target", f"{metric!r} is an unknown metric", options, nearest(metric, METRICS))
    return metric


def _number(part: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not abs(number) < float("inf"):
        raise InputError("--target", f"{part!r} holds no number behind its sign", "a finite number")
    return number


def recommend(rows: Sequence[Row], target: Target) -> Recommendation:
    """The int8 cell that keeps all bounds and is best in the objective.

    Cells that tie in it are told apart by SSIM, then size, then latency, again but for ties; cells of several seeds
    count as one with their means.
    """
    candidates = contenders(over_seeds(rows))
    measures = [SSIM, SIZE, LATENCY]
    front = tuple(pareto_front(candidates, measures))
    kept = [row for row in candidates if all(one.is_met(row) for one in target.constraints)]
    objective = METRICS[target.objective]
    best_first, steps = kept, []
    for measure in (objective, *(measure for measure in measures if measure is not objective)):
        found = best(best_first, measure, seed_spread(rows, measure.column))
        if found:
            names = {found[0], *found[1]}
            left = [row for row in best_first if row["cell"] in names]
            if len(left) < len(best_first):
                steps.append(f"{measure.name} ({len(left)} of {len(best_first)} left)")
            best_first = left
    chosen = max(best_first, key=lambda row: value(row, SSIM.column) or 0.0, default=None)
    if not candidates:
        return Recommendation(target, None, ("No int8 network was measured.",), ())
    if chosen is None:
        return Recommendation(target, None, _unmet(candidates, target), front)
    kept_by = f"{len(kept)} of {len(candidates)} int8 cells keep {_bounds(target)}: it has"
    reasons = [f"{kept_by if target.constraints else 'It has'} {_figures(chosen, target)}."]
    if steps:
        reasons.append(f"Decided by {', then '.join(steps)}; what ties goes on to the next.")
    if len(best_first) > 1:
        others = [f"`{row['cell']}`" for row in best_first if row is not chosen]
        reasons.append(f"A tie in all of them with {_some(others)}: the higher SSIM is taken, which may be noise.")
    reasons += _rejected(candidates, kept, target)
    reasons += _float(rows, chosen, target, objective)
    return Recommendation(target, chosen["cell"], tuple(reasons), front)


def first_member(rows: Sequence[Row], cell: str) -> Row:
    """The row of a recommended cell; of a recipe with several seeds that of the first one."""
    return next(row for row in rows if is_int8(row) and recipe_of(row["cell"]) == cell)


def _bounds(target: Target) -> str:
    return " and ".join(map(str, target.constraints))


def _figures(row: Row, target: Target) -> str:
    names = dict.fromkeys([*(one.metric for one in target.constraints), target.objective, "ssim", "size_mb", "latency"])
    figures = [(name, value(row, METRICS[name].column)) for name in names]
    return ", ".join(f"{name} {_short(found)}" for name, found in figures if found is not None)


def _short(number: float) -> str:
    return f"{number:.4g}"


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _rejected(candidates: Sequence[Row], kept: Sequence[Row], target: Target) -> list[str]:
    """How far the nearest cell that breaks a bound was."""
    out = [row for row in candidates if row not in kept]
    if not out:
        return []
    row = min(out, key=lambda row: sum(one.relative_miss(row) for one in target.constraints))
    return [f"Nearest rejected: `{row['cell']}`, {_misses(row, target)}."]


def _misses(row: Row, target: Target) -> str:
    parts = []
    for one in target.constraints:
        found = one.of(row)
        if found is None:
            parts.append(f"no figure for {one.metric}")
        elif not one.is_met(row):
            parts.append(f"{one.metric} {_short(found)} misses {one} by {_short(one.miss(row))}")
    return ", ".join(parts)


def _unmet(candidates: Sequence[Row], target: Target) -> tuple[str, ...]:
    """Which bounds no cell keeps, each with the best there is; else which cell comes nearest to all of them."""
    lines = []
    for one in target.constraints:
        if not any(one.is_met(row) for row in candidates):
            row = min(candidates, key=one.miss)
            lines.append(f"No cell keeps {one}: best is `{row['cell']}`, {_misses(row, Target((one,), 'ssim'))}.")
    if not lines:
        lines.append("Each bound is kept by some cell, all of them together by none.")
    row = min(candidates, key=lambda row: sum(one.relative_miss(row) for one in target.constraints))
    return (*lines, f"Nearest to all: `{row['cell']}`, {_misses(row, target)}.")


def _float(rows: Sequence[Row], chosen: Row, target: Target, objective: Measure) -> list[str]:
    """Whether a float network would have been the better answer, which int8 alone does not show."""
    floats = [row for row in over_seeds(rows) if row["method"] == "fp32"]
    floats = [row for row in floats if all(one.is_met(row) for one in target.constraints)]
    found = best([chosen, *floats], objective, seed_spread(rows, objective.column))
    if found is None or chosen["cell"] in (found[0], *found[1]):
        return []
    row = next(row for row in floats if row["cell"] == found[0])
    figure = _short(float(row[objective.column]))
    return [f"The float network `{row['cell']}` keeps the bounds too and is better in {objective.name}: {figure}."]
