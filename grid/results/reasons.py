"""Why a cell is recommended, and what stood in the way of the others: sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grid.results.bounds import BROKEN, PROBABLY, SURELY, best_by
from grid.results.comparisons.comparison import ESTIMATES, Comparison, compare
from grid.results.comparisons.evidence import Evidence
from grid.results.comparisons.groups import best
from grid.results.comparisons.image_tables import TEST
from grid.results.measures import Measures
from grid.results.processors import APART, by_processor
from grid.results.ranking import Row, is_int8, over_seeds, processor_of, processors, recipe_of, value
from grid.results.target import Target


@dataclass(frozen=True)
class Choice:
    """The chosen row, those as good (it is one of them), how many as good were trained and so left out.

    ``steps`` say which measures told rows apart, ``untrained`` are cells that are their start under another name,
    ``states`` whether each cell keeps the bounds, ``split`` the images.
    """

    chosen: Row
    left: tuple[Row, ...]
    trained: int
    steps: tuple[str, ...]
    untrained: tuple[str, ...]
    states: Mapping[str, int]
    split: str


def reasons_for(
    choice: Choice, candidates: Sequence[Row], target: Target, evidence: Evidence, ships: str | None
) -> tuple[str, ...]:
    """The sentences behind a choice."""
    chosen, rows, split = choice.chosen, evidence.rows, choice.split
    timed_on = f" on {processor_of(chosen)}" if len(processors(rows)) > 1 and processor_of(chosen) else ""
    reasons = [f"{_kept_by(choice, target)} {_figures(chosen, target, split, evidence.measures)}{timed_on}."]
    if choice.steps:
        reasons.append(f"Decided by {', then '.join(choice.steps)}; what is as good goes on to the next.")
    if choice.trained:
        reasons.append(_cheapest(choice, candidates, target, evidence))
    if len(choice.left) > 1:
        reasons.append(_tied(choice, rows))
    if choice.untrained:
        named = _some([f"`{cell}`" for cell in choice.untrained])
        reasons.append(f"Left out, as training changed nothing and each is its start under another name: {named}.")
    reasons += _rejected(candidates, choice, target)
    reasons += _float(evidence, chosen, target, split)
    reasons += _seeds(chosen, ships)
    if split == TEST:
        reasons.append("There are no validation figures: it was chosen on the test images, which flatters it.")
    return (*reasons, *_missing(rows))


def _kept_by(choice: Choice, target: Target) -> str:
    if not target.constraints:
        return "It has"
    states = list(choice.states.values())
    state = choice.states[choice.chosen["cell"]]
    count = sum(one >= state for one in states)
    word = "keep" if state == SURELY else "probably keep"
    return f"{count} of {len(states)} int8 cells {word} {_bounds(target)}: it has"


def _bounds(target: Target) -> str:
    return " and ".join(map(str, target.constraints))


def _figures(row: Row, target: Target, split: str, measures: Measures) -> str:
    """The figures that chose, and behind them those of the test images."""
    asked = [*(one.measure for one in target.constraints), target.objective, *measures.deciding]
    parts = []
    for measure in dict.fromkeys(asked):
        figure, test = value(row, measure.on(split)), value(row, measure.column)
        if figure is not None:
            beside = (
                f" (validation; test {_short(test)})" if measure.by_image and split != TEST and test is not None else ""
            )
            parts.append(f"{measure.key} {_short(figure)}{beside}")
    return ", ".join(parts)


def _short(number: float) -> str:
    return f"{number:.4g}"


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _cheapest(choice: Choice, candidates: Sequence[Row], target: Target, evidence: Evidence) -> str:
    """That training does not pay, and how the chosen one compares with the best estimate."""
    objective = target.objective
    first = best_by([row for row in candidates if choice.states[row["cell"]] != BROKEN], objective, choice.split)
    said = f"It needs no training, and {choice.trained} trained cells are no better by a test: the cheapest is taken."
    if first is choice.chosen or first["method"] == "ptq":
        return said
    (found,) = compare(evidence, [(choice.chosen["cell"], first["cell"])], objective, choice.split) or (None,)
    return f"{said} {_compared(found)}" if found else said


def _compared(found: Comparison) -> str:
    """One comparison in a sentence."""
    interval = "" if found.low is None or found.high is None else f" [{found.low:+.4g}, {found.high:+.4g}]"
    word = "by estimate" if found.scope == ESTIMATES else found.verdict
    if needed := str(found.needed):
        word += f" ({needed} would decide)"
    return (
        f"Against the best estimate in {found.measure.name}, `{found.other}`: {found.estimate:+.4g}{interval}, {word}."
    )


def _tied(choice: Choice, rows: Sequence[Row]) -> str:
    """What nothing tells apart: no measure, or latencies of several processors."""
    cells = {row["cell"] for row in choice.left}
    others = _some([f"`{row['cell']}`" for row in choice.left if row is not choice.chosen])
    if len(by_processor([row for row in rows if is_int8(row) and recipe_of(row["cell"]) in cells])) > 1:
        return f"Not told apart from {others}, timed on several processors: the best estimate is taken. {APART}"
    return f"A tie in all of them with {others}: the best estimate is taken, which may be noise."


def _rejected(candidates: Sequence[Row], choice: Choice, target: Target) -> list[str]:
    """How many keep the bounds by estimate alone beside those that surely do, and how far the nearest breach was."""
    lines, split = [], choice.split
    if choice.states[choice.chosen["cell"]] == SURELY:
        probably = [f"`{row['cell']}`" for row in candidates if choice.states[row["cell"]] == PROBABLY]
        if probably:
            lines.append(f"Passed over, as their intervals reach beyond a bound: {_some(probably)}.")
    out = [row for row in candidates if choice.states[row["cell"]] == BROKEN]
    if out:
        row = min(out, key=lambda row: sum(one.relative_miss(row, split) for one in target.constraints))
        lines.append(f"Nearest rejected: `{row['cell']}`, {_misses(row, target, split)}.")
    return lines


def _misses(row: Row, target: Target, split: str) -> str:
    parts = []
    for one in target.constraints:
        found = one.of(row, split)
        if found is None:
            parts.append(f"no figure for {one.metric}")
        elif not one.is_met(row, split):
            parts.append(f"{one.metric} {_short(found)} misses {one} by {_short(one.miss(row, split))}")
    return ", ".join(parts)


def unmet(candidates: Sequence[Row], target: Target, rows: Sequence[Row], split: str) -> tuple[str, ...]:
    """Which bounds no cell keeps, each with the best there is; else which cell comes nearest to all of them."""
    lines = []
    for one in target.constraints:
        if not any(one.is_met(row, split) for row in candidates):
            row = min(candidates, key=lambda row: one.miss(row, split))
            missed = _misses(row, Target((one,), target.objective), split)
            lines.append(f"No cell keeps {one}: best is `{row['cell']}`, {missed}.")
    if not lines:
        lines.append("Each bound is kept by some cell, all of them together by none.")
    row = min(candidates, key=lambda row: sum(one.relative_miss(row, split) for one in target.constraints))
    return (*lines, f"Nearest to all: `{row['cell']}`, {_misses(row, target, split)}.", *_missing(rows))


def _float(evidence: Evidence, chosen: Row, target: Target, split: str) -> list[str]:
    """Whether a float network would have been the better answer, which int8 alone does not show."""
    objective = target.objective
    floats = [row for row in over_seeds(evidence.rows) if row["method"] == "fp32"]
    floats = [row for row in floats if all(one.is_met(row, split) for one in target.constraints)]
    found = best([chosen, *floats], objective, evidence, split)
    if found is None or chosen["cell"] in (found[0], *found[1]):
        return []
    row = next(row for row in floats if row["cell"] == found[0])
    figure = _short(float(row[objective.on(split)]))
    return [f"The float network `{row['cell']}` keeps the bounds too and is better in {objective.name}: {figure}."]


def _seeds(chosen: Row, ships: str | None) -> list[str]:
    """What the mean over seeds hides: seeds without figures, and which network there is to ship."""
    seeds, planned = int(chosen.get("seeds") or 1), int(chosen.get("seeds_planned") or 1)
    lines = [f"Its figures are those of {seeds} of {planned} seeds."] if seeds < planned else []
    if planned > 1:
        lines.append(f"The network to ship is `{ships}`." if ships else "None of its networks keeps the bounds itself.")
    return lines


def _missing(rows: Sequence[Row]) -> list[str]:
    """How many int8 cells have no figures, and why."""
    planned = [row for row in rows if row["method"] != "fp32" and row["status"] != "excluded"]
    statuses = (("failed", "failed"), ("skipped", "were skipped"))
    counts = [(sum(row["status"] == status for row in planned), word) for status, word in statuses]
    parts = [f"{count} {word}" for count, word in counts if count]
    return [f"Of {len(planned)} int8 cells {' and '.join(parts)}: nothing is known of them."] if parts else []
