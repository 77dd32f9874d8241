"""What the networks make of test images, where they are worst, and how their noise depends on depth."""

import itertools
import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from grid.report.cells import name_cell
from grid.report.document import Block, Cell, Code, Column, Paragraph, Picture, Section, Spans, Table
from grid.report.figures.noise_by_depth import draw_noise_by_depth
from grid.report.figures.predictions import draw_predictions
from grid.report.figures.task_panels import draw_panels
from grid.report.formats import DASH
from grid.report.inputs import ReportInputs
from grid.report.shortlist import networks
from grid.report.shown_images import (
    ShownImages,
    loss_by_image,
    lost,
    noise_by_image,
    noise_parts_by_image,
    shown_images,
)
from grid.report.shown_panels import problem, sheets
from grid.results.noise_by_depth import depth_edges, rms_by_depth
from grid.results.ranking import Row
from model.images import MAX_DEPTH_M


def predictions(inputs: ReportInputs) -> Section | None:
    """Return test images with what each network makes of them, and its worst images."""
    blocks = _depth_pictures(inputs) if inputs.is_depth else _task_pictures(inputs)
    table = worst_table(inputs, inputs.shortlist)
    if not blocks and (inputs.is_depth or not table.rows):
        return None
    left_out = len(networks(inputs.rows)) - len(inputs.shortlist)
    if left_out:
        blocks.insert(1, Paragraph(_left_out(left_out)))
    if table.rows:
        blocks += [Paragraph((_worst_text(inputs),)), table]
    return Section(("Predictions",), tuple(blocks))


def _depth_pictures(inputs: ReportInputs) -> list[Block]:
    rows = inputs.shortlist
    shown = shown_images(inputs, rows)
    if shown is None:
        return []
    text = (
        "A line a network: its prediction, and beside it how far that is from what the float network predicts (red: "
        "farther away, blue: nearer). All depth maps share one colour scale, and so do all differences: the noise of "
        "two cells compares by colour. Float networks have their absolute error instead."
    )
    draw = partial(draw_predictions, shown, rows)
    picture = Picture("samples.png", "Predictions and differences to float", draw)
    return [Paragraph((f"{text} {_which_images(shown)}",)), picture]


def _task_pictures(inputs: ReportInputs) -> list[Block]:
    """The sheets of the task's own pictures; where its code drew none, what it says."""
    rows, headline = inputs.shortlist, inputs.measures.headline
    found, wrong = sheets(inputs, rows), problem(inputs, rows)
    blocks: list[Block] = []
    if found:
        text = (
            f"A line a network, with its test {headline.name} below its name, and that of each image above its "
            f"pictures; the first line is the truth. The images are those on which the float network has the worst "
            f"{headline.name}, its median one, and others that are evenly spread over the rest of the test set. "
            "They are the same for all networks that are made from one float network"
        )
        more = "; each float network has its own images, and so a picture of its own." if len(found) > 1 else "."
        blocks.append(Paragraph((text + more,)))
    if wrong:
        name = Code("show")
        blocks.append(Paragraph(("Pictures are missing: the function ", name, " of the task fails (", wrong, ").")))
    for number, sheet in enumerate(found, start=1):
        file = "samples.png" if number == 1 else f"samples-{number}.png"
        text = "Test images and what each network makes of them"
        blocks.append(Picture(file, text, partial(draw_panels, sheet, headline, rows)))
    return blocks


def _worst_text(inputs: ReportInputs) -> str:
    headline = inputs.measures.headline
    if inputs.is_depth or headline.higher_is_better:
        text = f"The worst image of each network, by its noise and by the {headline.name} that it loses against float"
    else:
        text = f"The worst image of each network, by its noise and by how much {headline.name} is above that of float"
    if not inputs.is_depth:
        text += "; the SQNR is that of the image's outputs, against the variance of all outputs of the float network"
    return f"{text}; images are numbered as in the test set, from 0."


def worst_table(inputs: ReportInputs, rows: Sequence[Row]) -> Table:
    """Return the usual and the worst noise of each row that has any, and the most that it loses on an image.

    Noise is in mm where the task is depth, else in dB below the variance of the float network's outputs.
    """
    titles = ("noise of the median image, mm", "of the worst image, mm")
    if not inputs.is_depth:
        titles = ("SQNR of the median image, dB", "of the worst image, dB")
    columns = [Column("cell", "name"), *(Column(title, "number") for title in titles)]
    most = f"most {lost(inputs.measures.headline)} on an image"
    columns += [Column(title, "number") for title in ("its number", most, "that image")]
    return Table(tuple(columns), tuple(line for row in rows if (line := _worst_line(inputs, row))))


def noise_by_depth(inputs: ReportInputs) -> Section | None:
    """Return the noise of each network by true depth, against the float network's own error there."""
    rows = [row for row in inputs.shortlist if row["cell"] in inputs.predictions]
    compared = [row for row in rows if row["cell"] in inputs.references and row["method"] != "fp32"]
    if inputs.pack is None or not compared or not inputs.is_depth:
        return None
    truth = inputs.pack.targets("test").numpy() * MAX_DEPTH_M
    edges = depth_edges(truth)
    if len(edges) < 2:
        return None
    noise = [(row, _rms(inputs, row["cell"], truth, edges)) for row in compared]
    floats = [row for row in rows if row["cell"] not in inputs.references]
    errors = [(row["cell"], _error(inputs, row["cell"], truth, edges)) for row in floats]
    text = (
        "Root mean square of the difference to float in mm, over the test pixels of each range of true depth; each "
        f"range holds about one in {len(edges) - 1} of the pixels. Above it the error of the float network itself: "
        "noise of a tenth of it, independent of it, makes it half a percent larger."
    )
    draw = partial(draw_noise_by_depth, edges, noise, errors)
    return Section(
        ("Noise by depth",),
        (Paragraph((text,)), _depth_table(edges, noise, errors), Picture("depth.png", "Noise over true depth", draw)),
    )


def _which_images(shown: ShownImages) -> str:
    if not shown.references or len(set(shown.titles)) == 1:
        return "The images are evenly spread over the test set."
    return (
        "The images are the same for all: those with the most noise and those that lose the most SSIM against float, "
        "as means over the networks shown, and others that are evenly spread over the test set."
    )


def _left_out(count: int) -> Spans:
    return (
        f"{count} of the measured networks {'is' if count == 1 else 'are'} not shown here. Shown are the float "
        "baselines, the recommended one, the Pareto front, and the best and the worst of the others on the validation "
        "images. The predictions of each are in the folder of its stage ",
        Code("evaluate"),
        "; a run of one cell alone (last section) shows it.",
    )


def _worst_line(inputs: ReportInputs, row: Row) -> tuple[Cell, ...]:
    """Nothing where the row's noise is not known by image."""
    cell = row["cell"]
    if inputs.is_depth:
        known = {cell} <= inputs.predictions.keys() & inputs.references.keys()
        noise = 1000 * noise_by_image(inputs, cell) if known else None
    else:
        noise = noise_parts_by_image(inputs, row)
    if noise is None:
        return ()
    worst, loss = int(noise.argmax()), loss_by_image(inputs, cell)
    figures = [_noise_cell(inputs, float(one)) for one in (np.median(noise), noise[worst])]
    line = [name_cell(cell), *figures, Cell((str(worst),), worst)]
    if loss is None:
        return (*line, Cell((DASH,)), Cell((DASH,)))
    most = int(np.nanargmax(loss))
    where = Cell((str(most),), most) if loss[most] else Cell((DASH,))  # where none loses anything it is no image
    return (*line, Cell((f"{loss[most]:.4f}",), float(loss[most])), where)


def _noise_cell(inputs: ReportInputs, noise: float) -> Cell:
    """Millimetres of depth, or the decibels of a part of the variance."""
    if inputs.is_depth:
        return Cell((f"{noise:.0f}",), noise)
    decibels = -10.0 * math.log10(noise) if noise > 0 else math.inf
    return Cell((f"{decibels:.1f}" if noise > 0 else "no noise",), decibels)


def _rms(inputs: ReportInputs, cell: str, truth: np.ndarray, edges: np.ndarray) -> np.ndarray:
    predicted, reference = (np.load(files[cell]) for files in (inputs.predictions, inputs.references))
    return rms_by_depth(MAX_DEPTH_M * (predicted - reference), truth, edges)


def _error(inputs: ReportInputs, cell: str, truth: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return rms_by_depth(MAX_DEPTH_M * np.load(inputs.predictions[cell]) - truth, truth, edges)


def _depth_table(
    edges: np.ndarray, noise: Sequence[tuple[Row, np.ndarray]], errors: Sequence[tuple[str, np.ndarray]]
) -> Table:
    ranges = [f"{low:.1f} to {high:.1f} m" for low, high in itertools.pairwise(edges)]
    columns = [Column("cell", "name"), Column(""), *(Column(title, "number") for title in ranges)]
    lines = [(name, "error", values) for name, values in errors]
    lines += [(row["cell"], "noise", values) for row, values in noise]
    return Table(
        tuple(columns),
        tuple(
            (name_cell(name), Cell((what,)), *(Cell((f"{1000 * one:.1f}",), float(one)) for one in values))
            for name, what, values in lines
        ),
    )
