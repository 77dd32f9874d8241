"""What the analyze stage leaves in its folder: a table of sites, the same with all channels, and pictures."""

import csv
import json
from pathlib import Path
from typing import Any

from grid.planning.output_files import ANALYSIS_CSV, ANALYSIS_ERRORS, ANALYSIS_JSON, ANALYSIS_RANGES
from grid.stages.analysis_figures import errors_figure, ranges_figure
from quant.analysis.site_errors import SiteError, ranked

COLUMNS = (
    "rank", "site", "kind", "order", "isolated_sqnr_db", "isolated_cosine", "noise_share", "site_sqnr_db",
    "cumulative_sqnr_db", "cumulative_cosine", "channels", "low", "high", "clip_low", "clip_high", "spread",
)  # fmt: skip


def write_analysis(folder: Path, errors: tuple[SiteError, ...], images: int) -> None:
    """Write two pictures into ``folder``, a CSV with a line a site, ranked, and JSON with all channels' ranges."""
    worst_first = ranked(errors)
    with (folder / ANALYSIS_CSV).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_line(rank, error) for rank, error in enumerate(worst_first, 1))
    document = {"images": images, "sites": [_with_channels(rank, error) for rank, error in enumerate(worst_first, 1)]}
    (folder / ANALYSIS_JSON).write_text(json.dumps(document, separators=(",", ":"), allow_nan=False))
    errors_figure(errors, folder / ANALYSIS_ERRORS)
    ranges_figure(errors, folder / ANALYSIS_RANGES)


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
