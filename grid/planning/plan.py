"""SearchSpace -> Plan: the cells of a grid, and the trie of stages that they share."""

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field

from grid.space.search_space import Exclusion, SearchSpace
from grid.space.settings import Flat, Scalar, groups
from model.errors import InputError
from model.network.depth_network import NetworkSpec
from model.network.user_network import OWN, own_network
from quant.engines.catalog import TORCH, is_exported, missing

STAGE_SETTINGS: dict[str, tuple[str, ...]] = {
    # Which settings a stage reads; a prefix stands for its whole group. All else reaches a stage through the
    # ids of its inputs: fuse_bn and method by which stages there are, granularity through equalize, calibrate or
    # finetune, the engine through convert.
    # All that read the network also take in the SHA-256 of its file, where it is the user's own.
    "load": ("network",),  # and the checkpoint's sha256
    "train": ("network", "train", "seed"),
    "fuse": (),
    # The objective weights needs neither images nor granularity; the list is the same for all to keep one rule.
    "equalize": ("granularity", "equalize", "calibrate.images", "calibrate.outlier_ratio", "seed"),
    "calibrate": ("granularity", "calibrate", "seed"),
    "round": ("rounding", "seed"),
    "correct_bias": ("bias_correction",),
    "mix": ("mixed_precision", "seed"),
    # A cold start (method qat) initialises its ranges by the rules of calibrate as well.
    "finetune": ("granularity", "calibrate", "qat", "seed"),
    "convert": ("engine",),
    "evaluate": (),
    "profile": ("latency",),
    "analyze": ("analyze", "seed"),
}
STAGE_VERSIONS = dict.fromkeys(STAGE_SETTINGS, 1)
STAGE_VERSIONS |= {"train": 3, "equalize": 2, "calibrate": 4, "finetune": 3, "profile": 2}
"""Where a stage's code changes its results, raise its number: old ones are left."""

READS_DATA = tuple(stage for stage in STAGE_SETTINGS if stage != "load")
"""Their ids hold the data's fingerprint: they learn from it, or are checked or measured on it."""
LEAVES = ("evaluate", "profile", "analyze")
"""They look at a network; no stage works on what they leave."""


@dataclass(frozen=True)
class Node:
    """One stage to compute: ``inputs`` are (role, node id), ``cells`` the keys of all cells that need it.

    Roles: ``network`` (what the stage works on), ``teacher`` (finetune: the float root), ``reference`` (evaluate:
    the float root's test; profile: the float root), ``original`` (correct_bias behind round, mix, analyze: the
    calibrated network, whose weights no stage has written to).
    """

    id: str
    stage: str
    settings: Flat
    inputs: tuple[tuple[str, str], ...]
    cells: tuple[str, ...]


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


def chain(settings: Flat, given: bool) -> tuple[str, ...]:
    """The stages of a cell in their order; ``given``: a checkpoint holds its network."""
    stages = ["load"] if given else ["train"]
    if settings["train.init"] == "checkpoint":
        stages = ["load", "train"]
    if settings["fuse_bn"]:
        stages.append("fuse")
    if settings["method"] != "fp32":
        if "equalize" not in settings:  # the key itself is there, with None, where the group is off
            stages.append("equalize")
        if settings["method"] in ("ptq", "ptq+qat"):
            stages.append("calibrate")
            if "rounding" not in settings:
                stages.append("round")
            if "bias_correction" not in settings:
                stages.append("correct_bias")
            if "mixed_precision" not in settings:
                stages.append("mix")
        if settings["method"] in ("qat", "ptq+qat"):
            stages.append("finetune")
        stages.append("convert")
    elif is_exported(str(settings["engine"])):
        stages.append("convert")
    analyzed = settings["method"] != "fp32" and "analyze" not in settings
    return (*stages, "evaluate", "profile", "analyze") if analyzed else (*stages, "evaluate", "profile")


def make_plan(
    space: SearchSpace,
    checkpoint_sha256: str | None,
    fingerprint: str,
    checkpoint_network: NetworkSpec | None = None,
) -> Plan:
    """Plan a grid on the data with this ``fingerprint``.

    Cells start from the checkpoint where its hash is given, else each network is trained first. With
    ``checkpoint_network`` the checkpoint serves the cells of that network only and the others are trained.
    """
    own = {} if checkpoint_network is None else asdict(checkpoint_network)
    draft = _Draft(checkpoint_sha256, fingerprint)
    varied = [axis for axis in space.axes if len(axis[1]) > 1]
    cells: dict[str, Cell] = {}
    names: set[str] = set()
    repeats = 0
    for settings in _all_settings(space):
        fits = all(settings[f"network.{key}"] == value for key, value in own.items())
        given = checkpoint_sha256 is not None and fits
        if settings["train.init"] == "checkpoint" and not given:
            problem = f"'checkpoint' starts from none: no --checkpoint holds {settings['network.encoder']}"
            raise InputError("train.init", problem, "one of imagenet, lite0, random, or a checkpoint of this network")
        stages = chain(settings, given)
        parts = [draft.part(*item, settings) for item in _stage_keys(stages, tuple(settings))]
        key = draft.cell_key(stages, parts)
        if key in cells:
            repeats += 1
            continue
        relevant = {one: settings[one] for one in _relevant_keys(stages, tuple(settings))}
        reason = _reason(space.exclude, relevant) or missing(str(relevant.get("engine", "")))
        nodes = {} if reason else draft.add_(key, stages, parts)
        name = _name(relevant, varied)
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


@dataclass(frozen=True)
class _Part:
    """The settings of one stage, as a dict and as canonical JSON."""

    stage: str
    settings: Flat
    text: str


@dataclass
class _Draft:
    """The growing trie; settings become JSON once, and a node is hashed once, for all cells together."""

    checkpoint_sha256: str | None
    fingerprint: str
    parts: dict[tuple[str, tuple[Scalar, ...]], _Part] = field(default_factory=dict)
    ids: dict[tuple[str, str, tuple[tuple[str, str], ...]], str] = field(default_factory=dict)
    found: dict[str, tuple[_Part, tuple[tuple[str, str], ...], list[str]]] = field(default_factory=dict)

    def part(self, stage: str, keys: tuple[str, ...], settings: Flat) -> _Part:
        """What one stage takes from the settings of a cell."""
        values = tuple(map(settings.__getitem__, keys))
        part = self.parts.get((stage, values))
        if part is None:
            own = dict(zip(keys, values, strict=True))
            if stage == "load":
                own["checkpoint_sha256"] = self.checkpoint_sha256
            encoder = str(own.get("network.encoder", ""))
            if encoder.startswith(OWN):  # another file of the same name is another network
                own["network_sha256"] = own_network(encoder).sha256
            part = self.parts[stage, values] = _Part(stage, own, _canonical(own))
        return part

    def cell_key(self, stages: tuple[str, ...], parts: list[_Part]) -> str:
        """The hash of all that the cell's result depends on; an analysis looks at it and changes nothing."""
        own = [(part.stage, part.text) for part in parts if part.stage != "analyze"]
        return _digest(["cell", own, self.fingerprint])[:12]

    def add_(self, cell: str, stages: tuple[str, ...], parts: list[_Part]) -> dict[str, str]:
        """Add the chain of one cell; gives its node ids by stage."""
        own = dict(zip(stages, parts, strict=True))
        root = self._node(parts[0], (), cell)
        nodes = {stages[0]: root}
        if stages[:2] == ("load", "train"):
            root = nodes["train"] = self._node(parts[1], (("network", root),), cell)
        float_test = self._node(own["evaluate"], (("network", root),), cell)
        prepared = network = root
        for part in parts[1:]:
            if part.stage in (*LEAVES, "train"):
                continue
            # Fine-tuning also learns from the float network's predictions.
            further = (("teacher", root),) if part.stage == "finetune" else ()
            if part.stage == "mix" or (part.stage == "correct_bias" and "round" in own):
                further = (("original", nodes["calibrate"]),)
            prepared = network if part.stage == "convert" else prepared
            network = nodes[part.stage] = self._node(part, (("network", network), *further), cell)
        nodes["evaluate"] = float_test
        if network != root:
            compared = (("network", network), ("reference", float_test))
            nodes["evaluate"] = self._node(own["evaluate"], compared, cell)
        compared = (("network", network), ("reference", root))
        nodes["profile"] = self._node(own["profile"], compared, cell)
        if "analyze" in own:  # fine-tuning trains the weights: there is no other original behind it
            tuned = "finetune" in nodes
            original = () if tuned else (("original", nodes["calibrate"]),)
            nodes["analyze"] = self._node(own["analyze"], (("network", prepared), *original), cell)
        return nodes

    def _node(self, part: _Part, inputs: tuple[tuple[str, str], ...], cell: str) -> str:
        known = (part.stage, part.text, inputs)
        node = self.ids.get(known)
        if node is None:
            data = self.fingerprint if part.stage in READS_DATA else None
            node = _digest([part.stage, STAGE_VERSIONS[part.stage], part.text, data, inputs])[:20]
            self.ids[known] = node
            self.found[node] = (part, inputs, [])
        self.found[node][2].append(cell)  # once: a cell comes by each of its nodes once
        return node

    def nodes(self) -> tuple[Node, ...]:
        """All nodes, inputs first."""
        return tuple(
            Node(id, part.stage, part.settings, inputs, tuple(cells))
            for id, (part, inputs, cells) in self.found.items()
        )


def _canonical(content: object) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(content: object) -> str:
    return hashlib.sha256(_canonical(content).encode()).hexdigest()


def _matching(prefixes: Iterable[str], keys: Iterable[str]) -> tuple[str, ...]:
    wanted = tuple(prefixes)
    return tuple(key for key in keys if any(key == one or key.startswith(f"{one}.") for one in wanted))


@functools.cache
def _stage_keys(stages: tuple[str, ...], keys: tuple[str, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((stage, _matching(STAGE_SETTINGS[stage], keys)) for stage in stages)


@functools.cache
def _relevant_keys(stages: tuple[str, ...], keys: tuple[str, ...]) -> tuple[str, ...]:
    """What a cell's result depends on: its stages' settings, and those that gave it these stages."""
    prefixes = {prefix for stage in stages for prefix in STAGE_SETTINGS[stage]}
    prefixes.update(("fuse_bn", "method"))
    prefixes.update(("equalize", "analyze") if {"calibrate", "finetune"} & set(stages) else ())
    prefixes.update(("rounding", "bias_correction", "mixed_precision") if "calibrate" in stages else ())
    return _matching(prefixes, keys)


def _all_settings(space: SearchSpace) -> Iterator[Flat]:
    """The baselines, then every combination of the axes."""
    if space.baselines:
        stages = ("load", "train", "fuse", "evaluate", "profile")
        prefixes = [prefix for stage in stages for prefix in STAGE_SETTINGS[stage]]
        for settings in space.combinations(_matching(prefixes, [key for key, _ in space.axes])):
            for fuse_bn in (False, True):
                yield {**settings, "method": "fp32", "fuse_bn": fuse_bn, "engine": TORCH[0]}
        for settings in space.combinations(_matching([*prefixes, "engine"], [key for key, _ in space.axes])):
            if is_exported(str(settings["engine"])):  # engines that run float networks as well fold BatchNorm
                yield {**settings, "method": "fp32", "fuse_bn": True}
    yield from space.combinations()


def _reason(exclusions: Iterable[Exclusion], relevant: Flat) -> str | None:
    """Why a cell is excluded, or None; settings that the cell ignores exclude nothing."""

    def holds(key: str, values: tuple[Scalar, ...]) -> bool:
        return any(value in values for value in _written(key, relevant))

    return next((one.reason for one in exclusions if all(holds(*item) for item in one.when.items())), None)


def _written(key: str, relevant: Flat) -> tuple[Scalar, ...]:
    """The value of a setting as search spaces write it, a group being true or false; () if it is ignored."""
    if key in groups() and key not in relevant:
        return (True,) if any(one.startswith(f"{key}.") for one in relevant) else ()
    return (relevant[key] if key not in groups() else False,) if key in relevant else ()


def _name(relevant: Flat, varied: Iterable[tuple[str, tuple[Scalar, ...]]]) -> str:
    """``fuse_bn-per_tensor-ptq+qat-qat.epochs=2-s1``: what tells a cell from others, safe as a file name."""
    parts: list[Scalar] = ["fuse_bn"] if relevant["fuse_bn"] else []
    parts = ["fp32", *parts] if relevant["method"] == "fp32" else [*parts, relevant["granularity"], relevant["method"]]
    keys = [key for key, _ in varied if key not in ("fuse_bn", "granularity", "method")]
    if relevant["method"] == "fp32" and "engine" in relevant and "engine" not in keys:
        keys.append("engine")  # the float file of the grid's only engine, beside PyTorch's float network
    for key in keys:
        for value in _written(key, relevant):
            written = ("off", "on")[value] if isinstance(value, bool) else value
            parts.append(f"s{written}" if key == "seed" else f"{key}={written}")
    return re.sub(r"[^\w.=+-]", "_", "-".join(map(str, parts)))
