"""What the analyze stage leaves in its folder: a table for people, the same with all channels, and pictures."""

import csv
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grid.report.tables import markdown, plain
from grid.stages.analysis_figures import errors_figure, ranges_figure
from quant.analysis.site_errors import SiteError, ranked

CSV, JSON, ERRORS, RANGES = "analysis.csv", "analysis.json", "analysis-errors.png", "analysis-ranges.png"
FILES = (CSV, JSON, ERRORS, RANGES)
COLUMNS = (
    "rank", "site", "kind", "order", "isolated_sqnr_db", "isolated_cosine", "noise_share", "site_sqnr_db",
    "cumulative_sqnr_db", "cumulative_cosine", "channels", "low", "high", "clip_low", "clip_high", "spread",
)  # fmt: skip
WORST = 10
LEGEND = (
    "A site is one quantizer: of a weight, or of a value. *Alone*: SQNR of the output with this site rounded and all "
    "others in float, against the same network with none rounded (behind fine-tuning: of the trained weights); "
    "*share*: its part of the sum of that noise. *Up to here*: with all sites up to this one rounded, "
    "in the order in which the network runs. *At the site*: SQNR of the rounded weight or value itself. *Spread*: the "
    "widest channel over the median one. The ten worst are shown, all sites are in `analysis.csv` of the cell in "
    "MLflow. Cells that are the same network as another one are left out."
)


def write_analysis(folder: Path, errors: tuple[SiteError, ...], images: int) -> None:
    """Write FILES into ``folder``: a CSV line a site, ranked; JSON that also has the range of every channel."""
    worst_first = ranked(errors)
    with (folder / CSV).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_line(rank, error) for rank, error in enumerate(worst_first, 1))
    document = {"images": images, "sites": [_with_channels(rank, error) for rank, error in enumerate(worst_first, 1)]}
    (folder / JSON).write_text(json.dumps(document, separators=(",", ":"), allow_nan=False))
    errors_figure(errors, folder / ERRORS)
    ranges_figure(errors, folder / RANGES)


def _line(rank: int, error: SiteError) -> list[Any]:
    clips = (min(error.clip_low), max(error.clip_high))
    alone = (error.isolated_sqnr_db, error.isolated_cosine, error.noise_share, error.site_sqnr_db)
    together = (error.cumulative_sqnr_db, error.cumulative_cosine)
    ranges = (min(error.low), max(error.high), *clips, error.spread)
    figures = [*map(_short, alone + together), len(error.low), *map(_short, ranges)]
    return [rank, error.name, error.kind, error.order, *figures]


def _with_channels(rank: int, error: SiteError) -> dict[str, Any]:
    lists = {
        key: [float(f"{value:.4g}") for value in getattr(error, key)]
        for key in ("low", "high", "clip_low", "clip_high")
    }
    return {**dict(zip(COLUMNS, _line(rank, error), strict=True)), **lists}


def _short(figure: float) -> float:
    return float(f"{figure:.6g}")


def worst_table(folder: Path) -> str:
    """The ranked worst sites of an analysis in ``folder`` as a table."""
    with (folder / CSV).open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))[:WORST]
    header = [
        "#",
        "site",
        "kind",
        "alone, dB",
        "share of noise",
        "up to here, dB",
        "at the site, dB",
        "range",
        "spread",
    ]
    return markdown(header, [_cells(line) for line in lines])


def _cells(line: Mapping[str, str]) -> list[str]:
    decibels = [f"{float(line[key]):.1f}" for key in ("isolated_sqnr_db", "cumulative_sqnr_db", "site_sqnr_db")]
    extent = f"{float(line['low']):.3g} … {float(line['high']):.3g}"
    share = f"{100 * float(line['noise_share']):.1f} %"
    spread = f"{float(line['spread']):.1f}"
    alone, up_to, own = decibels
    return [line["rank"], f"`{plain(line['site'])}`", line["kind"], alone, share, up_to, own, extent, spread]


def section(run_dir: Path, analyses: Mapping[str, Path]) -> str:
    """The report's text for each analyzed cell (its name -> folder); its pictures are copied into ``run_dir``."""
    parts = [LEGEND]
    for cell, folder in analyses.items():
        errors, ranges = (f"{cell}-{name}" for name in (ERRORS, RANGES))
        shutil.copy(folder / ERRORS, run_dir / errors)
        shutil.copy(folder / RANGES, run_dir / ranges)
        links = f"![Noise of each site, and up to each site]({errors})\n\n[Ranges of the worst sites]({ranges})"
        parts += [f"### `{plain(cell)}`", worst_table(folder), links]
    return "\n\n".join(parts)
