"""Which cell to take: a target against the rows. Validation chooses; the test figures stand beside."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from grid.results.bounds import BROKEN, PROBABLY, SURELY, best_by, kept
from grid.results.comparisons.evidence import Evidence
from grid.results.comparisons.groups import as_good, best, pareto_front
from grid.results.comparisons.image_tables import TEST, VALIDATION
from grid.results.processors import APART, by_processor, is_elsewhere
from grid.results.ranking import Measure, Row, contenders, is_int8, over_seeds, recipe_of, value
from grid.results.reasons import Choice, reasons_for, unmet
from grid.results.target import Target
from grid.results.untrained import without_untrained


@dataclass(frozen=True)
class Recommendation:
    """The cell to take (None: no cell keeps all bounds) and the sentences that say why.

    Of a recipe with several seeds, ``ships`` is the cell whose network keeps the bounds itself (None: none does).
    ``by_processor`` holds the answer for each CPU model where the target asks for a latency and there are several; then
    ``cell`` is None unless all of them name the same network.
    """

    target: Target
    cell: str | None
    reasons: tuple[str, ...]
    front: tuple[str, ...]
    by_processor: Mapping[str, "Recommendation"] = field(default_factory=dict)
    ships: str | None = None

    @property
    def refusal(self) -> str:
        """Why there is not one network to register; empty where there is."""
        if self.ships:
            return ""
        if self.cell:
            return f"no network of {self.cell} keeps {self.target} by itself"
        if not self.by_processor:
            return f"no cell keeps {self.target}"
        named = (f"{one.cell or 'no cell'} on {name}" for name, one in self.by_processor.items())
        return f"the processors do not agree on {self.target}: {', '.join(named)}"


def recommend(rows: Sequence[Row], target: Target, evidence: Evidence | None = None) -> Recommendation:
    """The int8 cell that keeps all bounds and is best in the objective, both on the validation images.

    Cells as good in it are told apart by the task's headline, then size, then latency, and then the one without
    training is taken. Where the task has a monitor the headline leaves all that a test does not tell from its best, and
    the monitor goes on from there. Cells of several seeds count as one with their means. Where int8 latencies are of
    several processors a target that asks for a latency has an answer for each, from the cells that were timed there.
    """
    evidence = (evidence or Evidence()).of(rows)
    target = target.resolved(rows)
    views = by_processor(rows)
    if not target.of_processor or len(views) == 1:
        return _answer(evidence, target)
    there = {name: [row for row in view if not is_elsewhere(row)] for name, view in views.items()}
    answers = {name: _here(evidence, views[name], view, target) for name, view in there.items() if contenders(view)}
    if not answers:
        return _answer(evidence, target)
    first, *others = answers.values()
    if not others:
        return first
    agreed = first.cell and len({_network(rows, one.cell) for one in answers.values()}) == 1
    said = "Each has its own answer, " + ("the same network." if agreed else "and they are not one network.")
    front = tuple(dict.fromkeys(cell for one in answers.values() for cell in one.front))
    reasons = (f"{APART} {said}",)
    return Recommendation(
        target, first.cell if agreed else None, reasons, front, answers, first.ships if agreed else None
    )


def front_of(rows: Sequence[Row], evidence: Evidence | None = None) -> list[str]:
    """The int8 cells on the Pareto front of the headline, size and latency."""
    evidence = (evidence or Evidence()).of(rows)
    return pareto_front(contenders(over_seeds(rows)), evidence.measures.front, evidence)


def first_member(rows: Sequence[Row], cell: str) -> Row:
    """The row of a recommended cell; of a recipe with several seeds that of the first one."""
    return next(row for row in rows if is_int8(row) and recipe_of(row["cell"]) == cell)


def _here(evidence: Evidence, view: Sequence[Row], timed: Sequence[Row], target: Target) -> Recommendation:
    """The answer of one processor, which says how many cells it leaves out."""
    found, whole = _answer(evidence.of(timed), target), len(contenders(over_seeds(view)))
    left_out = whole - len(contenders(over_seeds(timed)))
    told = f"Not considered, as not timed on this processor: {left_out} of {whole} int8 cells."
    return replace(found, reasons=(*found.reasons, told) if left_out else found.reasons)


def _network(rows: Sequence[Row], cell: str | None) -> str | None:
    return cell and (first_member(rows, cell).get("graph_hash") or cell)


def _answer(evidence: Evidence, target: Target) -> Recommendation:
    views = by_processor(evidence.rows)
    candidates = contenders(over_seeds(evidence.rows))
    front = tuple(dict.fromkeys(cell for view in views.values() for cell in front_of(view, evidence)))
    if not candidates:
        return Recommendation(target, None, ("No int8 network was measured.",), ())
    headline = evidence.measures.headline
    split = VALIDATION if all(value(row, headline.on(VALIDATION)) is not None for row in candidates) else TEST
    states = kept(candidates, target, evidence, split)
    state = max(states.values())
    if state == BROKEN:
        return Recommendation(target, None, unmet(candidates, target, evidence.rows, split), front)
    keeping = [row for row in candidates if states[row["cell"]] == state]
    trained = without_untrained(keeping, candidates)
    left, steps = _decide(trained, target, evidence, views.values(), split)
    cheapest = [row for row in left if row["method"] == "ptq"] or left
    objective = target.objective if target.objective.by_image else headline
    chosen = best_by(cheapest, evidence.measures.choosing(objective, cheapest, split), split)
    untrained = tuple(row["cell"] for row in keeping if row not in trained)
    choice = Choice(chosen, tuple(cheapest), len(left) - len(cheapest), tuple(steps), untrained, states, split)
    ships = _shipped(evidence, chosen["cell"], target, split)
    reasons = reasons_for(choice, candidates, target, evidence, ships)
    return Recommendation(target, chosen["cell"], reasons, front, ships=ships)


def _decide(
    rows: Sequence[Row], target: Target, evidence: Evidence, views: Iterable[Sequence[Row]], split: str
) -> tuple[list[Row], list[str]]:
    """The rows as good as the best in the objective, then headline, monitor, size, latency; and what told apart."""
    left, steps = list(rows), list[str]()
    for measure in dict.fromkeys((target.objective, *evidence.measures.deciding)):
        names = _best_cells(left, measure, views if measure.of_processor else [evidence.rows], evidence, split)
        if names:
            fewer = [row for row in left if row["cell"] in names]
            if len(fewer) < len(left):
                steps.append(f"{measure.name} ({len(fewer)} of {len(left)} left)")
            left = fewer
    return left, steps


def _best_cells(
    left: Sequence[Row], measure: Measure, views: Iterable[Sequence[Row]], evidence: Evidence, split: str
) -> set[str]:
    """The cells of ``left`` that are as good as the best in a view.

    In a headline with a monitor that is all that no test tells from the best: the monitor's estimate decides.
    """
    cells, names = {row["cell"] for row in left}, set[str]()
    monitored = evidence.measures.choosing(measure, left, split) != measure
    for view in views:
        there = [row for row in over_seeds(view) if row["cell"] in cells]
        if found := (best if monitored else as_good)(there, measure, evidence.of(view), split):
            names |= {found[0], *found[1]}
    return names


def _shipped(evidence: Evidence, recipe: str, target: Target, split: str) -> str | None:
    """The cell of a recipe whose network keeps the bounds itself, as surely as can be, and is best in the objective."""
    members = [row for row in evidence.rows if is_int8(row) and recipe_of(row["cell"]) == recipe]
    states = kept(members, target, evidence, split)
    for state in (SURELY, PROBABLY):
        if keeping := [row for row in members if states[row["cell"]] == state]:
            return str(best_by(keeping, evidence.measures.choosing(target.objective, keeping, split), split)["cell"])
    return None
