"""One grid of many cells whose stages are made up, from its plan to the closed MLflow run, as ``runner.py`` runs it."""

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class Setup:
    """What computes the stages, where Ray and the storage are (None: here), and which stages are to fail.

    ``said`` gets the number of finished stages after each of them.
    """

    function: str = "benchmarks.thousands.stages:nothing"
    address: str | None = None
    storage: str | None = None
    fails: Callable[[str, str], bool] = lambda stage, node_id: False
    said: Callable[[int], None] = lambda done: None


def grid(folder: Path, cells: int, setup: Setup = Setup()) -> dict[str, Any]:
    """Run one grid in this process; its figures. Raises RuntimeError where rows are not as they are to be."""
    os.environ["OMP_NUM_THREADS"] = "1"  # as runner.py does
    from ray._private.state import actors as actor_states
    from rich.console import Console

    from grid.planning.plan import make_plan
    from grid.planning.stage import CPU
    from grid.results.measures import DEPTH
    from grid.results.target import parse_target
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
    from grid.storage.copies import kept_copy
    from grid.storage.remote import open_storage
    from grid.storage.result_store import StageStore
    from model.data.pack import Pack, prepare_pack
    from model.network.checkpoint import checkpoint_sha256

    values = [round(0.01 * step, 2) for step in range(1, cells // 2 + 1)]
    (folder / "space.yaml").write_text(SPACE.format(cells=cells, values=values))
    space = load_space(folder / "space.yaml")
    checkpoint = folder / "small.safetensors"
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as aside:  # the driver imports no network
        aside.submit(make_checkpoint, checkpoint).result()
    root, remote = open_storage(setup.storage or str(folder / "store"))
    pack = Pack(prepare_pack("rooms", root / "packs", space.pack))
    began = time.monotonic()
    planned = make_plan(space, checkpoint_sha256(checkpoint), pack.fingerprint)
    plan_s = time.monotonic() - began
    given = {"function": setup.function} | ({"device": CPU} if setup.address else {})
    planned = replace(planned, nodes=tuple(replace(node, **given) for node in planned.nodes))
    store = StageStore(root, remote)
    checkpoint = kept_copy(checkpoint, root / "checkpoints")
    if remote is not None:
        for file in (pack.path, checkpoint):
            remote.push_file(file.relative_to(root).as_posix())
    context, resources = Context(root, pack.path, checkpoint, remote=remote), Resources(address=setup.address)
    run_folder = store.root / "runs" / "thousands"
    run_folder.mkdir(parents=True)
    (run_folder / "plan.txt").write_text("")
    files = RunFiles(run_folder, planned, run_context(planned, pack, "thousands", "benchmarks.thousands"))
    recorder = Recorder(files, store, pack)

    class Watched(Progress):
        first = last = report = 0.0
        count = 0

        def started(self, node: Any) -> None:
            self.first = self.first or time.monotonic()
            super().started(node)

        def finished(self, node: Any) -> None:
            super().finished(node)
            self.count, self.last = self.count + 1, time.monotonic()
            setup.said(self.count)

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
        with cluster(resources):
            outcome = run_plan(planned, context, resources, Listeners(progress, live))
            at_end, actors = memory_mb("end"), len(actor_states())
            files.failures = outcome.failures
            rows = list(write_results(recorder, parse_target(""), DEPTH.margins).rows)
            end = time.monotonic()
    stages = {node.id: node.stage for node in planned.nodes}
    to_fail = {cell.name for cell in planned.cells if any(setup.fails(stages[one], one) for one in cell.nodes.values())}
    bad = {row["cell"] for row in rows if row["status"] != "ok"}
    if bad != to_fail or recorder.problem or len(rows) != cells:
        wrong = f"{len(bad)} of {len(rows)} cells are not ok, {len(to_fail)} were to fail"
        log = store.root / "logs" / "driver.log"
        why = f"{outcome.stopped}\n{log.read_text()}" if log.is_file() else outcome.stopped
        raise RuntimeError(f"{wrong}; MLflow: {recorder.problem}; {list(outcome.failures.values())[:3]}; {why}")
    records = [store.record(node) for node in stages if store.has(node)]
    return {
        "first": progress.first,
        "last": progress.last,
        "end": end,
        "failed": len(bad),
        "actors": actors,
        "slept_s": sum(record["asserted"].get("slept_s", 0.0) for record in records),
        "machines": dict(Counter(record["asserted"].get("machine", "") for record in records)),
        "cost_s": (end - progress.first - progress.report) / cells,
        "plan_s": plan_s,
        "mlflow_s": end - progress.last - progress.report,
        "report_s": progress.report,
        "stages": len(planned.nodes),
        **memory_mb("report"),
        **at_start,
        **at_end,
    }
