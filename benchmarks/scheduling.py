"""What running a grid on Ray Tune and MLflow costs beside its stages, and what ten thousand cells cost the driver.

Every part runs in a fresh process of its own:

* ``grid``: small cells of the shipped network at 64 x 64, through ``cluster``, ``run_plan`` and ``Recorder`` as
  ``runner.py`` does. The wall time runs from the first stage's start, on workers that are up, to the closed MLflow
  run: the writing of all cells, results.csv and the report are in it. What a run pays once, the starts of Ray, of the
  workers and of the MLflow database, are figures of their own. Work is the sum of ``seconds`` in the records of all
  stages, each once, times the cores that the stage holds (one; a measurement on fewer than four cores holds all),
  divided by the machine's cores. Overhead a cell is (wall - work) / cells; cores that idle because inputs are missing
  are in it.
* ``bare``: Ray Tune with its default settings and up to 16 trials, each of which imports torch
  and reports once. Its wall time is that of ``fit`` alone.
* ``plan``: 10,000 cells are planned; then, under ``tracemalloc``, they are planned again and all that the driver
  keeps of them is made. What is remembered of MLflow runs is measured over few cells. What Tune itself keeps of its
  trials is not in the figure.
"""

import gc
import multiprocessing
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.line import say

SIZE = 64
GRID = f"""
name: scheduling
axes: {{granularity: [per_channel, per_tensor], fuse_bn: [false, true], rounding.damping: [0.5, 2.0]}}
settings:
  network: {{input_size: {SIZE}}}
  equalize: {{images: 4, sweeps: 1}}
  calibrate: {{images: 8}}
  rounding: {{images: 8}}
  latency: {{seconds: 1.0}}
data: {{input_size: {SIZE}, rooms_train: 24, rooms_val: 4, rooms_test: 8}}
"""
LARGE = f"""
name: large
baselines: false
max_cells: 10000
axes:
  granularity: [per_channel, per_tensor]
  fuse_bn: [false, true]
  seed: {list(range(50))}
  rounding.damping: {[0.1 * step for step in range(1, 51)]}
"""
TRACKED_CELLS = 50


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        trials = alone(grid, Path(name) / "grid")
        alone(bare, Path(name) / "bare", min(trials, 16))
        alone(plan, Path(name) / "plan")


def alone(part: Callable[..., Any], folder: Path, *more: Any) -> Any:
    """Run one part in a fresh process, with a folder of its own."""
    folder.mkdir()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(part, folder, *more).result()


def grid(folder: Path) -> int:
    """A small grid from its plan to the closed MLflow run; returns how many stages it had."""
    os.environ["OMP_NUM_THREADS"] = "1"  # as runner.py does
    from rich.console import Console

    from benchmarks.subject import smaller
    from grid.planning.plan import make_plan
    from grid.results.measures import DEPTH
    from grid.results.target import parse_target
    from grid.run.files import RunFiles
    from grid.run.live_results import LiveResults
    from grid.run.plan_text import describe
    from grid.run.progress import Progress
    from grid.run.recorder import Recorder, run_context
    from grid.run.steps import write_results
    from grid.scheduling.cores import own_cores
    from grid.scheduling.listener import Listeners
    from grid.scheduling.resources import FEW_CORES, Resources
    from grid.scheduling.tune import cluster, run_plan
    from grid.space.search_space import load_space
    from grid.stages.work import Context
    from grid.storage.result_store import StageStore
    from grid.tracking.uri import store_uri
    from model.data.pack import Pack, prepare_pack
    from model.network.checkpoint import checkpoint_sha256

    (folder / "grid.yaml").write_text(GRID)
    space = load_space(folder / "grid.yaml")
    checkpoint = folder / "small.safetensors"
    smaller(checkpoint, SIZE)
    pack = Pack(prepare_pack("rooms", folder / "packs", space.pack))
    planned = make_plan(space, checkpoint_sha256(checkpoint), pack.fingerprint)
    store = StageStore(folder / "store")
    run_dir = store.root / "runs" / "run"
    run_dir.mkdir(parents=True)
    (run_dir / "plan.txt").write_text("\n".join(describe(planned, store)) + "\n")

    began = time.monotonic()
    files = RunFiles(run_dir, planned, run_context(planned, pack, "run", "benchmarks.scheduling"))
    recorder = Recorder(files, store, pack, store_uri(store.root))  # named: it is opened at once
    tracking_s = time.monotonic() - began

    class Watched(Progress):
        first = 0.0

        def started(self, node: Any) -> None:
            self.first = self.first or time.monotonic()
            super().started(node)

    with Watched(planned, store, Console(file=sys.stderr)) as progress:
        began = time.monotonic()
        with cluster(Resources()):
            start_s, began = time.monotonic() - began, time.monotonic()
            context = Context(store.root, pack.path, checkpoint)
            listeners = Listeners(progress, LiveResults(files, store, recorder.record_later))
            failures = run_plan(planned, context, Resources(), listeners).failures
            workers_s, run_s = progress.first - began, time.monotonic() - progress.first
            files.failures = failures
            write_results(recorder, parse_target(""), DEPTH.margins)
            wall_s = time.monotonic() - progress.first
    if failures:
        raise RuntimeError(f"{len(failures)} stages failed: {next(iter(failures.values()))}")
    cores, cells = len(own_cores()), len(planned.cells)
    stages = [(node.stage, store.record(node.id)["seconds"]) for node in planned.nodes]
    held = cores if cores < FEW_CORES else 1
    work_s = sum(seconds * (held if stage == "profile" else 1) for stage, seconds in stages) / cores
    plain_s = sum(seconds for _, seconds in stages) / cores
    of = f"{cells} cells, {len(stages)} stages, {cores} cores"
    say("scheduling_ray_start_s", start_s, "s", "not in the wall time")
    say("scheduling_workers_start_s", workers_s, "s", "not in the wall time")
    say("scheduling_mlflow_create_s", tracking_s, "s", "not in the wall time")
    say("scheduling_wall_s", wall_s, "s", f"{of}; {wall_s - run_s:.1f} s of it the last report")
    say("scheduling_work_s", work_s, "s", f"core seconds / cores; {plain_s:.1f} s if a measurement held one core only")
    say("scheduling_wall_ratio", wall_s / work_s, "x", "wall / work; goal <= 1.15")
    say("scheduling_overhead_s_a_cell", (wall_s - work_s) / cells, "s", f"{of}, MLflow included; goal <= 1.5")
    say("scheduling_overhead_s_a_trial", (wall_s - work_s) / len(stages), "s", "bare Tune's seconds a trial below")
    return len(stages)


def bare(folder: Path, trials: int) -> None:
    """As many trials that do nothing but import torch, by Tune as it is out of the box."""
    import ray
    from ray import tune

    def trivial(config: dict[str, Any]) -> None:
        import torch

        tune.report({"threads": torch.get_num_threads()})

    ray.init("local", log_to_driver=False)
    space = {"trial": tune.grid_search(list(range(trials)))}
    config = tune.RunConfig(storage_path=str(folder), verbose=0)
    tuner = tune.Tuner(trivial, param_space=space, run_config=config)
    began = time.monotonic()
    results = tuner.fit()
    seconds = time.monotonic() - began
    if results.num_errors or len(results) != trials:
        raise RuntimeError(f"bare Tune: {results.num_errors} of {len(results)} trials failed")
    say("scheduling_bare_tune_s_a_trial", seconds / trials, "s", f"{trials} trivial trials that import torch")
    ray.shutdown()


def plan(folder: Path) -> None:
    """The plan of 10,000 cells, and what the driver keeps of each."""
    from grid.planning.plan import make_plan
    from grid.run.files import RunFiles
    from grid.run.live_results import LiveResults
    from grid.run.progress import Progress
    from grid.scheduling.listener import Listeners
    from grid.scheduling.resources import Resources
    from grid.scheduling.searcher import TrieSearcher
    from grid.space.search_space import load_space
    from grid.storage.result_store import StageStore
    from grid.tracking.cell_run import CellRun
    from grid.tracking.mlflow_store import Tracking

    (folder / "large.yaml").write_text(LARGE)
    space, store = load_space(folder / "large.yaml"), StageStore(folder / "store")
    began = time.monotonic()
    make_plan(space, "0" * 64, "0" * 16)
    plan_s = time.monotonic() - began
    gc.collect()
    tracemalloc.start()
    planned = make_plan(space, "0" * 64, "0" * 16)
    live = LiveResults(RunFiles(folder, planned, {"run": "large"}), store, lambda cell, row: None)
    listeners = Listeners(Progress(planned, store), live)
    kept = TrieSearcher(planned, store, Resources(), listeners, 400), {node.id: node for node in planned.nodes}
    cells = len(planned.cells)
    grown_kb = traced_kb() / cells
    tracemalloc.stop()
    of = f"{cells} cells, {len(planned.nodes)} stages"
    say("scheduling_plan_s", plan_s, "s", f"{of}; goal <= 3")
    say("scheduling_plan_kb_a_cell", grown_kb, "KB", "plan, listeners, searcher and nodes")
    del kept

    tracking = Tracking(f"sqlite:///{folder / 'mlflow.db'}", "benchmark", folder / "artifacts")
    parent = tracking.parent("run", {}, {})

    def write(which: slice) -> None:
        for cell in planned.cells[which]:
            figures = {f"figure_{number}": float(number) for number in range(20)}
            params = {"cell": cell.name, **cell.relevant}
            tracking.write_cell(parent, CellRun(cell.key, cell.name, params, figures))

    write(slice(5))
    tracemalloc.start()
    write(slice(5, 5 + TRACKED_CELLS))
    tracked_kb = traced_kb() / TRACKED_CELLS
    say("scheduling_mlflow_kb_a_cell", tracked_kb, "KB", f"runs remembered, {TRACKED_CELLS} cells with 20 figures")
    say("scheduling_driver_kb_a_cell", grown_kb + tracked_kb, "KB", "the two above; goal <= 20")


def traced_kb() -> float:
    """What has been allocated under ``tracemalloc`` and is still in use."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0] / 1e3


if __name__ == "__main__":
    main()
