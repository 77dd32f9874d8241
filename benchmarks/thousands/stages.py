"""Stages that cost nothing and leave what rows, reports and MLflow read; and what both grids of them measure."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

IMAGES = 128
SLEEP_S = "BENCHMARK_SLEEP_S"
"""The environment variable that says how long a stage of ``sleeping`` takes."""


def make_checkpoint(path: Path) -> None:
    """Write a checkpoint of small pictures."""
    from benchmarks.subject import smaller

    smaller(path, 64)


def memory_mb(when: str) -> dict[str, float]:
    """The private and all resident pages of this process."""
    kb = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    private, resident = (float(kb[name].split()[0]) / 1e3 for name in ("RssAnon", "VmRSS"))
    return {f"{when}_private_mb": private, f"{when}_resident_mb": resident}


def nothing(work: Any) -> Any:
    """The function of every stage: a made-up record, and the files that others read of it."""
    from grid.planning.output_files import LATENCIES, OPERATORS, PER_IMAGE, SAMPLES
    from grid.stages.work import Outcome
    from grid.storage.per_image import MEASURES, ImageFigures, write_image_figures

    (work.out / "network.json").write_text(json.dumps({"of": work.node.id}))
    number = int(work.node.id[:6], 16) / 16**6
    if work.node.stage == "evaluate":
        picture = np.zeros((4, 64, 64, 3), np.uint8)
        depth = np.full((4, 16, 16), 5.0, np.float32)
        np.savez(work.out / SAMPLES, image=picture, truth=depth, prediction=depth + np.float32(number))
        noise, scene = np.random.default_rng(int(work.node.id[:6], 16)), np.arange(IMAGES) // 2
        ssim = 0.9 + number / 100 + 0.01 * noise.standard_normal(IMAGES)
        tables = {split: ImageFigures(scene, dict.fromkeys(MEASURES, ssim)) for split in ("val", "test")}
        write_image_figures(work.out / PER_IMAGE, tables)
        figures = {"ssim": 0.9 + number / 100, "mse": 0.01, "abs_rel": 0.1, "rmse_m": 0.4, "delta1": 0.9}
        return Outcome({**figures, "sqnr_db": 30 + number, "simulated_ssim": 0.9, "size_mb": 1.5})
    if work.node.stage == "profile":
        np.save(work.out / LATENCIES, np.full((20, 2), 0.01) + np.linspace(0, number / 1e3, 20)[:, None])
        (work.out / OPERATORS).write_text("none\n")
        names = ("latency_ms_p50", "latency_ms_p90", "latency_ratio", "latency_ratio_low", "latency_ratio_high")
        figures = dict.fromkeys((*names, "profiler_step_ms", "reference_ms_p50", "pairs"), 1.0 + number)
        return Outcome(figures, {"cpu_model": "none", "threads": 1})
    if work.node.stage == "convert":
        return Outcome({"graph_hash": work.node.id}, {"weight_freeze": 1})
    return Outcome()


def fails(stage: str, node_id: str) -> bool:
    """One cell in a hundred fails for good."""
    return stage == "convert" and int(node_id[:6], 16) % 100 == 0


def sleeping(work: Any) -> Any:
    """The function of every stage of a grid that waits: as ``nothing``, after a sleep that costs no core.

    One conversion in a hundred fails for good; one evaluation in 400 fails once, with an error that may pass and for
    which it is tried again in a fresh process.
    """
    from grid.storage.uri import CACHE

    if fails(work.node.stage, work.node.id):
        raise ValueError("made-up failure")
    machine = Path(os.environ[CACHE])
    passed = machine.parent / f"tried-{work.node.id}"
    if work.node.stage == "evaluate" and int(work.node.id[:6], 16) % 400 == 0 and not passed.exists():
        passed.touch()
        raise OSError("made-up error that passes")
    seconds = float(os.environ[SLEEP_S])
    time.sleep(seconds)
    outcome = nothing(work)
    return replace(outcome, asserted={**outcome.asserted, "machine": machine.name, "slept_s": seconds})
