"""What a user wants of a network, read from text such as ``ssim>=0.80, size_mb<=1.7, minimize latency``."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from grid.results.ranking import LATENCY, MSE, SIZE, SQNR, SSIM, Measure, Row, value
from grid.space.values import nearest
from model.errors import InputError

METRICS = {
    "ssim": SSIM,
    "mse": MSE,
    "sqnr_db": SQNR,
    "size_mb": SIZE,
    "latency": LATENCY,
    "latency_ms": Measure("latency_ms", "latency_ms_p50", "latency_ms", "p50 ms", False),
    "abs_rel": Measure("abs_rel", "test_abs_rel", "abs_rel", "abs rel", False, "abs_rel"),
    "rmse_m": Measure("rmse_m", "test_rmse_m", "rmse_m", "RMSE m", False, "rmse_m"),
    "delta1": Measure("delta1", "test_delta1", "delta1", "δ1", True, "delta1"),
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

    def of(self, row: Row, split: str = "test") -> float | None:
        """The row's figure on a split."""
        return value(row, METRICS[self.metric].on(split))

    def holds(self, figure: float) -> bool:
        """Whether a figure is within the bound."""
        return _OPERATORS[self.sign](figure, self.bound)

    def miss(self, row: Row, split: str = "test") -> float:
        """By how much the row fails; 0 where it does not, infinite where it has no figure."""
        found = self.of(row, split)
        if found is None:
            return float("inf")
        return 0.0 if self.holds(found) else abs(found - self.bound)

    def is_met(self, row: Row, split: str = "test") -> bool:
        """Whether the row's figure is there and within the bound."""
        found = self.of(row, split)
        return found is not None and self.holds(found)

    def relative_miss(self, row: Row, split: str = "test") -> float:
        """``miss`` in parts of the bound, to compare misses of different metrics."""
        return self.miss(row, split) / (abs(self.bound) or 1.0)


@dataclass(frozen=True)
class Target:
    """What is wanted: bounds that must hold, and the metric that decides among the cells that keep them."""

    constraints: tuple[Constraint, ...]
    objective: str

    @property
    def of_processor(self) -> bool:
        """Whether a latency is asked for: then each processor has an answer of its own."""
        asked = (self.objective, *(one.metric for one in self.constraints))
        return any(METRICS[metric].of_processor for metric in asked)

    def __str__(self) -> str:
        verb = "maximize" if METRICS[self.objective].higher_is_better else "minimize"
        return ", ".join([*map(str, self.constraints), f"{verb} {self.objective}"])


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
