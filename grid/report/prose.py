"""The paragraphs of a report: which cell to take, how to read the tables, what to trust, how to repeat it."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from grid.report import tables
from grid.report.tables import DASH, plain, ratio_text, shown
from grid.results.processors import APART, by_processor
from grid.results.ranking import (
    LATENCY,
    MEASURES,
    SIZE,
    SSIM,
    UNKNOWN,
    Measure,
    Row,
    best,
    contenders,
    is_int8,
    over_seeds,
    processor_of,
    processors,
    recipe_of,
    seed_spread,
    several_seeds,
    value,
)
from grid.results.recommend import Recommendation, Target, front_of, recommend
from grid.secrets import masked

MOST_ON_FRONT = 12


def opening(rows: Sequence[Row], context: Mapping[str, Any]) -> str:
    """Return how many cells there are in which state, and what their figures are figures of."""
    counts = Counter(row["status"] for row in rows)
    order = sorted(counts, key=lambda status: (status != "ok", status))
    states = ", ".join(f"{counts[status]} {status}" for status in order)
    return (
        f"{len(rows)} cells: {states}. Data: {plain(context['origin'])}, {context['test_images']} test images. "
        "Figures are those of the network that ships (int8 on its engine, on the CPU), over all test images."
    )


def recommendation(rows: Sequence[Row], target: Target) -> str:
    """Return which cell to take for ``target``, why, where its network is, what else is worth a look.

    With a target on latency and several processors each of them has a section.
    """
    found, views = recommend(rows, target), by_processor(rows)
    if found.by_processor:
        parts = list(found.reasons)
        for name, answer in found.by_processor.items():
            parts += [f"### On {plain(name)}", *_answer(answer, views[name])]
            parts += _front(answer.front, views[name])
    else:
        parts = _answer(found, rows)
        for name, view in views.items():
            parts += _front(front_of(view), view, f" on {plain(name)}" if len(views) > 1 else "")
    if claims := _claims(rows):
        parts += ["### By one figure alone" if found.by_processor else "By one figure alone:", _items(claims)]
    return "\n\n".join(parts)


def _answer(found: Recommendation, rows: Sequence[Row]) -> list[str]:
    """Which cell to take, and the reasons."""
    if found.cell is None:
        told = f"**No cell to take** for `{found.target}`."
    else:
        chosen = next(row for row in over_seeds(rows) if row["cell"] == found.cell)
        told = f"**Take `{plain(found.cell)}`** for `{found.target}`: {_figures(chosen, rows, _float_ssim(rows))}."
    lines = [plain(reason) for reason in found.reasons] + (_models(rows, found.cell) if found.cell else [])
    return [told, _items(lines)]


def _items(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _models(rows: Sequence[Row], recipe: str) -> list[str]:
    """Where the networks of a recipe are, one a seed."""
    members = [row for row in rows if is_int8(row) and recipe_of(row["cell"]) == recipe]
    places = [(f" (seed {row.get('seed')})" if len(members) > 1 else "", row.get("artifact")) for row in members]
    return [f"Its network{seed}: `{plain(place)}`" for seed, place in places if place]


def _front(front: Sequence[str], rows: Sequence[Row], where: str = "") -> list[str]:
    """The cells on the Pareto front, the most accurate first; nothing without any."""
    if not front:
        return []
    members = [row for row in over_seeds(rows) if row["cell"] in front]
    ordered = sorted(members, key=lambda row: -(value(row, SSIM.column) or 0.0))
    lines = [f"`{plain(row['cell'])}`: {_figures(row, ordered)}" for row in ordered[:MOST_ON_FRONT]]
    if len(ordered) > MOST_ON_FRONT:
        lines.append(f"and {len(ordered) - MOST_ON_FRONT} more, ringed in the figure.")
    text = (
        f"On the Pareto front of SSIM, size and latency{where} (no other int8 cell is better by more than a tie in one "
        "of them and worse in none):"
    )
    return [text, _items(lines)]


def _float_ssim(rows: Sequence[Row]) -> float | None:
    baseline = next((row for row in over_seeds(rows) if row["method"] == "fp32" and not row["fuse_bn"]), {})
    return value(baseline, SSIM.column)


def _figures(row: Row, rows: Sequence[Row], float_ssim: float | None = None) -> str:
    """SSIM, size and latency of a row in words; the processor too, where latencies of ``rows`` are of several."""
    ours = value(row, SSIM.column)
    text = f"SSIM {shown(row, SSIM.column)}"
    if ours is not None and float_ssim is not None:
        text += f" (float {float_ssim:.4f}, {ours - float_ssim:+.4f})"
    ratio = "" if ratio_text(row) == DASH else f", {ratio_text(row)} the float latency"
    on = f" on {plain(processor_of(row))}" if ratio and len(processors(rows)) > 1 else ""
    return f"{text}, {shown(row, SIZE.column)} MB{ratio}{on}"


def _claims(rows: Sequence[Row]) -> list[str]:
    views = by_processor(rows)
    lines = [_best_line(measure, claim, rows) for measure, claim in ((SSIM, "Most accurate"), (SIZE, "Smallest"))]
    lines += [_best_line(LATENCY, "Fastest", view, name if len(views) > 1 else "") for name, view in views.items()]
    return [line for line in lines if line]


def _best_line(measure: Measure, claim: str, rows: Sequence[Row], processor: str = "") -> str | None:
    candidates = contenders(over_seeds(rows))
    found = best(candidates, measure, seed_spread(rows, measure.column))
    if found is None:
        return None
    first, ties = found
    tied = [row for row in candidates if row["cell"] in (first, *ties)]
    # Among equally small or fast cells the interesting one is the most accurate.
    row = max(tied, key=lambda row: value(row, SSIM.column) or 0.0)
    where = f" on {plain(processor)}" if processor else ""
    text = f"{claim} int8{where}: `{plain(row['cell'])}`, {_figures(row, rows, _float_ssim(rows))}."
    others = [f"`{plain(other['cell'])}`" for other in tied if other is not row]
    if others:
        further = f" and {len(others) - 3} more" if len(others) > 3 else ""
        text += f" A tie in {measure.name} with {', '.join(others[:3])}{further}."
    return text


def legend(rows: Sequence[Row]) -> str:
    """Return how to read the main table."""
    noise = {measure.column: seed_spread(rows, measure.column) for measure in MEASURES}
    return (
        "**Bold**: best int8 value of its column; ≈: a tie with it "
        f"(differences up to {tables.tie_rules(MEASURES, noise)}). "
        "x float: latency over that of the float network, measured in turns in one process, batch 1; "
        f"below 1 is faster. {_timed_on(rows)}{DASH}: no figure. MSE and SSIM on depth / 10 m."
    )


def _timed_on(rows: Sequence[Row]) -> str:
    """Which processors the latencies are of."""
    names = [plain(name) for name in processors(rows)]
    if len(names) < 2:
        return "".join(f"Timed on: {name}. " for name in names if name != UNKNOWN)
    return f"Timed on {len(names)} processors: {'; '.join(names)}. {APART} "


def not_measured(rows: Sequence[Row]) -> str:
    """Return the full reasons, which the table shortens; nothing where every cell is ok."""
    return _items(
        [
            f"`{plain(row['cell'])}` {row['status']}: {plain(row.get('reason') or 'no reason given')}"
            for row in rows
            if row["status"] != "ok"
        ]
    )


def effects(rows: Sequence[Row]) -> str:
    """Return what each axis does, with its table."""
    text = (
        "Differences between int8 cells that are equal in every other axis. Pairs that are one and the same "
        "int8 network are counted as identical: there an axis has no effect at all. From three pairs on the mean "
        "difference of SSIM has a 95 % interval (Student's t over the pairs): where it holds 0, no effect is shown "
        "that all pairs share."
    )
    if not several_seeds(rows):
        text += (
            " With one seed the noise between runs is unknown: take small differences as open, "
            "or repeat with `--seeds 0,1,2`."
        )
    if len(processors(rows)) > 1:
        text += " Latencies are compared within one processor: a pair that was timed on two has no difference there."
    return f"{text}\n\n{tables.effects_table(rows)}"


def published(rows: Sequence[Row], theirs: Sequence[Mapping[str, Any]], context: Mapping[str, Any]) -> str:
    """Return our rows beside those of the published study, and why they compare only so far."""
    text = (
        f"Ours: {context['test_images']} test images, this machine. Theirs: the study's own test set, server and "
        "checkpoint; its latency is the same profiler figure, but times of two machines do not compare. "
        "Its QAT rows were trained without fake quantization, its per-channel and per-tensor arms also differ "
        "in observer and range, and depth beyond 10 m wrapped to 0 in its test loader."
    )
    return f"{text}\n\n{tables.published_table(rows, theirs)}"


def trust(rows: Sequence[Row]) -> str:
    """Return how far simulation and int8 network are apart, with the table of what was checked."""
    gaps = [
        abs(real - simulated)
        for row in rows
        if is_int8(row)
        and (real := value(row, "test_ssim")) is not None
        and (simulated := value(row, "simulated_ssim")) is not None
    ]
    largest = f"largest gap {max(gaps):.4f}, mean {statistics.fmean(gaps):.4f}" if gaps else "not compared"
    twins = sum(bool(row.get("same_as")) for row in rows)
    text = (
        f"SSIM of the fake-quantized simulation against the int8 network on its engine: {largest}. "
        f"Cells that turned out to be the same int8 network as another cell: {twins}."
    )
    return f"{text}\n\n{tables.trust_table(rows)}"


def made(context: Mapping[str, Any]) -> str:
    """Return the facts of the run, without passwords."""
    return _items([f"{plain(name)}: `{plain(masked(str(fact)))}`" for name, fact in context.items()])


def commands(lines: Mapping[str, str]) -> str:
    """Return the command of each cell as one block to copy from, without passwords."""
    block = "\n".join(f"# {plain(cell)}\n{masked(command)}" for cell, command in lines.items())
    text = "The command that runs one cell of this grid; what is in the store already is not computed again."
    return f"{text}\n\n{_fenced(block)}"


def _fenced(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}sh\n{text}\n{fence}"
