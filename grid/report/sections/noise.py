"""Where the quantization noise of each analyzed cell comes from."""

import csv
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from grid.planning.output_files import ANALYSIS_CSV, ANALYSIS_ERRORS, ANALYSIS_RANGES
from grid.report.cells import name_cell, text_cell
from grid.report.document import Cell, Code, Column, Emphasis, Paragraph, Picture, Section, Spans, Table
from grid.report.inputs import ReportInputs
from grid.report.shortlist import MOST

MOST_SITES = 10
SHORTLIST = "shown are the recommended one, the Pareto front, and the best and the worst of the others"
LEGEND: Spans = (
    "A site is one quantizer: of a weight, or of an activation. ",
    Emphasis("Alone"),
    ": SQNR of the output with this site rounded and all others in float, against the same network with none rounded "
    "(after fine-tuning: of the trained weights); ",
    Emphasis("share"),
    ": its part of the sum of that noise. ",
    Emphasis("Up to here"),
    ": with all sites up to this one rounded, in the order in which the network runs. ",
    Emphasis("At the site"),
    ": SQNR of the rounded weight or activation itself. ",
    Emphasis("Spread"),
    ": the widest channel over the median one. The ten worst are shown; all sites are in ",
    Code(ANALYSIS_CSV),
    " of the cell in MLflow. Cells that are the same network as another one are left out.",
)


def noise(inputs: ReportInputs) -> Section | None:
    """Return for each analyzed cell the worst sites and the pictures of its analysis."""
    if not inputs.analyses:
        return None
    shown = inputs.analyses
    if len(shown) > MOST:
        names = {row["cell"] for row in inputs.shortlist}
        shown = {cell: folder for cell, folder in shown.items() if cell in names}
    left_out = len(inputs.analyses) - len(shown)
    more = (Paragraph((f"{left_out} of the analyzed cells are left out: {SHORTLIST}.",)),) if left_out else ()
    cells = (_cell(cell, folder) for cell, folder in shown.items())
    return Section(("Where the noise comes from",), (Paragraph(LEGEND), *more, *cells))


def _cell(cell: str, folder: Path) -> Section:
    errors, ranges = (partial(shutil.copy, folder / name) for name in (ANALYSIS_ERRORS, ANALYSIS_RANGES))
    blocks = (
        sites_table(folder),
        Picture(f"{cell}-{ANALYSIS_ERRORS}", "Noise of each site, and up to each site", errors),
        Picture(f"{cell}-{ANALYSIS_RANGES}", "Ranges of the worst sites", ranges, folded=True),
    )
    return Section((Code(cell),), blocks)


def sites_table(folder: Path) -> Table:
    """Return the worst sites of the analysis in ``folder``, the worst first."""
    with (folder / ANALYSIS_CSV).open(newline="", encoding="utf-8") as file:
        lines = [line for line, _ in zip(csv.DictReader(file), range(MOST_SITES), strict=False)]
    columns = [Column("#", "number"), Column("site", "name"), Column("kind"), Column("alone, dB", "number")]
    titles = ("share of noise", "up to here, dB", "at the site, dB", "range", "spread")
    columns += [Column(title, "number") for title in titles]
    return Table(tuple(columns), tuple(map(_line, lines)))


def _line(line: Mapping[str, str]) -> tuple[Cell, ...]:
    rank, share, low, high = (float(line[key]) for key in ("rank", "noise_share", "low", "high"))
    return (
        Cell((line["rank"],), rank),
        name_cell(line["site"]),
        text_cell(line["kind"]),
        _decimal(line["isolated_sqnr_db"]),
        Cell((f"{100 * share:.1f} %",), share),
        _decimal(line["cumulative_sqnr_db"]),
        _decimal(line["site_sqnr_db"]),
        Cell((f"{low:.3g} … {high:.3g}",), low),
        _decimal(line["spread"]),
    )


def _decimal(text: str) -> Cell:
    return Cell((f"{float(text):.1f}",), float(text))
