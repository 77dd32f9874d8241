"""Our rows beside those of the published study."""

import csv
from collections.abc import Mapping, Sequence
from typing import Any

from grid.report.cells import figure_cell, name_cell, on_processor, text_cell
from grid.report.document import Cell, Column, Paragraph, Section, Table
from grid.report.formats import DASH, setting_text
from grid.report.inputs import ReportInputs
from grid.results.processors import by_processor
from grid.results.ranking import UNKNOWN, Row, over_seeds, processor_of


def published(inputs: ReportInputs) -> Section | None:
    """Return the comparison, and why it only goes so far; nothing unless the data are NYUv2."""
    if inputs.published is None or not inputs.is_depth or not str(inputs.context["origin"]).startswith("nyu"):
        return None
    with open(inputs.published, newline="", encoding="utf-8") as file:
        theirs = list(csv.DictReader(file))
    text = (
        f"Ours: {inputs.context['test_images']} test images, this machine. Theirs: the study's own test set, server "
        "and checkpoint; its latency is the same profiler figure, but times of two machines do not compare. "
        "Its QAT rows were trained without fake quantization, its per-channel and per-tensor arms also differ "
        "in observer and range, and depth beyond 10 m wrapped to 0 in its test loader."
    )
    return Section(("Beside the published study",), (Paragraph((text,)), published_table(inputs.rows, theirs)))


def published_table(rows: Sequence[Row], theirs: Sequence[Mapping[str, Any]]) -> Table:
    """Return each published row with our figures in front; a recipe that we did not run has en dashes.

    Where several of our cells are that recipe (a further axis), the first one stands there.
    """
    ours = {_recipe(row): row for row in reversed(over_seeds(filter(_comparable, rows)))}
    several = len(by_processor(rows)) > 1
    columns = [*map(Column, ("fuse BN", "granularity", "method")), Column("our cell", "name")]
    for title in ("MSE", "SSIM", "size MB", "profiler step ms"):
        columns += [Column(title, "number"), Column("published", "number")]
    lines = tuple(_line(ours.get(_recipe(their), {}), their, several) for their in theirs)
    return Table((*columns, Column("source")), lines)


def _line(mine: Row, theirs: Mapping[str, Any], several: bool) -> tuple[Cell, ...]:
    cells = [text_cell(setting) for setting in _recipe(theirs)]
    cells.append(name_cell(mine["cell"]) if mine else text_cell(DASH))
    for column in ("test_mse", "test_ssim", "size_mb"):
        cells += [figure_cell(mine, column), figure_cell(dict(theirs), column)]
    step = figure_cell(mine, "profiler_step_ms")
    if several and step.figure is not None:
        step = Cell((*step.spans, on_processor(processor_of(mine) or UNKNOWN)), step.figure)
    return (*cells, step, _milliseconds(theirs.get("latency_ms")), text_cell(theirs["source"]))


def _comparable(row: Row) -> bool:
    return row["status"] == "ok" and row["engine"] in (None, "", "qnnpack") and row["encoder"] == "efficientnet_b0"


def _recipe(row: Mapping[str, Any]) -> tuple[str, str, str]:
    fuse, granularity, method = (setting_text(row[name]) for name in ("fuse_bn", "granularity", "method"))
    return fuse.lower(), granularity, method


def _milliseconds(text: Any) -> Cell:
    return Cell((DASH,)) if text in (None, "") else Cell((f"{float(text):.2f}",), float(text))
