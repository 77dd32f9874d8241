"""The report of two thousand cells: how long it takes to make, how large it is, and how fast a browser opens it.

Rows and figures by image are made up: a whole factorial of ten axes, of which some do something, some nothing, and one
depends on another; one cell in 25 has failed. The page is opened in headless Chromium from a file, with an empty
profile, through its DevTools protocol: from the start of the navigation to DOMContentLoaded, to the first contentful
paint, to the load event, and until a frame after it is drawn; then a search, a filter, a sort and a page of the table,
each until its frame is drawn. The median of five openings.
"""

import asyncio
import itertools
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.line import say
from benchmarks.thousands.browser import Browser
from grid.report.formats import setting_text
from grid.report.inputs import ReportInputs
from grid.report.report import write_report
from grid.results.results_csv import result_columns
from grid.storage.per_image import ImageFigures, write_image_figures
from model.tasks.facts import DEPTH_FACTS

IMAGES, SCENES, OPENINGS = 128, 32, 5
AXES: dict[str, tuple[Any, ...]] = {
    "fuse_bn": (False, True),
    "granularity": ("per_channel", "per_tensor"),
    "method": ("ptq", "ptq+qat"),
    "weight_bits": (8, 4),
    "equalize.objective": ("range", "noise"),
    "equalize.silu": (False, True),
    "calibrate.outlier_ratio": (0.0, 0.0001, 0.001, 0.01),
    "rounding.damping": (0.01, 0.1),
    "rounding.order": ("natural", "gain"),
    "bias_correction.images": (8, 64),
}
PIECES = {
    "search": ("const box = document.querySelector('.tools input'); box.value = 'per_tensor silu=true'; "
               "box.dispatchEvent(new Event('input', {bubbles: true}))"),
    "filter": ("const one = document.querySelector('.tools select'); one.selectedIndex = 1; "
               "one.dispatchEvent(new Event('input', {bubbles: true}))"),
    "sort": "[...document.querySelectorAll('table.paged th button')].find(one => /SSIM/.test(one.textContent)).click()",
    "page": "[...document.querySelectorAll('.pages button')].at(-1).click()",
}  # fmt: skip
"""What a reader does with the first paged table, as scripts."""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(name)
        inputs = made_up(folder)
        began = time.process_time()
        text, page = write_report(folder / "run", inputs)
        made_s = time.process_time() - began
        rows = f"{len(inputs.rows)} rows"
        say("report_made_s", made_s, "s", f"{rows}, CPU time, comparisons and pictures included")
        say("report_html_mb", page.stat().st_size / 1e6, "MB", rows)
        say("report_md_mb", text.stat().st_size / 1e6, "MB", rows)
        if shutil.which("chromium") is None:
            return
        figures = asyncio.run(opened(page))
        for name, seconds in figures.items():
            say(f"report_{name}", seconds, "MB" if name.endswith("_mb") else "s", f"{rows}, headless Chromium")


def made_up(folder: Path) -> ReportInputs:
    """The rows and their figures by image, below ``folder``."""
    draw = np.random.default_rng(17)
    scene = np.arange(IMAGES) * SCENES // IMAGES
    common = 0.9 + draw.normal(0, 0.02, SCENES)[scene] + draw.normal(0, 0.01, IMAGES)
    rows = [_row("fp32", {"method": "fp32", "fuse_bn": False}, common)]
    ssim = {"fp32": common}
    for values in itertools.product(*AXES.values()):
        settings = dict(zip(AXES, values, strict=True))
        name = f"{'fuse_bn-' * settings['fuse_bn']}{settings['granularity']}-{settings['method']}"
        name += "".join(f"-{axis.split('.')[-1]}={setting_text(value)}" for axis, value in list(settings.items())[3:])
        if draw.random() < 1 / 25:
            failed = {"status": "failed", "reason": f"calibrate: MemoryError: {len(rows)} (log: logs/{name}.log)"}
            rows.append({**_blank(name), **settings, **failed})
            continue
        own = common + _gain(settings) + draw.normal(0, 4e-4, SCENES)[scene] + draw.normal(0, 4e-4, IMAGES)
        ssim[name] = own
        rows.append(_row(name, settings, own))
    images = {}
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number, (name, own) in enumerate(ssim.items()):
        path = folder / "images" / f"{number}.csv"
        tables = {
            split: ImageFigures(scene, dict.fromkeys((metric.name for metric in DEPTH_FACTS.metrics), own))
            for split in ("val", "test")
        }
        images[name] = write_image_figures(path, tables)
    context = {"run": "thousands", "command": "python -m benchmarks.report", "origin": "rooms", "test_images": IMAGES}
    commands = {row["cell"]: f"python runner.py --grid full --set cell={row['cell']}" for row in rows}
    return ReportInputs(rows, context, images=images, commands=commands)


def _gain(settings: dict[str, Any]) -> float:
    """What the settings do to SSIM: four axes something, one that only with 4 bits, the others nothing."""
    few = settings["weight_bits"] == 4
    gain = -0.015 * few + 0.006 * (settings["method"] != "ptq") + 0.002 * (settings["equalize.objective"] == "noise")
    gain -= (0.012 if few else 0.002) * (settings["granularity"] == "per_tensor")
    return gain - 0.3 * settings["calibrate.outlier_ratio"] - 0.006


def _row(cell: str, settings: dict[str, Any], ssim: np.ndarray) -> dict[str, Any]:
    """A measured row with plausible figures."""
    figure = float(ssim.mean())
    number = sum(map(ord, cell)) % 100
    ratio = (
        1.0 if settings["method"] == "fp32" else 1.6 - 0.1 * (settings["granularity"] == "per_tensor") + number / 1e4
    )
    bits = settings.get("weight_bits", 32)
    figures = {
        "test_mse": 0.05 * (1 - figure), "test_ssim": figure, "val_ssim": figure - 0.001, "test_abs_rel": 0.1,
        "test_rmse_m": 0.5, "test_delta1": 0.9, "sqnr_db": 24 + 400 * (figure - 0.83), "simulated_ssim": figure + 1e-4,
        "size_mb": 0.2 + 0.16 * bits + number / 1e4, "latency_ms_p50": 20 * ratio, "latency_ms_p90": 22 * ratio,
        "latency_ratio": ratio, "latency_ratio_low": ratio * 0.99, "latency_ratio_high": ratio * 1.01,
        "profiler_step_ms": 21 * ratio, "graph_hash": f"{abs(hash(cell)):016x}", "artifact": f"/results/stages/{cell}",
    }  # fmt: skip
    if settings["method"] == "fp32":
        figures |= {"graph_hash": None, "size_mb": 5.0, "sqnr_db": None, "engine": None}
    return {**_blank(cell), **settings, **figures}


def _blank(cell: str) -> dict[str, Any]:
    """A row without figures."""
    of = {"cell": cell, "status": "ok", "engine": "qnnpack", "encoder": "efficientnet_b0", "seed": 0}
    return {**dict.fromkeys(result_columns()), **of}


async def opened(page: Path) -> dict[str, float]:
    """Seconds of an opening's steps and of what a reader does with the table, medians."""
    found: dict[str, list[float]] = {}
    for _ in range(OPENINGS):
        async with Browser() as browser:
            for name, figure in (await browser.open(page)).items():
                found.setdefault(name, []).append(figure)
            for name, script in PIECES.items():
                if await browser.value("document.querySelector('table.paged') !== null"):
                    found.setdefault(f"{name}_s", []).append(await browser.seconds(script))
    return {name: statistics.median(figures) for name, figures in found.items()}


if __name__ == "__main__":
    main()
