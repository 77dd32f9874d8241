"""Which cell to take, why, where its network is, and what else is worth a look."""

from collections.abc import Sequence

from grid.report.cells import in_sentence, on_processor
from grid.report.document import Block, Code, Items, Paragraph, Section, Spans, Strong, spans
from grid.report.formats import DASH, figure_text, ratio_text
from grid.report.inputs import ReportInputs
from grid.results.comparisons.evidence import Evidence
from grid.results.comparisons.groups import best
from grid.results.processors import by_processor
from grid.results.ranking import (
    LATENCY,
    SIZE,
    Measure,
    Row,
    contenders,
    is_int8,
    over_seeds,
    processor_of,
    processors,
    recipe_of,
    value,
)
from grid.results.recommend import Recommendation

MOST_ON_FRONT = 12


def recommendation(inputs: ReportInputs) -> Section:
    """Return the answer to the target; with a target on latency and several processors each of them has its own."""
    answer, views, headline = inputs.answer, by_processor(inputs.rows), inputs.measures.headline
    blocks: list[Block] = []
    if answer.by_processor:
        blocks += [Paragraph(spans(reason)) for reason in answer.reasons]
        for name, one in answer.by_processor.items():
            there = (*_answer(one, views[name], headline), *_front(one.front, views[name], headline))
            blocks.append(Section((f"On {name}",), there))
    else:
        blocks += _answer(answer, inputs.rows, headline)
        for name, view in views.items():
            blocks += _front(inputs.fronts[name], view, headline, on_processor(name if len(views) > 1 else None))
    if claims := _claims(inputs.evidence):
        title = "By one figure alone"
        items = Items(tuple(claims))
        blocks += [Section((title,), (items,))] if answer.by_processor else [Paragraph((f"{title}:",)), items]
    return Section(("Recommendation",), tuple(blocks))


def _answer(answer: Recommendation, rows: Sequence[Row], headline: Measure) -> list[Block]:
    """Which cell to take, and the reasons."""
    target = Code(str(answer.target))
    if answer.cell is None:
        sentence: Spans = (Strong(("No cell to take",)), " for ", target, ".")
    else:
        chosen = next(row for row in over_seeds(rows) if row["cell"] == answer.cell)
        figures = _figures(chosen, rows, headline, _float_figure(rows, headline))
        sentence = (Strong(("Take ", Code(answer.cell))), " for ", target, f": {figures}.")
    lines = [spans(reason) for reason in answer.reasons] + (_models(rows, answer.cell) if answer.cell else [])
    return [Paragraph(sentence), Items(tuple(lines))]


def _models(rows: Sequence[Row], recipe: str) -> list[Spans]:
    """Where the networks of a recipe are, one a seed."""
    members = [row for row in rows if is_int8(row) and recipe_of(row["cell"]) == recipe]
    places = [(f" (seed {row.get('seed')})" if len(members) > 1 else "", row.get("artifact")) for row in members]
    return [(f"Its network{seed}: ", Code(str(place))) for seed, place in places if place]


def _front(front: Sequence[str], rows: Sequence[Row], headline: Measure, where: str = "") -> list[Block]:
    """The cells on the Pareto front, the most accurate first; nothing without any."""
    if not front:
        return []
    names = set(front)
    members = [row for row in over_seeds(rows) if row["cell"] in names]
    ordered = sorted(members, key=lambda row: -headline.gain(row))
    lines: list[Spans] = [
        (Code(row["cell"]), f": {_figures(row, ordered, headline)}") for row in ordered[:MOST_ON_FRONT]
    ]
    if len(ordered) > MOST_ON_FRONT:
        lines.append((f"and {len(ordered) - MOST_ON_FRONT} more, ringed in the figure.",))
    text = (
        f"On the Pareto front of test {headline.title}, size and latency{where} (no other int8 cell is better by a "
        "test in one of them and as good in the others):"
    )
    return [Paragraph((text,)), Items(tuple(lines))]


def _float_figure(rows: Sequence[Row], headline: Measure) -> float | None:
    floats = over_seeds(row for row in rows if row["method"] == "fp32")
    return value(next((row for row in floats if not row["fuse_bn"]), {}), headline.column)


def _figures(row: Row, rows: Sequence[Row], headline: Measure, of_float: float | None = None) -> str:
    """Headline, size and latency of a row in words; the processor too, where latencies of ``rows`` are of several."""
    ours = value(row, headline.column)
    text = f"test {headline.title} {figure_text(row, headline.column)}"
    if ours is not None and of_float is not None:
        text += f" (float {of_float:.4f}, {ours - of_float:+.4f})"
    text += f", {figure_text(row, SIZE.column)} MB"
    if ratio_text(row) == DASH:
        return text
    where = on_processor(processor_of(row) if len(processors(rows)) > 1 else None)
    return f"{text}, {ratio_text(row)} the float latency{where}"


def _claims(evidence: Evidence) -> list[Spans]:
    """The best cell by each figure alone, one sentence a figure that is known."""
    views, headline = by_processor(evidence.rows), evidence.measures.headline
    claims = ((headline, "Most accurate"), (SIZE, "Smallest"))
    lines = [_best_line(measure, claim, evidence) for measure, claim in claims]
    for name, view in views.items():
        lines.append(_best_line(LATENCY, "Fastest", evidence.of(view), name if len(views) > 1 else ""))
    return [line for line in lines if line]


def _best_line(measure: Measure, claim: str, evidence: Evidence, processor: str = "") -> Spans | None:
    rows = evidence.rows
    candidates = contenders(over_seeds(rows))
    first_and_ties = best(candidates, measure, evidence)
    if first_and_ties is None:
        return None
    names = {first_and_ties[0], *first_and_ties[1]}
    tied = [row for row in candidates if row["cell"] in names]
    # Among equally small or fast cells the interesting one is the most accurate.
    headline = evidence.measures.headline
    row = max(tied, key=headline.gain)
    figures = _figures(row, rows, headline, _float_figure(rows, headline))
    others = [Code(other["cell"]) for other in tied if other is not row]
    of_several = f" ({len(tied)} are not told apart; of these the one with the best {headline.title})" if others else ""
    sentence: Spans = (f"{claim} int8{on_processor(processor)}{of_several}: ", Code(row["cell"]), f", {figures}.")
    return (*sentence, " The others: ", *in_sentence(others), ".") if others else sentence
