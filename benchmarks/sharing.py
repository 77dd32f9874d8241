"""What sharing stages saves: a grid's trie of stages beside the same cells as independent chains.

Both arms are computed by ``grid.stages.run.run_cell``, at the same time, each in a process of its own with one torch
thread: the trie in one store, the chains with a store for each cell, so that every chain loads, equalizes,
calibrates and evaluates its float reference itself. Summed are the ``seconds`` in the records of all stages that
an arm computed.

The network is the shipped one at 64 x 64; equalization sees 2 images where the default is 32. Two spaces:

* ``ptq``: 24 cells that are one until they are calibrated, and 24 different networks from there on.
* ``full``: the axes of ``search_spaces/full.yaml`` with small budgets.
"""

import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from benchmarks.line import say
from benchmarks.subject import smaller
from grid.planning.plan import Cell, Plan, make_plan
from grid.space.search_space import SearchSpace, load_space
from grid.stages.run import run_cell
from grid.stages.work import Context
from grid.storage.result_store import StageStore
from model.data.pack import Pack, prepare_pack
from model.network.checkpoint import checkpoint_sha256

SIZE = 64
PTQ = """
name: ptq
baselines: false
axes:
  bias_correction.method: [sequential, fast]
  bias_correction.images: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
"""
SMALL = {
    "network.input_size": SIZE,
    "data.input_size": SIZE,
    "data.rooms_train": 24,
    "data.rooms_val": 4,
    "data.rooms_test": 4,
    "equalize.images": 2,
    "calibrate.images": 12,
    "rounding": "false",
    "qat.epochs": 1,
    "qat.images_per_epoch": 8,
    "latency.seconds": 0.1,
}


@dataclass(frozen=True)
class Arm:
    """Cells to compute one after the other in one store."""

    plan: Plan
    cells: tuple[Cell, ...]
    context: Context


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "ptq.yaml").write_text(PTQ)
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            for space, goal in ((folder / "ptq.yaml", 0.6), ("full", 1.0)):
                small = load_space(space, [f"{key}={value}" for key, value in SMALL.items()])
                compare(small, goal, folder, pool)


def compare(space: SearchSpace, goal: float, folder: Path, pool: ProcessPoolExecutor) -> None:
    """Compute a space as a trie, and each of its cells as a chain; say how they compare."""
    checkpoint = folder / "small.safetensors"
    spec = smaller(checkpoint, SIZE)
    pack = prepare_pack("rooms", folder / "packs", space.pack)
    plan = make_plan(space, checkpoint_sha256(checkpoint), Pack(pack).fingerprint, spec)
    arms = [Arm(plan, plan.cells, Context(folder / f"{space.name}-trie", pack, checkpoint))]
    arms += [Arm(plan, (cell,), Context(folder / f"{space.name}-{cell.key}", pack, checkpoint)) for cell in plan.cells]
    trie, *chains = pool.map(compute, arms)
    alone = [one for chain in chains for one in chain]
    name, summed = f"sharing_{space.name}", f"sum of stage seconds, {len(plan.cells)} cells"
    say(f"{name}_trie_stages", len(trie), "stages", f"{len(alone)} in independent chains")
    say(f"{name}_chains_stages", len(alone), "stages", f"{len(trie)} in the trie")
    say(f"{name}_trie_s", sum(trie), "s", summed)
    say(f"{name}_chains_s", sum(alone), "s", summed)
    say(f"{name}_ratio", sum(trie) / sum(alone), "x", f"trie / independent chains; goal <= {goal}")


def compute(arm: Arm) -> list[float]:
    """The seconds of every stage that the cells of an arm took."""
    torch.set_num_threads(1)
    for cell in arm.cells:
        run_cell(arm.plan, cell, arm.context)
    store = StageStore(arm.context.storage)
    return [store.record(node.id)["seconds"] for node in arm.plan.nodes if store.has(node.id)]


if __name__ == "__main__":
    main()
