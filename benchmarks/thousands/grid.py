"""One grid of many cells whose stages do nothing, from its plan to the closed MLflow run, as ``runner.py`` runs it."""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.thousands.stages import make_checkpoint, memory_mb

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
    nothing = tuple(replace(node, function="benchmarks.thousands.stages:nothing") for node in planned.nodes)
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
