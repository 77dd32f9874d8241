"""Results -> results.csv and report.md with its figures."""

import csv
import io
import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grid import analysis, figures, tables
from grid.ranking import (
    LATENCY,
    MEASURES,
    SIZE,
    SSIM,
    Measure,
    Row,
    best,
    contenders,
    is_int8,
    over_seeds,
    seed_spread,
    value,
)
from grid.tables import DASH, plain, ratio_text, shown
from grid.tracking_uri import masked

RESULT_COLUMNS = (
    "cell", "status", "reason", "fuse_bn", "granularity", "method", "engine", "encoder", "seed",
    "test_mse", "test_ssim", "test_abs_rel", "test_rmse_m", "test_delta1", "sqnr_db", "simulated_ssim",
    "float_sites", "size_mb", "latency_ms_p50", "latency_ms_p90", "latency_ratio", "latency_ratio_low",
    "latency_ratio_high", "profiler_step_ms", "graph_hash", "same_as", "train_s", "artifact", "mlflow_run_id",
)  # fmt: skip


def write_results_csv(rows: Sequence[Row], path: Path) -> Path:
    """Write the rows, RESULT_COLUMNS first and then whatever else they hold; the file is replaced at once.

    true and false are written small, a missing value as nothing.
    """
    further = sorted({key for row in rows for key in row} - set(RESULT_COLUMNS))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*RESULT_COLUMNS, *further])
    for row in rows:
        cells = [row.get(column) for column in (*RESULT_COLUMNS, *further)]
        writer.writerow([str(cell).lower() if isinstance(cell, bool) else cell for cell in cells])
    return _replace(path, text.getvalue())


def write_report(
    run_dir: Path,
    rows: Sequence[Row],
    context: Mapping[str, Any],
    published: Path | None = None,
    samples: Mapping[str, Path] | None = None,
    analyses: Mapping[str, Path] | None = None,
) -> Path:
    """Write ``report.md`` and its PNG files into ``run_dir`` and return its path.

    Every row is in the report, measured or not. ``context`` holds at least ``run``, ``origin`` (of the data) and
    ``test_images``; all of it is listed at the end. ``published`` is a CSV of another study's rows on NYUv2,
    shown beside ours only when the origin is one of NYUv2. ``samples`` maps cells to their ``samples.npz``,
    ``analyses`` to the folder of their per-layer analysis.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    seeds = {row.get("seed") for row in rows if is_int8(row)}
    parts = [f"# Grid {plain(context['run'])}", _headline(rows, context)]
    if len(seeds) > 1:
        parts += ["## Results over seeds", tables.seeds_table(rows), _legend(rows)]
        parts += ["## Results, cell by cell", tables.results(rows)]
    else:
        parts += ["## Results", tables.results(rows), _legend(rows)]
    parts += _not_measured(rows)
    plotted = over_seeds(rows) if len(seeds) > 1 else rows
    if figures.scatter(plotted, run_dir / "tradeoff.png"):
        text = "Numbers are those of the first results table; grey bars are 95 % intervals of the latency ratio. "
        text += "A cell is on a front when no other beats it by more than a tie."
        parts += ["## Accuracy against size and latency", "![SSIM against size and latency](tradeoff.png)", text]
    parts += ["## What each axis does", _effects(rows, len(seeds))]
    if published and str(context["origin"]).startswith("nyu"):
        parts += ["## Beside the published study", _published(rows, published, context)]
    if any(is_int8(row) for row in rows):
        parts += ["## Can the int8 figures be trusted?", _trust(rows), tables.trust_table(rows)]
    if analyses:
        parts += ["## Where the noise comes from", analysis.section(run_dir, analyses)]
    if figures.samples(samples or {}, rows, run_dir / "samples.png"):
        text = "Test pictures; all depth maps share one colour scale, all error maps another. "
        text += "Cells that are the same network as another one are left out."
        parts += ["## Predictions", text, "![Predictions and errors of each network](samples.png)"]
    if any(row["status"] == "ok" for row in rows):
        parts += ["## Further figures", tables.further_table(rows)]
    parts += ["## How this was made", _made(context)]
    return _replace(run_dir / "report.md", "\n\n".join(parts) + "\n")


def _headline(rows: Sequence[Row], context: Mapping[str, Any]) -> str:
    counts = Counter(row["status"] for row in rows)
    order = sorted(counts, key=lambda status: (status != "ok", status))
    states = ", ".join(f"{counts[status]} {status}" for status in order)
    lines = [
        f"{len(rows)} cells: {states}. Data: {context['origin']}, {context['test_images']} test images. "
        "Figures are those of the network that ships (int8 on its engine, on the CPU), over all test images."
    ]
    recipes = over_seeds(rows)
    candidates = contenders(recipes)
    for measure, claim in ((SSIM, "Most accurate"), (SIZE, "Smallest"), (LATENCY, "Fastest")):
        line = _best_line(measure, claim, candidates, recipes, seed_spread(rows, measure.column))
        lines += [line] if line else []
    if not candidates:
        lines.append("No int8 network was measured.")
    return "\n".join([lines[0], "", *(f"- {line}" for line in lines[1:])])


def _best_line(
    measure: Measure, claim: str, candidates: Sequence[Row], recipes: Sequence[Row], noise: float
) -> str | None:
    found = best(candidates, measure, noise)
    if found is None:
        return None
    first, ties = found
    tied = [row for row in candidates if row["cell"] in (first, *ties)]
    # Among equally small or fast cells the interesting one is the most accurate.
    row = max(tied, key=lambda row: value(row, "test_ssim") or 0.0)
    text = f"{claim} int8: `{plain(row['cell'])}`, SSIM {shown(row, 'test_ssim')}"
    baseline = next((row for row in recipes if row["method"] == "fp32" and not row["fuse_bn"]), {})
    ours, theirs = value(row, "test_ssim"), value(baseline, "test_ssim")
    if ours is not None and theirs is not None:
        text += f" (float {theirs:.4f}, {ours - theirs:+.4f})"
    ratio = "" if ratio_text(row) == DASH else f", {ratio_text(row)} the float latency"
    text += f", {shown(row, 'size_mb')} MB{ratio}."
    others = [f"`{plain(other['cell'])}`" for other in tied if other is not row]
    if others:
        further = f" and {len(others) - 3} more" if len(others) > 3 else ""
        text += f" A tie in {measure.name} with {', '.join(others[:3])}{further}."
    return text


def _legend(rows: Sequence[Row]) -> str:
    noise = {measure.column: seed_spread(rows, measure.column) for measure in MEASURES}
    return (
        "**Bold**: best int8 value of its column; ≈: a tie with it "
        f"(differences up to {tables.tie_rules(MEASURES, noise)}). "
        "x float: latency over that of the float network, measured in turns in one process, batch 1; "
        f"below 1 is faster. {DASH}: no figure. MSE and SSIM on depth / 10 m."
    )


def _not_measured(rows: Sequence[Row]) -> list[str]:
    """The full reasons, which the table shortens."""
    lines = [
        f"- `{plain(row['cell'])}` {row['status']}: {plain(row.get('reason') or 'no reason given')}"
        for row in rows
        if row["status"] != "ok"
    ]
    return ["## Cells without figures", "\n".join(lines)] if lines else []


def _effects(rows: Sequence[Row], seeds: int) -> str:
    text = (
        "Differences between int8 cells that are equal in every other axis. Pairs that are one and the same "
        "int8 network are counted as identical: there an axis has no effect at all."
    )
    if seeds == 1:
        text += (
            " With one seed the noise between runs is unknown: take small differences as open, "
            "or repeat with `--seeds 0,1,2`."
        )
    return f"{text}\n\n{tables.effects_table(rows)}"


def _published(rows: Sequence[Row], published: Path, context: Mapping[str, Any]) -> str:
    with open(published, newline="", encoding="utf-8") as file:
        theirs = list(csv.DictReader(file))
    text = (
        f"Ours: {context['test_images']} test images, this machine. Theirs: the study's own test set, server and "
        "checkpoint; its latency is the same profiler figure, but times of two machines do not compare. "
        "Its QAT rows were trained without fake quantization, its per-channel and per-tensor arms also differ "
        "in observer and range, and depth beyond 10 m wrapped to 0 in its test loader."
    )
    return f"{text}\n\n{tables.published_table(rows, theirs)}"


def _trust(rows: Sequence[Row]) -> str:
    gaps = [
        abs(real - simulated)
        for row in rows
        if is_int8(row)
        and (real := value(row, "test_ssim")) is not None
        and (simulated := value(row, "simulated_ssim")) is not None
    ]
    largest = f"largest gap {max(gaps):.4f}, mean {statistics.fmean(gaps):.4f}" if gaps else "not compared"
    twins = sum(bool(row.get("same_as")) for row in rows)
    return (
        f"SSIM of the fake-quantized simulation against the int8 network on its engine: {largest}. "
        f"Cells that turned out to be the same int8 network as another cell: {twins}."
    )


def _made(context: Mapping[str, Any]) -> str:
    return "\n".join(f"- {plain(name)}: `{plain(masked(str(fact)))}`" for name, fact in context.items())


def _replace(path: Path, text: str) -> Path:
    """Write a file aside and rename it: readers see the old one or the new one, never half of one."""
    content = text.encode("utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(content)
    os.replace(aside, path)
    return path
