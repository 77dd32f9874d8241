"""Made-up rows with figures by image whose scenes, recipes and redraws are known: for tests only."""

from collections.abc import Mapping, Sequence

import numpy as np

from grid.results.comparisons.evidence import Evidence
from grid.results.comparisons.image_tables import ImageTables
from grid.results.comparisons.margins import Margin
from grid.results.comparisons.resampling import Sample
from grid.results.measures import measures_of
from model.tasks.facts import MetricFacts, TaskFacts
from tests.grid.measures import DEFAULTS
from tests.grid.report.report_rows import row


def scenes_of(scenes: int, images: int = 4) -> np.ndarray:
    """The scene of each image, ``images`` a scene."""
    return np.repeat(np.arange(scenes), images)


def evidence_of(
    rows: Sequence[dict], ssim: Mapping[str, np.ndarray], scene: np.ndarray, margin: float = 0.001
) -> Evidence:
    """Rows with these SSIMs by image, as test and validation figures alike; ``margin`` is that of SSIM."""
    names = [line["cell"] for line in rows if line["cell"] in ssim]
    figures = np.stack([ssim[name] for name in names])
    sample = Sample({name: place for place, name in enumerate(names)}, scene, {"ssim": figures})
    means = dict(zip(names, figures.mean(axis=1), strict=True))
    filled = [
        {**line, "test_ssim": means[line["cell"]], "val_ssim": means[line["cell"]]} if line["cell"] in means else line
        for line in rows
    ]
    tables = ImageTables(samples={"test": sample, "val": sample})
    return Evidence(filled, tables, {**DEFAULTS, "ssim": Margin(margin)})


def null_recipes(count: int, seeds: int, scenes: int, redraw: float, seed: int, method: str = "qat") -> Evidence:
    """Recipes that differ in nothing but the drawing of their networks, ``seeds`` of each.

    A network's mean moves by ``redraw`` on all images, and by as much again from scene to scene, where images share
    most of what they are: far more than networks differ.
    """
    noise, scene = np.random.default_rng(seed), scenes_of(scenes)
    common = 0.8 + noise.normal(0, 0.05, scenes)[scene] + noise.normal(0, 0.02, len(scene))
    rows, ssim = [], {}
    for recipe in range(count):
        for number in range(seeds):
            cell = f"r{recipe}-s{number}" if seeds > 1 else f"r{recipe}"
            rows.append(row(cell, method=method, fuse_bn=True, seed=number, graph_hash=cell, **{"qat.epochs": recipe}))
            own = noise.normal(0, redraw) + noise.normal(0, 2 * redraw, scenes)[scene]
            ssim[cell] = common + own + noise.normal(0, redraw, len(scene))
    return evidence_of(rows, ssim, scene, margin=0.0)


CLASSES = TaskFacts(
    "own/mine", "", (MetricFacts("top1", True), MetricFacts("entropy", False, margin=0.02)), monitor="entropy"
)


def coarse(facts: TaskFacts = CLASSES) -> Evidence:
    """On 48 images the noisy network has one right answer more than the close one, and is much less sure of all."""
    noise, names = np.random.default_rng(0), ("fp32", "close", "noisy")
    right = np.stack([np.arange(48) < count for count in (30, 30, 31)]).astype(float)
    entropy = np.stack([level + noise.normal(0, 0.02, 48) for level in (0.595, 0.6, 0.7)])
    figures = {"top1": right, "entropy": entropy}
    sample = Sample({name: place for place, name in enumerate(names)}, scenes_of(12), figures)
    rows = [
        row(name, method="qat", fuse_bn=True, graph_hash=name, size_mb=1.0, latency_ratio=1.0)
        | {f"{split}_{metric}": figures[metric][place].mean() for split in ("test", "val") for metric in figures}
        for place, name in enumerate(names)
    ]
    rows[0] |= {"method": "fp32", "fuse_bn": False}
    measures = measures_of(facts)
    return Evidence(rows, ImageTables(samples={"test": sample, "val": sample}), measures.margins, measures)
