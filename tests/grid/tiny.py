"""A grid so small that it runs whole in a test: 64x64 pictures, twenty rooms, a float network of random weights."""

import dataclasses
import functools
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from grid.planning.plan import Cell, Node, Plan, make_plan
from grid.space.search_space import SearchSpace, load_space
from grid.stages.run import run_cell
from grid.stages.work import Context
from grid.storage.result_store import StageStore, write_record
from model.data.pack import Pack, PackSpec, prepare_pack
from model.images import normalize
from model.network.build import build_network
from model.network.checkpoint import checkpoint_sha256, save_checkpoint
from model.network.depth_network import DepthNetwork
from model.network.spec import NetworkSpec

ROOT = Path(__file__).resolve().parents[2]
SIZE = 64
SPEC = NetworkSpec(input_size=SIZE)
ROOMS = PackSpec(input_size=SIZE, rooms_train=12, rooms_val=4, rooms_test=4)
SETTINGS = f"""
settings:
  network: {{input_size: {SIZE}}}
  train: {{epochs: 1, batch_size: 4}}
  equalize: {{objective: activations}}
  calibrate: {{images: 4}}
  bias_correction: true
  qat: {{epochs: 1, images_per_epoch: 4, batch_size: 2}}
  latency: {{seconds: 0.2, loads: 3}}
data: {{input_size: {SIZE}, rooms_train: 12, rooms_val: 4, rooms_test: 4}}
"""


AXES = "{method: [ptq, qat, ptq+qat], fuse_bn: [false, true], equalize: [false, true], rounding: [false]}"
CELLS = {
    "fp32": "load evaluate profile",
    "fp32-fuse_bn": "load fuse evaluate profile",
    "per_channel-ptq-equalize=off": "load calibrate correct_bias convert evaluate profile",
    "fuse_bn-per_channel-ptq-equalize=off": "load fuse calibrate correct_bias convert evaluate profile",
    "per_channel-qat-equalize=on": "load equalize finetune convert evaluate profile",
    "fuse_bn-per_channel-ptq+qat-equalize=on": (
        "load fuse equalize calibrate correct_bias finetune convert evaluate profile"
    ),
}
"""Of the cells that AXES span those that the tests compute, with their chains."""


@dataclass(frozen=True)
class World:
    """What every tiny grid starts from: packed rooms and a float checkpoint."""

    folder: Path
    pack: Path
    checkpoint: Path

    @property
    def fingerprint(self) -> str:
        return Pack(self.pack).fingerprint

    def context(self, storage: Path) -> Context:
        return Context(Path(storage).absolute(), self.pack, self.checkpoint)

    def plan(self, space: SearchSpace, *, trained: bool = False) -> Plan:
        """The plan of a grid that starts from the checkpoint, or trains its float network first."""
        if trained:
            return make_plan(space, None, self.fingerprint)
        return make_plan(space, checkpoint_sha256(self.checkpoint), self.fingerprint, SPEC)


def space_file(path: Path, axes: str, more: str = "") -> Path:
    """Write a search space with these axes (YAML flow text) and tiny settings; ``more`` is top-level YAML."""
    path.write_text(f"name: tiny\naxes: {axes}\n{SETTINGS}{more}\n")
    return path


def space_of(folder: Path, axes: str, more: str = "", overrides: tuple[str, ...] = ()) -> SearchSpace:
    return load_space(space_file(Path(folder) / "tiny.yaml", axes, more), overrides)


def unmeasured(plan: Plan) -> Plan:
    """The plan without its latencies."""
    kept = {node.id: node for node in plan.nodes if node.stage != "profile"}
    cells = [
        dataclasses.replace(cell, nodes={stage: node for stage, node in cell.nodes.items() if node in kept})
        for cell in plan.cells
    ]
    return dataclasses.replace(plan, cells=tuple(cells), nodes=tuple(kept.values()))


def world(factory: pytest.TempPathFactory) -> World:
    """The packed rooms and the checkpoint, made once in a session of tests."""
    return _world(factory.getbasetemp() / "tiny-world")


@functools.cache
def _world(folder: Path) -> World:
    folder.mkdir()
    pack = prepare_pack("rooms", folder / "packs", ROOMS)
    checkpoint = folder / "tiny.safetensors"
    save_checkpoint(network(Pack(pack).images("train")), SPEC, checkpoint, {"made": "for tests"})
    return World(folder, pack, checkpoint)


@dataclass(frozen=True)
class Computed:
    """Six cells computed in this process: records by cell and stage."""

    plan: Plan
    context: Context
    records: dict[str, dict[str, dict[str, Any]]]

    def cell(self, name: str) -> Cell:
        return next(cell for cell in self.plan.cells if cell.name == name)

    def node(self, cell: str, stage: str) -> Node:
        wanted = self.cell(cell).nodes[stage]
        return next(node for node in self.plan.nodes if node.id == wanted)


def computed(factory: pytest.TempPathFactory) -> Computed:
    """The cells of CELLS, computed once in a session of tests."""
    return _computed(world(factory), factory.getbasetemp() / "tiny-computed")


@functools.cache
def _computed(world: World, folder: Path) -> Computed:
    folder.mkdir()
    plan, context = world.plan(space_of(folder, AXES)), world.context(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grid.stages.latency.PROFILER_STEPS", 3)
        cells = {cell.name: cell for cell in plan.cells}
        return Computed(plan, context, {name: run_cell(plan, cells[name], context) for name in CELLS})


def network(images: torch.Tensor) -> DepthNetwork:
    """Random weights, and the BatchNorm statistics of these images: signals neither fade nor grow on their way."""
    torch.manual_seed(0)
    made = build_network(SPEC)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a plain average
    with torch.no_grad():
        made.train()(normalize(images))
    return made.eval()


def put(store: StageStore, node: Node, metrics: dict[str, Any] | None = None, **record: Any) -> None:
    """A made-up result of a node, for rules that look at records alone."""
    with store.writer(node.id) as folder:
        (folder / "network.bin").write_bytes(node.id.encode())
        write_record(
            folder,
            {
                "stage": node.stage,
                "settings": dict(node.settings),
                "inputs": [list(pair) for pair in node.inputs],
                "metrics": metrics or {},
                "asserted": {},
                "history": [],
                "seconds": 1.0,
                **record,
            },
        )


def written(storage: Path) -> dict[str, int]:
    """When each stage of a store was written, in ns, by id."""
    found = {}
    for file in (Path(storage) / "stages").glob("*/result.json"):
        if not file.parent.name.startswith("."):
            found[file.parent.name] = file.stat().st_mtime_ns
    return found


def flip_byte(path: Path) -> None:
    """Damage a file in its middle, keeping its size."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def sighted_stage_trial(config: dict[str, Any], nodes: dict[str, Node], context: Context, **more: Any) -> None:
    """The trainable of ``grid.scheduling.tune``, with a note of where each node ran.

    The first fuse stage kills its worker. Where there are two cores, the two tunings of a grid wait for each
    other, so that two workers are busy at a time. Runs in a worker: what it patches is patched there.
    """
    from grid.scheduling import worker
    from grid.stages import run as trial

    compute = trial._compute

    def look(node: Node, store: StageStore, where: Context, *rest: Any) -> None:
        with sighted(node, where.storage):
            deadly = where.storage / "died"
            if node.stage == "fuse" and not deadly.exists():
                deadly.touch()
                os.kill(os.getpid(), 9)
            if node.stage == "finetune" and len(more["cores"]) > config["resources"]["CPU"]:
                meet(where.storage / "meeting", node.id)
            compute(node, store, where, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "_compute", look)
        worker.stage_trial(config, nodes=nodes, context=context, **more)


def meet(folder: Path, name: str) -> None:
    """Wait until a second one is there, at most a minute."""
    folder.mkdir(exist_ok=True)
    (folder / name).touch()
    end = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2 and time.monotonic() < end:
        time.sleep(0.05)


class SightedProfiler:
    """The profiling actor, with the same notes."""

    def __init__(self, cores: tuple[int, ...]) -> None:
        from grid.scheduling.profiler import Profiler

        self.profiler = Profiler(cores)

    def run(self, node: Node, context: Context) -> dict[str, Any]:
        from grid.stages import run as trial

        compute = trial._compute

        def look(node: Node, store: StageStore, where: Context, *rest: Any) -> None:
            with sighted(node, where.storage):
                compute(node, store, where, *rest)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trial, "_compute", look)
            return self.profiler.run(node, context)


@contextmanager
def sighted(node: Node, storage: Path) -> Iterator[None]:
    """Note on which cores, with how many threads and when the body ran."""
    note = {
        "node": node.id,
        "stage": node.stage,
        "cores": sorted(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "niceness": os.nice(0),
        "process": os.getpid(),
        "start": time.monotonic(),
    }
    try:
        yield
    finally:
        line = json.dumps({**note, "end": time.monotonic()}) + "\n"
        with (storage / "sightings.jsonl").open("a") as file:
            file.write(line)


def sightings(storage: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (storage / "sightings.jsonl").read_text().splitlines()]
