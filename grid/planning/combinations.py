"""The settings of all cells of a grid, as they are asked for and as they run, and the stages that a cell then has."""

from collections.abc import Collection, Iterable, Iterator

from grid.planning import stage_table
from grid.planning.stage import Stage
from grid.space.search_space import SearchSpace
from grid.space.settings import LOCAL, Flat, read_group
from model.network.spec import NetworkSpec
from quant.engines.catalog import FLOAT_RUNTIMES, TORCH, is_exported
from quant.recipe import FINETUNED


def chain(settings: Flat, given: bool) -> tuple[Stage, ...]:
    """The stages of a cell in their order; ``given``: a checkpoint holds its network."""
    return tuple(stage for stage in stage_table.STAGES if stage.in_cell(settings, given))


def matching(prefixes: Iterable[str], keys: Iterable[str]) -> tuple[str, ...]:
    """The keys that a prefix names: the key itself, or its group."""
    wanted = tuple(prefixes)
    return tuple(key for key in keys if any(key == one or key.startswith(f"{one}.") for one in wanted))


_OF_QUANTIZERS = ("qat.learned_scales", "qat.observe_batches", "qat.freeze_ranges_after")
"""Settings of QAT that mean nothing to its control."""


def all_settings(space: SearchSpace) -> Iterator[Flat]:
    """The baselines, then every combination of the axes; how a float network is run tells no others apart."""
    others = [key for key, _ in space.axes if key != "float_runtime"]
    if space.baselines:
        pytorch: Flat = {"method": "fp32", "engine": TORCH[0], "device": LOCAL}
        folded = {**space.base, **pytorch, "fuse_bn": True}
        stages = {stage.name: stage for given in (True, False) for stage in chain(folded, given)}
        prefixes = ["merge_branches", *(prefix for stage in stages.values() for prefix in stage.settings)]
        runtimes = dict(space.axes).get("float_runtime", (space.base["float_runtime"],))
        for settings in space.combinations(matching(prefixes, others)):
            yield {**settings, **pytorch, "fuse_bn": False}
            for runtime in runtimes:
                yield {**settings, **pytorch, "fuse_bn": True, "float_runtime": runtime}
        for settings in space.combinations(matching([*prefixes, "engine", "device"], others)):
            if is_exported(str(settings["engine"])):  # engines that run float networks as well fold BatchNorm
                yield {**settings, "method": "fp32", "fuse_bn": True}
    if space.finetuned_baseline and any(settings["method"] in ("qat", "ptq+qat") for settings in space.combinations()):
        axes = matching(("network", "merge_branches", "train", "qat", "seed"), others)
        budgets = space.combinations(key for key in axes if key not in _OF_QUANTIZERS)
        for settings in budgets:  # with BatchNorm folded: its statistics are held, as at the end of float training
            yield {**settings, "method": FINETUNED, "fuse_bn": True, "engine": TORCH[0], "device": LOCAL}
    yield from space.combinations(others)


def float_file(settings: Flat, engine: str) -> Flat:
    """The settings of the float network of a cell as a file of an engine."""
    return {**settings, "method": "fp32", "fuse_bn": True, "engine": engine, "device": LOCAL}


def network_of(settings: Flat) -> NetworkSpec:
    """Which network a cell has."""
    network: NetworkSpec = read_group(settings, "network")
    return network


def as_run(settings: Flat, branched: Collection[NetworkSpec]) -> Flat:
    """The settings with the merging of branches and the float runtime that the cell really has.

    Int8 networks and files have their engine. The float network with its BatchNorm is what all others are compared
    with, as it is; the other ways of running it stand beside the folded one.
    """
    own = settings["method"] == "fp32" and settings["fuse_bn"] and not is_exported(str(settings["engine"]))
    merges = bool(settings["merge_branches"]) and network_of(settings) in branched
    runtime = settings["float_runtime"] if own else FLOAT_RUNTIMES[0]
    return {**settings, "merge_branches": merges, "float_runtime": runtime}
