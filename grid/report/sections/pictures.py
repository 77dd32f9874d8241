"""Figures that need more than the rows: latencies and learning curves."""

from functools import partial

from grid.report.document import Paragraph, Picture, Section
from grid.report.figures.latencies import draw_latencies, latency_strips, most_cells
from grid.report.figures.learning_curves import draw_learning_curves, learning_curves
from grid.report.inputs import ReportInputs
from grid.results.ranking import processors


def latencies(inputs: ReportInputs) -> Section | None:
    """Return the ratios behind the median of each cell."""
    strips = latency_strips(inputs.latencies, inputs.rows)
    if not strips:
        return None
    several = " of each processor, which has its own panels" if len(processors(inputs.rows)) > 1 else ""
    text = (
        "Each small point is one pair: candidate over float network, one run right after the other. Each lane is a "
        "load in a process of its own, with its median as a large point. Box: the middle half of the pairs, line: 90 % "
        "of them; black bar: the ratio of the tables with its 95 % interval, which is that of the cell's timing class. "
        "Left: the ratio; right: its deviation from that of the tables. Points beyond the edge are not shown. Cells "
        "that are the same network as another one are left out; so are those beyond the "
        f"{most_cells(inputs.rows)} fastest{several}."
    )
    picture = Picture("latency.png", "Paired latency ratios of each cell", partial(draw_latencies, strips))
    return Section(("Spread of the latencies",), (Paragraph((text,)), picture))


def learning(inputs: ReportInputs) -> Section | None:
    """Return the loss, and the figure on validation images that chooses the epoch, by epoch."""
    monitor = inputs.measures.monitor
    curves = learning_curves(inputs.histories, monitor)
    if not curves:
        return None
    text = (
        f"Validation {monitor.title} is that of the fake-quantized network with its ranges fixed; epoch 0 is the "
        "network before the first step. A ring marks the best one. Curves that start far from the others are cut off "
        "at the edge. Cells that share a training share a curve."
    )
    picture = Picture(
        "learning.png", f"Loss and {monitor.title} by epoch", partial(draw_learning_curves, curves, headline=monitor)
    )
    return Section(("Learning curves",), (Paragraph((text,)), picture))
