"""What a user wants of a network, read from text such as ``top1>=float-0.005, size_mb<=1.7, minimize latency``."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from grid.results.measures import DEPTH, Measures
from grid.results.ranking import Measure, Row, over_seeds, value
from grid.space.values import nearest
from model.errors import InputError

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_CONSTRAINT = re.compile(r"(\w+)\s*(>=|<=|>|<)\s*(\S.*)")
_RELATIVE = re.compile(r"float\s*(?:([+-])\s*(\S+))?")
_OBJECTIVE = re.compile(r"(minimize|maximize)\s+(\S+)")
_FORM = (
    "METRIC>=NUMBER, METRIC<=NUMBER or METRIC>=float-NUMBER, as many as you like, and one `minimize METRIC` or "
    "`maximize METRIC`"
)
_SPLITS = ("test", "val")


@dataclass(frozen=True)
class Constraint:
    """A bound on one metric; ``relative``: it is an offset from the float network's own figure.

    ``floats`` are those figures by split, once they are known (``Target.resolved``).
    """

    measure: Measure
    sign: str
    bound: float
    relative: bool = False
    floats: Mapping[str, float | None] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        offset = f"{self.bound:+g}" if self.bound else ""
        return f"{self.metric}{self.sign}{f'float{offset}' if self.relative else f'{self.bound:g}'}"

    @property
    def metric(self) -> str:
        """What targets call it."""
        return self.measure.key

    def of(self, row: Row, split: str = "test") -> float | None:
        """The row's figure on a split."""
        return value(row, self.measure.on(split))

    def limit(self, split: str = "test") -> float | None:
        """The bound as a figure; None where it is relative and no float network was measured."""
        if not self.relative:
            return self.bound
        figure = self.floats.get(split)
        return None if figure is None else figure + self.bound

    def holds(self, figure: float, split: str = "test") -> bool:
        """Whether a figure is within the bound."""
        limit = self.limit(split)
        return limit is not None and _OPERATORS[self.sign](figure, limit)

    def miss(self, row: Row, split: str = "test") -> float:
        """By how much the row fails; 0 where it does not, infinite where it has no figure."""
        found, limit = self.of(row, split), self.limit(split)
        if found is None or limit is None:
            return float("inf")
        return 0.0 if self.holds(found, split) else abs(found - limit)

    def is_met(self, row: Row, split: str = "test") -> bool:
        """Whether the row's figure is there and within the bound."""
        found = self.of(row, split)
        return found is not None and self.holds(found, split)

    def relative_miss(self, row: Row, split: str = "test") -> float:
        """``miss`` in parts of the bound, to compare misses of different metrics."""
        return self.miss(row, split) / (abs(self.limit(split) or 0.0) or 1.0)


@dataclass(frozen=True)
class Target:
    """What is wanted: bounds that must hold, and the measure that decides among the cells that keep them."""

    constraints: tuple[Constraint, ...]
    objective: Measure

    @property
    def of_processor(self) -> bool:
        """Whether a latency is asked for: then each processor has an answer of its own."""
        return any(measure.of_processor for measure in (self.objective, *(one.measure for one in self.constraints)))

    def __str__(self) -> str:
        verb = "maximize" if self.objective.higher_is_better else "minimize"
        return ", ".join([*map(str, self.constraints), f"{verb} {self.objective.key}"])

    def resolved(self, rows: Sequence[Row]) -> "Target":
        """The target with the figures of the float network that relative bounds are offsets from."""
        floats = [row for row in over_seeds(rows) if row["method"] == "fp32" and row["status"] == "ok"]
        root = next((row for row in floats if not row.get("fuse_bn")), floats[0] if floats else {})
        return replace(
            self,
            constraints=tuple(
                replace(one, floats={split: one.of(root, split) for split in _SPLITS}) if one.relative else one
                for one in self.constraints
            ),
        )


def parse_target(text: str, measures: Measures = DEPTH) -> Target:
    """Read a target; without an objective the headline decides. Raises InputError that names the wrong part."""
    constraints, objectives = [], []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if found := _CONSTRAINT.fullmatch(part):
            metric, sign, bound = found.groups()
            constraints.append(_constraint(part, metric, sign, bound, measures))
        elif found := _OBJECTIVE.fullmatch(part):
            verb, metric = found.groups()
            better = "maximize" if _known(metric, measures).higher_is_better else "minimize"
            if verb != better:
                raise InputError("--target", f"{part!r} asks for the worst", f"{better} {metric}")
            objectives.append(metric)
        else:
            raise InputError("--target", f"{part!r} is neither a bound nor an objective", _FORM)
    if len(objectives) > 1:
        problem = f"{' and '.join(objectives)} cannot both decide"
        raise InputError("--target", problem, "one objective", "Give the other one a bound.")
    return Target(tuple(constraints), measures.named[objectives[0]] if objectives else measures.headline)


def _constraint(part: str, metric: str, sign: str, bound: str, measures: Measures) -> Constraint:
    measure = _known(metric, measures)
    if found := _RELATIVE.fullmatch(bound):
        direction, offset = found.groups()
        amount = _number(part, offset) if offset else 0.0
        return Constraint(measure, sign, -amount if direction == "-" else amount, relative=True)
    return Constraint(measure, sign, _number(part, bound))


def _known(metric: str, measures: Measures) -> Measure:
    if metric not in measures.named:
        options = f"one of {', '.join(measures.named)}"
        raise InputError("--target", f"{metric!r} is an unknown metric", options, nearest(metric, measures.named))
    return measures.named[metric]


def _number(part: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not abs(number) < float("inf"):
        raise InputError("--target", f"{part!r} holds no number behind its sign", "a finite number")
    return number
