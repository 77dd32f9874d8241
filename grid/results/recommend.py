"""Which cell to take: a target against the rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from grid.results.processors import APART, by_processor, is_elsewhere
from grid.results.ranking import (
    LATENCY,
    SIZE,
    SSIM,
    Measure,
    Row,
    best,
    contenders,
    is_int8,
    over_seeds,
    pareto_front,
    processor_of,
    recipe_of,
    seed_spread,
    value,
)
from grid.results.target import METRICS, Target


@dataclass(frozen=True)
class Recommendation:
    """The cell to take (None: no cell keeps all bounds) and the sentences that say why.

    ``by_processor`` holds the answer for each CPU model where the target asks for a latency and there are several; then
    ``cell`` is None unless all of them name the same network.
    """

    target: Target
    cell: str | None
    reasons: tuple[str, ...]
    front: tuple[str, ...]
    by_processor: Mapping[str, "Recommendation"] = field(default_factory=dict)

    @property
    def refusal(self) -> str:
        """Why there is not one cell to register; empty where there is."""
        if self.cell:
            return ""
        if not self.by_processor:
            return f"no cell keeps {self.target}"
        named = (f"{one.cell or 'no cell'} on {name}" for name, one in self.by_processor.items())
        return f"the processors do not agree on {self.target}: {', '.join(named)}"


def recommend(rows: Sequence[Row], target: Target) -> Recommendation:
    """The int8 cell that keeps all bounds and is best in the objective.

    Cells that tie in it are told apart by SSIM, then size, then latency, again but for ties; cells of several seeds
    count as one with their means. Where int8 latencies are of several processors a target that asks for a latency has
    an answer for each, from the cells that were timed there.
    """
    views = by_processor(rows)
    if not target.of_processor or len(views) == 1:
        return _answer(rows, target)
    there = {name: [row for row in view if not is_elsewhere(row)] for name, view in views.items()}
    answers = {name: _here(views[name], view, target) for name, view in there.items() if contenders(view)}
    if not answers:
        return _answer(rows, target)
    first, *others = answers.values()
    if not others:
        return first
    agreed = first.cell and len({_network(rows, one.cell) for one in answers.values()}) == 1
    said = "Each has its own answer, " + ("the same network." if agreed else "and they are not one network.")
    front = tuple(dict.fromkeys(cell for one in answers.values() for cell in one.front))
    return Recommendation(target, first.cell if agreed else None, (f"{APART} {said}",), front, answers)


def front_of(rows: Sequence[Row]) -> list[str]:
    """The int8 cells on the Pareto front of SSIM, size and latency."""
    return pareto_front(contenders(over_seeds(rows)), (SSIM, SIZE, LATENCY))


def _here(view: Sequence[Row], timed: Sequence[Row], target: Target) -> Recommendation:
    """The answer of one processor, which says how many cells it leaves out."""
    found, whole = _answer(timed, target), len(contenders(over_seeds(view)))
    left_out = whole - len(contenders(over_seeds(timed)))
    told = f"Not considered, as not timed on this processor: {left_out} of {whole} int8 cells."
    return replace(found, reasons=(*found.reasons, told) if left_out else found.reasons)


def _network(rows: Sequence[Row], cell: str | None) -> str | None:
    return cell and (first_member(rows, cell).get("graph_hash") or cell)


def _answer(rows: Sequence[Row], target: Target) -> Recommendation:
    views = by_processor(rows)
    candidates = contenders(over_seeds(rows))
    front = tuple(dict.fromkeys(cell for view in views.values() for cell in front_of(view)))
    kept = [row for row in candidates if all(one.is_met(row) for one in target.constraints)]
    objective = METRICS[target.objective]
    best_first, steps = kept, []
    for measure in (objective, *(measure for measure in (SSIM, SIZE, LATENCY) if measure is not objective)):
        names = _best_cells(best_first, measure, views.values() if measure.of_processor else [rows])
        if names:
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
    timed_on = f" on {processor_of(chosen)}" if len(views) > 1 and processor_of(chosen) else ""
    reasons = [f"{kept_by if target.constraints else 'It has'} {_figures(chosen, target)}{timed_on}."]
    if steps:
        reasons.append(f"Decided by {', then '.join(steps)}; what ties goes on to the next.")
    if len(best_first) > 1:
        reasons.append(_tied(best_first, chosen, rows))
    reasons += _rejected(candidates, kept, target)
    reasons += _float(rows, chosen, target, objective)
    return Recommendation(target, chosen["cell"], tuple(reasons), front)


def _best_cells(left: Sequence[Row], measure: Measure, views: Iterable[Sequence[Row]]) -> set[str]:
    """The cells of ``left`` that are best in a view, or tie with that."""
    cells, names = {row["cell"] for row in left}, set[str]()
    for view in views:
        there = [row for row in over_seeds(view) if row["cell"] in cells]
        if found := best(there, measure, seed_spread(view, measure.column)):
            names |= {found[0], *found[1]}
    return names


def _tied(left: Sequence[Row], chosen: Row, rows: Sequence[Row]) -> str:
    """What nothing tells apart: ties in all measures, or latencies of several processors."""
    cells = {row["cell"] for row in left}
    others = _some([f"`{row['cell']}`" for row in left if row is not chosen])
    if len(by_processor([row for row in rows if is_int8(row) and recipe_of(row["cell"]) in cells])) > 1:
        return f"Not told apart from {others}, timed on several processors: the higher SSIM is taken. {APART}"
    return f"A tie in all of them with {others}: the higher SSIM is taken, which may be noise."


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
