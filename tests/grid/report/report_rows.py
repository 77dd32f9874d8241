"""Made-up rows of a full grid, and sample files for them: for tests only."""

import itertools
from pathlib import Path

import numpy as np

from grid.report.inputs import ReportInputs
from grid.report.markdown import markdown_text
from grid.report.report import report
from tests.grid.measures import RESULT_COLUMNS

GAIN = {"ptq": 0.0, "qat": 0.006, "ptq+qat": 0.009}


def row(cell: str, **given) -> dict:
    empty = dict.fromkeys(RESULT_COLUMNS)
    return {**empty, "cell": cell, "status": "ok", "engine": "qnnpack", "encoder": "efficientnet_b0", "seed": 0} | given


def figures_of(ssim: float, size_mb: float, ratio: float) -> dict:
    return {
        "test_mse": 0.05 * (1 - ssim) ** 1.2,
        "test_ssim": ssim,
        "test_abs_rel": 0.1,
        "test_rmse_m": 0.5,
        "test_delta1": 0.9,
        "size_mb": size_mb,
        "latency_ms_p50": 20 * ratio,
        "latency_ms_p90": 22 * ratio,
        "latency_ratio": ratio,
        "latency_ratio_low": ratio * 0.99,
        "latency_ratio_high": ratio * 1.01,
        "profiler_step_ms": 21 * ratio,
    }


def grid_rows() -> list[dict]:
    """A made-up full grid: 2 baselines and 12 cells, with plausible figures; used in these tests only."""
    rows = [
        row("fp32", fuse_bn=False, method="fp32", **figures_of(0.8602, 5.045, 1.0)),
        row("fp32-fuse_bn", fuse_bn=True, method="fp32", **figures_of(0.8602, 4.891, 0.93)),
    ]
    noise = np.random.default_rng(3)
    for fuse_bn, granularity, method in itertools.product((False, True), ("per_channel", "per_tensor"), GAIN):
        coarse = 0.03 / (1 + 80 * GAIN[method]) if granularity == "per_tensor" else 0.0
        ssim = 0.845 + GAIN[method] - coarse + noise.normal(0, 0.0008)
        size = (1.607 if granularity == "per_channel" else 1.379) - 0.002 * fuse_bn
        cell = ("fuse_bn-" if fuse_bn else "") + f"{granularity}-{method}"
        rows.append(
            row(
                cell, fuse_bn=fuse_bn, granularity=granularity, method=method, sqnr_db=24 + 400 * (ssim - 0.83),
                simulated_ssim=ssim + 0.0004, graph_hash=f"{len(rows):016x}",
                **figures_of(ssim, size, 1.62 + noise.normal(0, 0.03)),
            )
        )  # fmt: skip
    return rows


def context(**given) -> dict:
    return {"run": "full-1", "command": "python runner.py --grid full", "origin": "rooms", "test_images": 128} | given


def sample_files(folder: Path, rows: list[dict]) -> dict[str, Path]:
    """A slanted wall with a box for every cell, each cell with noise of its own."""
    y, x = np.mgrid[0:1:56j, 0:1:56j]
    truth = np.stack([2 + 3 * x + shift + 2 * (np.hypot(x - 0.5, y - 0.6) > 0.25) for shift in (0, 1, 2, 3)])
    image = (np.kron(truth, np.ones((1, 4, 4)))[..., None] * [25, 20, 15]).clip(0, 255).astype(np.uint8)
    files = {}
    for number, cell in enumerate(row["cell"] for row in rows):
        wrong = np.random.default_rng(number).normal(0, 0.03 + 0.03 * number, truth.shape)
        files[cell] = folder / f"{number}.npz"
        maps: dict = {"truth": truth.astype(np.float32), "prediction": (truth + wrong).astype(np.float32)}
        np.savez(files[cell], image=image, **maps)
    return files


def many_rows(count: int) -> list[dict]:
    """A made-up grid of ``count`` int8 cells over further axes, behind its two baselines."""
    noise = np.random.default_rng(5)
    rows = grid_rows()[:2]
    for number in range(count):
        method = tuple(GAIN)[number % 3]
        granularity = ("per_channel", "per_tensor")[number // 3 % 2]
        epochs, ratio, percent = 1 + number // 12 % 5, 1.6 + noise.normal(0, 0.1), 0.001 * (number // 60)
        ssim = 0.83 + GAIN[method] + 0.002 * epochs + noise.normal(0, 0.002)
        size = (1.607 if granularity == "per_channel" else 1.379) + percent
        given = {"fuse_bn": bool(number // 6 % 2), "granularity": granularity, "method": method}
        given |= {"qat.epochs": epochs, "calibrate.outlier_ratio": percent, "graph_hash": f"{number:016x}"}
        cell = f"{'fuse_bn-' * given['fuse_bn']}{granularity}-{method}-outlier_ratio={percent:g}-epochs={epochs}"
        more = {"sqnr_db": 24 + 400 * (ssim - 0.83), "simulated_ssim": ssim, "artifact": f"/stages/{number:020x}"}
        rows.append(row(cell, **given, **more, **figures_of(ssim, size, ratio)))
    return rows


def latency_files(folder: Path, rows: list[dict], pairs: int = 120) -> dict[str, Path]:
    """Paired seconds of each int8 cell around its ratio, with a few slow outliers."""
    files = {}
    for number, line in enumerate(line for line in rows if line["method"] != "fp32"):
        draw = np.random.default_rng(number)
        reference = 0.02 * np.exp(draw.normal(0, 0.02, pairs)) * (1 + 2 * (draw.random(pairs) > 0.98))
        times = np.stack([reference * line["latency_ratio"] * np.exp(draw.normal(0, 0.01, pairs)), reference], axis=1)
        files[line["cell"]] = folder / f"latencies-{number}.npy"
        np.save(files[line["cell"]], times)
    return files


def histories_of(rows: list[dict], epochs: int = 2) -> dict[str, list[dict[str, float]]]:
    """Learning curves of the cells that were trained: epoch 0 has no loss."""
    found = {}
    for number, line in enumerate(line for line in rows if "qat" in line["method"]):
        start = 0.01 if line["method"] == "qat" else 0.002
        history: list[dict[str, float]] = [{"epoch": 0, "val_ssim": line["test_ssim"] - start}]
        for epoch in range(1, epochs + 1):
            left = 0.4**epoch
            figures = {"train_loss": 0.026 + 0.004 * left + 1e-4 * number, "learning_rate": 1e-4 * left}
            history.append({"epoch": epoch, "val_ssim": line["test_ssim"] - start * left, **figures})
        found[line["cell"]] = history
    return found


def changed(rows: list[dict], cell: str, **given) -> list[dict]:
    return [{**row, **given} if row["cell"] == cell else row for row in rows]


def text_of(rows: list[dict], facts: dict | None = None, **given) -> str:
    """The report as Markdown; no picture is drawn and no file written."""
    return markdown_text(report(ReportInputs(rows, facts or context(), **given)))
