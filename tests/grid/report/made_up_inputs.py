"""Inputs of a report whose figures by image are made up: for tests only."""

import numpy as np

from grid.report.inputs import ReportInputs
from tests.grid.report.report_rows import context, row
from tests.grid.results.comparisons.made_up_images import evidence_of, scenes_of

LOSSES = {"good": 0.0, "fair": 0.003, "bad": 0.02}


def made_up_inputs(
    scenes: int = 40, losses: dict[str, float] = LOSSES, noise: float = 2e-4, origin: str = "rooms", **given
) -> ReportInputs:
    """A float network, and int8 networks that lose so much SSIM on every image, with ``noise`` of the loss."""
    draw, scene = np.random.default_rng(2), scenes_of(scenes)
    base = 0.9 + draw.normal(0, 0.05, scenes)[scene]
    rows = [row("fp32", method="fp32", fuse_bn=False)]
    for name, loss in losses.items():
        rows.append(row(name, method="qat", fuse_bn=True, graph_hash=name, **{"qat.epochs": loss}))
    ssim = {"fp32": base} | {name: base - loss + draw.normal(0, noise, len(scene)) for name, loss in losses.items()}
    evidence = evidence_of(rows, ssim, scene)
    rows = [line if line["method"] == "fp32" else {**line, **given} for line in evidence.rows]
    inputs = ReportInputs(rows, context(origin=origin))
    inputs.__dict__["evidence"] = evidence.of(rows)
    return inputs
