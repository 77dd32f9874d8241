"""SearchSpace -> Plan: the cells of a grid, and the trie of stages that they share."""

import functools
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType

from grid.planning import stage_table
from grid.planning.cell_names import cell_name, written
from grid.planning.combinations import all_settings, as_run, chain, float_file, matching, network_of
from grid.planning.stage import CPU, Chain, Stage
from grid.space.search_space import Exclusion, SearchSpace
from grid.space.settings import LOCAL, Flat, Scalar
from model.errors import InputError
from model.network.spec import NetworkSpec
from model.network.user_network import OWN, own_network
from quant.engines.catalog import FLOAT_RUNTIMES, NO_NPU, ON_DEVICES, REVISIONS, missing, missing_npu, missing_runtime
from quant.recipe import FLOAT_METHODS


@dataclass(frozen=True)
class Node:
    """One stage to compute: ``inputs`` are (role, node id), ``cells`` the keys of all cells that need it.

    ``function`` and ``device`` are those of the stage's row in ``stage_table``. Roles: ``network`` (what the stage
    works on), ``teacher`` (finetune: the float root), ``reference`` (evaluate: the float root's test; profile: the
    float root), ``original`` (correct_bias behind round, mix, analyze: the calibrated network, whose weights no stage
    has written to), ``calibrated`` (round, correct_bias: the calibration, which knows its images), ``mixed``
    (finetune: the choice of float sites), ``rounded`` (finetune: the best weights off the grid), ``simulated``
    (evaluate, profile_on_device: the network that int8 was converted from), ``float`` and ``reference``
    (profile_on_device: the float files of the cell's engine, and of the one that all are compared with).
    """

    id: str
    stage: str
    settings: Flat
    inputs: tuple[tuple[str, str], ...]
    cells: tuple[str, ...]
    function: str
    device: str = CPU


@dataclass(frozen=True)
class Cell:
    """One row of the results; ``relevant`` are those of its ``settings`` that its stages read.

    The key is a hash of these, the checkpoint and the data. ``nodes`` maps each stage of the cell's own chain
    to a node id; it is empty where ``excluded`` has a reason.
    """

    key: str
    name: str
    settings: Flat
    relevant: Flat
    nodes: dict[str, str]
    excluded: str | None


@dataclass(frozen=True)
class Plan:
    """Cells to run, nodes in an order in which inputs come first, and the cells that were left out.

    ``repeats`` counts combinations of the axes that differ from a cell only in settings which it ignores.
    """

    cells: tuple[Cell, ...]
    nodes: tuple[Node, ...]
    excluded: tuple[Cell, ...]
    repeats: int


def make_plan(
    space: SearchSpace,
    checkpoint_sha256: str | None,
    fingerprint: str,
    checkpoint_network: NetworkSpec | None = None,
    branched: Collection[NetworkSpec] = (),
) -> Plan:
    """Plan a grid on the data with this ``fingerprint``.

    Cells start from the checkpoint where its hash is given, else each network is trained first. With
    ``checkpoint_network`` the checkpoint serves the cells of that network only and the others are trained.
    ``branched`` are the networks with branches to merge: in the cells of others ``merge_branches`` means nothing.
    """
    own = {} if checkpoint_network is None else asdict(checkpoint_network)
    draft = _Draft(checkpoint_sha256, fingerprint)
    varied = [axis for axis in space.axes if len(axis[1]) > 1]
    cells: dict[str, Cell] = {}
    names: set[str] = set()
    repeats = 0
    for asked in all_settings(space):
        settings = as_run(asked, branched)
        fits = all(settings[f"network.{key}"] == value for key, value in own.items())
        given = checkpoint_sha256 is not None and fits
        if settings["train.init"] == "checkpoint" and not given:
            problem = f"'checkpoint' starts from none: no --checkpoint holds {settings['network.encoder']}"
            raise InputError("train.init", problem, "one of imagenet, lite0, random, or a checkpoint of this network")
        stages = chain(settings, given)
        parts = [draft.part(stage, settings) for stage in stages]
        key = draft.cell_key(parts)
        if key in cells:
            repeats += 1
            continue
        relevant = {one: settings[one] for one in _relevant_keys(settings, given)}
        if network_of(settings) not in branched:
            del relevant["merge_branches"]
        reason = _reason(space.exclude, relevant) or missing(str(relevant.get("engine", "")))
        reason = reason or missing_runtime(str(relevant.get("float_runtime", ""))) or _off_device(settings)
        reason = reason or missing_npu(str(relevant.get("npu", NO_NPU)))
        nodes = {} if reason else draft.add_(key, parts, _float_files(draft, settings, given))
        name = cell_name(relevant, varied)
        if name in names:
            name += f"-{key[:6]}"
        names.add(name)
        cells[key] = Cell(key, name, settings, relevant, nodes, reason)
    return Plan(
        tuple(cell for cell in cells.values() if cell.excluded is None),
        draft.nodes(),
        tuple(cell for cell in cells.values() if cell.excluded is not None),
        repeats,
    )


def _off_device(settings: Flat) -> str | None:
    """Why the engine cannot run on the device of a cell, or None."""
    engine, device = str(settings["engine"]), settings["device"]
    if device == LOCAL or engine in ON_DEVICES:
        return missing(str(settings["device_reference"])) if device != LOCAL else None
    return f"{engine} does not run on {device}: devices have {' or '.join(ON_DEVICES)}"


def _float_files(draft: "_Draft", settings: Flat, given: bool) -> dict[str, list["_Part"]]:
    """By role, the stages that lead to the float files which a device times beside a cell's network."""
    if settings["device"] == LOCAL:
        return {}
    engines = {"float": str(settings["engine"]), "reference": str(settings["device_reference"])}
    wanted = {role: float_file(settings, engine) for role, engine in engines.items()}
    return {
        role: [draft.part(stage, own) for stage in chain(own, given) if stage.gives_network]
        for role, own in wanted.items()
    }


_NEWER: Flat = {
    "train.compile": False,
    "network.task": "depth",
    "network.inputs": "",
    "network.classes": 0,
    "equalize.silu_loss_db": 0.0,
}
"""Settings that came after results of their stages, with the value that is as before: it is in no id."""


@dataclass(frozen=True)
class _Part:
    """A stage with the settings that it reads, as a dict and, without what is newer, as canonical JSON."""

    stage: Stage
    settings: Flat
    text: str


@dataclass
class _Draft:
    """The growing trie; settings become JSON once, and a node is hashed once, for all cells together."""

    checkpoint_sha256: str | None
    fingerprint: str
    keys: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = field(default_factory=dict)
    parts: dict[tuple[str, tuple[Scalar, ...]], _Part] = field(default_factory=dict)
    ids: dict[tuple[str, str, tuple[tuple[str, str], ...]], str] = field(default_factory=dict)
    planned: dict[str, tuple[_Part, tuple[tuple[str, str], ...], list[str]]] = field(default_factory=dict)

    def part(self, stage: Stage, settings: Flat) -> _Part:
        """What one stage takes from the settings of a cell."""
        known = (stage.name, tuple(settings))
        if known not in self.keys:
            self.keys[known] = matching(stage.settings, settings)
        keys = self.keys[known]
        values = tuple(map(settings.__getitem__, keys))
        part = self.parts.get((stage.name, values))
        if part is None:
            own = dict(zip(keys, values, strict=True))
            if stage.reads_checkpoint:
                own["checkpoint_sha256"] = self.checkpoint_sha256
            if own.get("engine") in REVISIONS:
                own["engine_revision"] = REVISIONS[str(own["engine"])]
            encoder = str(own.get("network.encoder", ""))
            if encoder.startswith(OWN):  # another file of the same name is another network
                own["network_sha256"] = own_network(encoder).sha256
            hashed = {key: value for key, value in own.items() if _NEWER.get(key, ...) != value}
            part = self.parts[stage.name, values] = _Part(stage, own, _canonical(hashed))
        return part

    def cell_key(self, parts: list[_Part]) -> str:
        """The hash of all that the cell's result depends on; an analysis looks at it and changes nothing."""
        own = [(part.stage.name, part.text) for part in parts if part.stage.keyed]
        return _digest(["cell", own, self.fingerprint])[:12]

    def add_(
        self, cell: str, parts: list[_Part], floats: Mapping[str, list[_Part]] = MappingProxyType({})
    ) -> dict[str, str]:
        """Add the chain of one cell, behind those of the float files it needs by role; gives its node ids by stage."""
        test = next((part for part in parts if part.stage.name == "evaluate"), None)
        done = Chain(floats={role: self.add_(cell, chain)["convert"] for role, chain in floats.items()})
        for part, following in zip(parts, [*parts[1:], None], strict=True):
            name = part.stage.name
            inputs = {role: node for role, node in part.stage.inputs(done).items() if node is not None}
            done.inputs[name], done.nodes[name] = inputs, self._node(part, inputs, cell)
            if part.stage.gives_network:
                done.network = done.nodes[name]
            if part.stage.makes_root and not (following and following.stage.makes_root):
                done.root = done.network
                done.root_test = None if test is None else self._node(test, {"network": str(done.root)}, cell)
        return done.nodes

    def _node(self, part: _Part, inputs: dict[str, str], cell: str) -> str:
        hashed = tuple((role, node) for role, node in inputs.items() if role not in part.stage.implied)
        known = (part.stage.name, part.text, hashed)
        node = self.ids.get(known)
        if node is None:
            data = self.fingerprint if part.stage.reads_data else None
            node = _digest([part.stage.name, part.stage.version, part.text, data, hashed])[:20]
            self.ids[known] = node
            self.planned[node] = (part, tuple(inputs.items()), [])
        users = self.planned[node][2]
        if users[-1:] != [cell]:  # the test of the float network may be that of the cell, too
            users.append(cell)
        return node

    def nodes(self) -> tuple[Node, ...]:
        """All nodes, inputs first."""
        return tuple(
            Node(id, part.stage.name, part.settings, inputs, tuple(cells), part.stage.function, part.stage.device)
            for id, (part, inputs, cells) in self.planned.items()
        )


def _canonical(content: object) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(content: object) -> str:
    return hashlib.sha256(_canonical(content).encode()).hexdigest()


def _relevant_keys(settings: Flat, given: bool) -> tuple[str, ...]:
    """What a cell's result depends on: its stages' settings, and those that gave it these stages."""
    prefixes = {"merge_branches", "fuse_bn", "method"}
    if settings["method"] not in FLOAT_METHODS:
        prefixes.add("weight_bits")
    for stage in stage_table.STAGES:
        if stage.in_cell(settings, given):
            prefixes.update(stage.settings)
        if stage.switch and stage.belongs(settings, given):
            prefixes.add(stage.switch)
    if settings["float_runtime"] == FLOAT_RUNTIMES[0]:
        prefixes.discard("float_runtime")
    return _cached_matching(frozenset(prefixes), tuple(settings))


@functools.cache
def _cached_matching(prefixes: frozenset[str], keys: tuple[str, ...]) -> tuple[str, ...]:
    return matching(prefixes, keys)


def _reason(exclusions: Iterable[Exclusion], relevant: Flat) -> str | None:
    """Why a cell is excluded, or None; settings that the cell ignores exclude nothing."""

    def holds(key: str, values: tuple[Scalar, ...]) -> bool:
        return any(value in values for value in written(key, relevant))

    return next((one.reason for one in exclusions if all(holds(*item) for item in one.when.items())), None)
