"""What the networks make of test images, where they are worst, and how their noise depends on depth."""

import itertools
from collections.abc import Sequence
from functools import partial

import numpy as np

from grid.report.cells import name_cell
from grid.report.document import Block, Cell, Code, Column, Paragraph, Picture, Section, Spans, Table
from grid.report.figures.noise_by_depth import draw_noise_by_depth
from grid.report.figures.predictions import draw_predictions
from grid.report.formats import DASH
from grid.report.inputs import ReportInputs
from grid.report.shortlist import networks
from grid.report.shown_images import ShownImages, noise_by_image, shown_images, ssim_loss_by_image
from grid.results.noise_by_depth import depth_edges, rms_by_depth
from grid.results.ranking import Row
from model.images import MAX_DEPTH_M


def predictions(inputs: ReportInputs) -> Section | None:
    """Return test images with the prediction of each network and its difference to float, and its worst images."""
    rows = inputs.shortlist
    shown = shown_images(inputs, rows) if inputs.is_depth else None
    if shown is None:
        return None
    text = (
        "A line a network: its prediction, and beside it how far that is from what the float network predicts (red: "
        "farther away, blue: nearer). All depth maps share one colour scale, and so do all differences: the noise of "
        "two cells compares by colour. Float networks have their absolute error instead."
    )
    blocks: list[Block] = [Paragraph((f"{text} {_which_images(shown)}",))]
    left_out = len(networks(inputs.rows)) - len(rows)
    if left_out:
        blocks.append(Paragraph(_left_out(left_out)))
    picture = Picture("samples.png", "Predictions and differences to float", partial(draw_predictions, shown, rows))
    blocks.append(picture)
    compared = [row for row in rows if {row["cell"]} <= inputs.predictions.keys() & inputs.references.keys()]
    if compared:
        note = (
            "The worst image of each network, by its noise and by the SSIM that it loses against float; images are "
            "numbered as in the test set, from 0."
        )
        blocks += [Paragraph((note,)), worst_table(inputs, compared)]
    return Section(("Predictions",), tuple(blocks))


def worst_table(inputs: ReportInputs, rows: Sequence[Row]) -> Table:
    """Return the usual and the worst noise of each row, and the most SSIM that it loses on an image."""
    columns = [Column("cell", "name")]
    columns += [Column(title, "number") for title in ("noise of the median image, mm", "of the worst image, mm")]
    columns += [Column(title, "number") for title in ("its number", "most SSIM lost on an image", "that image")]
    return Table(tuple(columns), tuple(_worst_line(inputs, row["cell"]) for row in rows))


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


def _worst_line(inputs: ReportInputs, cell: str) -> tuple[Cell, ...]:
    noise, loss = 1000 * noise_by_image(inputs, cell), ssim_loss_by_image(inputs, cell)
    worst = int(noise.argmax())
    figures = [(float(np.median(noise)), "{:.0f}"), (float(noise[worst]), "{:.0f}"), (worst, "{}")]
    line = [name_cell(cell), *(Cell((text.format(figure),), figure) for figure, text in figures)]
    if loss is None:
        return (*line, Cell((DASH,)), Cell((DASH,)))
    most = int(loss.argmax())
    return (*line, Cell((f"{loss[most]:.4f}",), float(loss[most])), Cell((str(most),), most))


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
