"""What a cell of a grid costs the driver, in a grid of a hundred cells and in one of two thousand.

The stages do nothing but leave a record, a few bytes of a network and the files that a cell's row, report and MLflow
run are made of. What is left is planning, Tune, the writing of the store, rows and MLflow, with a logged model a cell.
Each grid runs in a fresh process as ``runner.py`` runs it, with four stages of its own a cell. A cell costs the
wall time from the start of the first stage to the closed MLflow run, less the report (a figure of its own), over
the cells. Memory is that of the driver alone, at the end of the last stage and after the report: its private pages, and
all that are resident, of which those of shared libraries (torch, Ray, MLflow) are a large part from the start.
"""

import json
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.line import say

SIZES = (100, 2000)
IMAGES = 128
SPACE = """
name: thousands
baselines: false
max_cells: {cells}
axes:
  granularity: [per_channel, per_tensor]
  rounding.damping: {values}
settings: {{network: {{input_size: 64}}, rounding: {{images: 8}}, calibrate: {{images: 8}}}}
data: {{input_size: 64, rooms_train: 8, rooms_val: 1, rooms_test: 1}}
"""


def main() -> None:
    costs = {}
    for cells in SIZES:
        with tempfile.TemporaryDirectory() as name:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                figures = pool.submit(grid, Path(name), cells).result()
        costs[cells] = figures["cost_s"]
        of = f"{cells} cells, {figures['stages']} stages, MLflow with a model a cell"
        say(f"thousands_cost_s_a_cell_{cells}", figures["cost_s"], "s", f"{of}; goal < 0.6")
        say(f"thousands_plan_s_{cells}", figures["plan_s"], "s", of)
        say(f"thousands_mlflow_left_s_{cells}", figures["mlflow_s"], "s", "in the cost: MLflow, after the last stage")
        say(f"thousands_report_s_{cells}", figures["report_s"], "s", "rows, results.csv, pages and pictures at the end")
        for when in ("start", "end", "report"):
            private, resident = figures[f"{when}_private_mb"], figures[f"{when}_resident_mb"]
            say(f"thousands_driver_{when}_mb_{cells}", private, "MB", f"private pages; {resident:.0f} MB are resident")
    few, many = SIZES
    say("thousands_cost_ratio", costs[many] / costs[few], "x", f"a cell of {many} to a cell of {few}; goal <= 1.2")


def grid(folder: Path, cells: int) -> dict[str, float]:
    """Run one grid in this process; its figures."""
    os.environ["OMP_NUM_THREADS"] = "1"  # as runner.py does
    from rich.console import Console

    from grid.planning.plan import make_plan
    from grid.results.comparisons.margins import DEFAULTS
    from grid.results.target import DEFAULT, parse_target
    from grid.run.files import RunFiles
    from grid.run.live_results import LiveResults
    from grid.run.progress import Progress
    from grid.run.recorder import Recorder, run_context
    from grid.run.steps import write_results
    from grid.scheduling.listener import Listeners
    from grid.scheduling.resources import Resources
    from grid.scheduling.tune import cluster, run_plan
    from grid.space.search_space import load_space
    from grid.stages.work import Context
    from grid.storage.result_store import StageStore
    from model.data.pack import Pack, prepare_pack
    from model.network.checkpoint import checkpoint_sha256

    values = [round(0.01 * step, 2) for step in range(1, cells // 2 + 1)]
    (folder / "space.yaml").write_text(SPACE.format(cells=cells, values=values))
    space = load_space(folder / "space.yaml")
    checkpoint = folder / "small.safetensors"
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as aside:  # the driver imports no network
        aside.submit(make_checkpoint, checkpoint).result()
    pack = Pack(prepare_pack("rooms", folder / "packs", space.pack))
    began = time.monotonic()
    planned = make_plan(space, checkpoint_sha256(checkpoint), pack.fingerprint)
    plan_s = time.monotonic() - began
    nothing = tuple(replace(node, function="benchmarks.thousands:nothing") for node in planned.nodes)
    planned = replace(planned, nodes=nothing)
    store = StageStore(folder / "store")
    run_folder = store.root / "runs" / "thousands"
    run_folder.mkdir(parents=True)
    (run_folder / "plan.txt").write_text("")
    files = RunFiles(run_folder, planned, run_context(planned, pack, "thousands", "benchmarks.thousands"))
    recorder = Recorder(files, store, pack)

    class Watched(Progress):
        first = last = report = 0.0

        def started(self, node: Any) -> None:
            self.first = self.first or time.monotonic()
            super().started(node)

    write_files = files.write

    def timed_write(*arguments: Any) -> Any:
        began = time.monotonic()
        written = write_files(*arguments)
        progress.report = time.monotonic() - began
        return written

    files.write = timed_write  # type: ignore[method-assign]
    with open(os.devnull, "w") as quiet, Watched(planned, store, Console(file=quiet)) as progress:
        live = LiveResults(files, store, recorder.record_later, begun=recorder.open_later)
        at_start = memory_mb("start")
        with cluster(Resources()):
            outcome = run_plan(
                planned, Context(store.root, pack.path, checkpoint), Resources(), Listeners(progress, live)
            )
            progress.last, at_end = time.monotonic(), memory_mb("end")
            files.failures = outcome.failures
            rows = list(write_results(recorder, parse_target(DEFAULT), DEFAULTS).rows)
            end = time.monotonic()
    bad = [row for row in rows if row["status"] != "ok"]
    if bad or recorder.problem or len(rows) != cells:
        raise RuntimeError(f"{len(bad)} of {len(rows)} cells are not ok; MLflow: {recorder.problem}")
    return {
        "cost_s": (end - progress.first - progress.report) / cells,
        "plan_s": plan_s,
        "mlflow_s": end - progress.last - progress.report,
        "report_s": progress.report,
        "stages": len(planned.nodes),
        **memory_mb("report"),
        **at_start,
        **at_end,
    }


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


if __name__ == "__main__":
    sys.exit(main())
