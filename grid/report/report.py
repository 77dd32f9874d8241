"""Results -> results.csv and report.md with its figures."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context

from grid.report import figures, tables
from grid.report import latencies as latency_figure
from grid.report import learning_curves as learning_figure
from grid.report import prose as report_text
from grid.report.sanitize import harmless
from grid.results.ranking import Row, is_int8, processors, several_seeds
from grid.results.recommend import DEFAULT, Target, parse_target
from grid.stages import analysis_files as analysis

RESULT_COLUMNS = (
    "cell", "status", "reason", "fuse_bn", "granularity", "method", "engine", "encoder", "seed",
    "test_mse", "test_ssim", "test_abs_rel", "test_rmse_m", "test_delta1", "sqnr_db", "simulated_ssim",
    "float_sites", "size_mb", "latency_ms_p50", "latency_ms_p90", "latency_ratio", "latency_ratio_low",
    "latency_ratio_high", "profiler_step_ms", "graph_hash", "same_as", "train_s", "artifact", "mlflow_run_id",
)  # fmt: skip
TRADEOFF = "tradeoff.png"
"""The figure of accuracy against cost, for which the page has plots."""


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
    return replace_text(path, text.getvalue())


@rc_context({"text.parse_math": False})  # a name with dollars in it is no formula
def write_report(
    run_dir: Path,
    rows: Sequence[Row],
    context: Mapping[str, Any],
    published: Path | None = None,
    samples: Mapping[str, Path] | None = None,
    analyses: Mapping[str, Path] | None = None,
    *,
    target: Target | None = None,
    histories: Mapping[str, Sequence[Mapping[str, float]]] | None = None,
    latencies: Mapping[str, Path] | None = None,
    commands: Mapping[str, str] | None = None,
) -> Path:
    """Write ``report.md`` and its PNG files into ``run_dir`` and return its path.

    Every row is in the report, measured or not. ``context`` holds at least ``run``, ``origin`` (of the data) and
    ``test_images``; all of it is listed at the end. ``published`` is a CSV of another study's rows on NYUv2,
    shown beside ours only when the origin is one of NYUv2. The other mappings are by cell: ``samples`` to its
    ``samples.npz``, ``analyses`` to the folder of its per-layer analysis, ``histories`` to the figures of each
    epoch, ``latencies`` to its ``latencies.npy`` (seconds [pairs, 2] of candidate and float network), ``commands``
    to the command line that runs it again. ``target`` decides which cell is recommended; without one, the highest
    SSIM.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    parts = [f"# Grid {tables.plain(context['run'])}", report_text.opening(rows, context)]
    parts += ["## Recommendation", report_text.recommendation(rows, target or parse_target(DEFAULT))]
    parts += _results(rows, run_dir)
    parts += ["## What each axis does", report_text.effects(rows)]
    if published and str(context["origin"]).startswith("nyu"):
        with open(published, newline="", encoding="utf-8") as file:
            theirs = list(csv.DictReader(file))
        parts += ["## Beside the published study", report_text.published(rows, theirs, context)]
    if any(is_int8(row) for row in rows):
        parts += ["## Can the int8 figures be trusted?", report_text.trust(rows)]
    parts += _pictures(run_dir, rows, samples or {}, histories or {}, latencies or {})
    if analyses:
        parts += ["## Where the noise comes from", analysis.section(run_dir, analyses)]
    if any(row["status"] == "ok" for row in rows):
        parts += ["## Further figures", tables.further_table(rows)]
    parts += ["## How this was made", report_text.made(context)]
    if commands:
        parts += ["## Each cell again", report_text.commands(commands)]
    return replace_text(run_dir / "report.md", harmless("\n\n".join(parts) + "\n"))


def _results(rows: Sequence[Row], run_dir: Path) -> list[str]:
    """The figure of all cells, their table, and the reasons of those without figures."""
    parts = []
    if figures.scatter(rows, run_dir / TRADEOFF):
        text = "Numbers are those of the first results table; grey bars are 95 % intervals of the latency ratio. "
        text += "A cell is on a front when no other beats it by more than a tie."
        if len(processors(rows)) > 1:
            text += " Each processor has latencies, a plot and a front of its own; sizes are those of all cells."
        parts += ["## Accuracy against size and latency", f"![SSIM against size and latency]({TRADEOFF})", text]
    if several_seeds(rows):
        parts += ["## Results over seeds", tables.seeds_table(rows), report_text.legend(rows)]
        parts += ["## Results, cell by cell", tables.results(rows)]
    else:
        parts += ["## Results", tables.results(rows), report_text.legend(rows)]
    reasons = report_text.not_measured(rows)
    return [*parts, "## Cells without figures", reasons] if reasons else parts


def _pictures(
    run_dir: Path,
    rows: Sequence[Row],
    samples: Mapping[str, Path],
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    latencies: Mapping[str, Path],
) -> list[str]:
    """The figures that need more than the rows, each where there is something to draw."""
    parts = []
    if figures.samples(samples, rows, run_dir / "samples.png"):
        text = "Test pictures; all depth maps share one colour scale, all error maps another. "
        text += "Cells that are the same network as another one are left out."
        parts += ["## Predictions", text, "![Predictions and errors of each network](samples.png)"]
    if latency_figure.latencies(latencies, rows, run_dir / "latency.png"):
        picture = "![Paired latency ratios of each cell](latency.png)"
        parts += ["## Spread of the latencies", latency_figure.legend(rows), picture]
    if learning_figure.learning(histories, run_dir / "learning.png"):
        picture = "![Loss and SSIM by epoch](learning.png)"
        parts += ["## Learning curves", learning_figure.LEGEND, picture]
    return parts


def replace_text(path: Path, text: str) -> Path:
    """Write a file aside and rename it: readers see the old one or the new one, never half of one."""
    content = text.encode("utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(content)
    os.replace(aside, path)
    return path
