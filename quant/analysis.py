"""Where the noise of a quantized network comes from: the error that each quantizer makes alone, and up to each one.

A *site* is one quantizer that rounds: a weight, or a value (with the resized and pooled values that share it). Isolated:
this site is on and all others are off. Cumulative: all sites up to this one, in the order in which the network runs,
are on. Both are read at the output of the network, against the same network with all sites off, as signal to
quantization noise ratio (SQNR) and as cosine.
"""

import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from quant.calibrate import Images
from quant.graph import module_of
from quant.inspect import require_state
from quant.prepare import QuantConv, quantizers

_IN_PLACE = {operator.iadd: operator.add, operator.imul: operator.mul}
_TINY = 1e-30
Progress = Callable[[dict[str, float]], None]
Values = dict[fx.Node, Tensor]


@dataclass(frozen=True)
class SiteError:
    """One site: what it does to the output, alone and with all before it, and what its range has to hold.

    ``name`` is its quantizer's, ``order`` its place in the run. ``noise_share`` is its part of the sum of all sites'
    isolated noise. ``site_sqnr_db`` is measured on the rounded weight, or value, itself. ``low`` and ``high`` are what
    each channel holds in float, ``clip_low`` and ``clip_high`` what the quantizer represents (one value, or one a
    channel).
    """

    name: str
    kind: str
    order: int
    isolated_sqnr_db: float
    isolated_cosine: float
    noise_share: float
    site_sqnr_db: float
    cumulative_sqnr_db: float
    cumulative_cosine: float
    low: tuple[float, ...]
    high: tuple[float, ...]
    clip_low: tuple[float, ...]
    clip_high: tuple[float, ...]

    @property
    def spread(self) -> float:
        """How many times the widest channel exceeds the median one: what one scale for all of them costs."""
        widest = torch.maximum(torch.tensor(self.low).abs(), torch.tensor(self.high).abs())
        return float(widest.max() / widest.median().clamp_min(_TINY))


@dataclass(frozen=True)
class Site:
    """A quantizer by name, the node whose value it rounds first, and all nodes that it can change."""

    name: str
    kind: str
    node: fx.Node
    reaches: frozenset[fx.Node]


@dataclass
class _Agreement:
    """Sums over what is compared, for SQNR and cosine."""

    count: int = 0
    reference: float = 0.0
    squared_reference: float = 0.0
    squared: float = 0.0
    product: float = 0.0
    error: float = 0.0

    def add(self, reference: Tensor, value: Tensor) -> None:
        reference, value = reference.flatten().double(), value.flatten().double()
        self.count += reference.numel()
        self.reference += float(reference.sum())
        self.squared_reference += float(reference @ reference)
        self.squared += float(value @ value)
        self.product += float(reference @ value)
        self.error += float((value - reference).square().sum())

    @property
    def sqnr_db(self) -> float:
        """As ``model.metrics.sqnr_db``."""
        variance = self.squared_reference / self.count - (self.reference / self.count) ** 2
        noise = max(self.error / self.count, _TINY)
        return float(10.0 * torch.log10(torch.tensor(max(variance, _TINY) / noise, dtype=torch.float64)))

    @property
    def cosine(self) -> float:
        return self.product / max((self.squared_reference * self.squared) ** 0.5, _TINY)


@dataclass
class _Found:
    """What is gathered of one site over the images."""

    isolated: _Agreement = field(default_factory=_Agreement)
    cumulative: _Agreement = field(default_factory=_Agreement)
    own: _Agreement = field(default_factory=_Agreement)
    low: Tensor | None = None
    high: Tensor | None = None
    clip_low: Tensor | None = None
    clip_high: Tensor | None = None


def sites(prepared: fx.GraphModule) -> tuple[Site, ...]:
    """All quantizers that are on, in the order in which they first round."""
    named = quantizers(prepared)
    starts: dict[str, list[fx.Node]] = {}
    for node in prepared.graph.nodes:
        if isinstance(module_of(prepared, node), QuantConv):
            starts[f"{node.target}.weight_quantizer"] = [node]
        elif str(node.target) in named:
            starts.setdefault(str(node.target), []).append(node)
    return tuple(
        Site(name, "weight" if named[name].weight else "activation", nodes[0], _reached(prepared, nodes))
        for name, nodes in starts.items()
        if named[name].mode != "off"
    )


def _reached(prepared: fx.GraphModule, starts: list[fx.Node]) -> frozenset[fx.Node]:
    reached = set(starts)
    for node in prepared.graph.nodes:
        if any(source in reached for source in node.all_input_nodes):
            reached.add(node)
    return frozenset(reached)


class _Runner(fx.Interpreter):
    """Runs a copy of a prepared network with chosen sites on, and computes only what these change."""

    def __init__(self, prepared: fx.GraphModule) -> None:
        super().__init__(_without_in_place(prepared), garbage_collect_values=False)
        self.sites = sites(self.module)  # type: ignore[arg-type]
        self.quantizers = quantizers(self.module)
        self.result = next(node for node in self.graph.nodes if node.op == "output")
        self.switch("off", *self.sites)

    def switch(self, mode: str, *chosen: Site) -> None:
        """Turn sites off, or on (``freeze``)."""
        for site in chosen:
            self.quantizers[site.name].set_mode(mode)

    def values(self, images: Tensor) -> Values:
        """Every value of the graph, with the sites as they are."""
        self.run(images)
        return self.env

    def changed(self, values: Values, site: Site) -> Values:
        """The values again, those that ``site`` reaches computed anew with the sites as they are."""
        self.run(initial_env={node: value for node, value in values.items() if node not in site.reaches})
        return self.env


def _without_in_place(prepared: fx.GraphModule) -> fx.GraphModule:
    """A copy whose operators leave their inputs alone, as they are looked at again."""
    graph_module = copy.deepcopy(prepared)
    for module in graph_module.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    for node in graph_module.graph.nodes:
        node.target = _IN_PLACE.get(node.target, node.target)
        if "inplace" in node.kwargs:
            node.update_kwarg("inplace", False)
    return graph_module


@torch.no_grad()
def analyze(
    prepared: fx.GraphModule, images: Images, progress: Progress = lambda info: None, batch_size: int = 1
) -> tuple[SiteError, ...]:
    """Isolated and cumulative error of every site, in the order of the run; ``ranked`` sorts them.

    Args:
        prepared: quantizers frozen at their ranges (those that are off stay off), eval mode; it is not changed.
        images: normalized, Nx3xHxW. About as many forward passes are made as there are sites, for each image.
        batch_size: images a pass; all values of a pass are kept.

    Raises QuantizerStateError where a quantizer still observes or follows, ValueError without images.
    """
    return tuple(
        SiteError(
            name=site.name,
            kind=site.kind,
            order=order,
            isolated_sqnr_db=found.isolated.sqnr_db,
            isolated_cosine=found.isolated.cosine,
            noise_share=share,
            site_sqnr_db=found.own.sqnr_db,
            cumulative_sqnr_db=found.cumulative.sqnr_db,
            cumulative_cosine=found.cumulative.cosine,
            low=_numbers(found.low),
            high=_numbers(found.high),
            clip_low=_numbers(found.clip_low),
            clip_high=_numbers(found.clip_high),
        )
        for order, (site, found, share) in enumerate(_with_shares(_gather(prepared, images, progress, batch_size)))
    )


@torch.no_grad()
def rank_sites(
    prepared: fx.GraphModule, images: Images, progress: Progress = lambda info: None, batch_size: int = 1
) -> tuple[str, ...]:
    """The names of all sites, the one with the largest isolated error first; half the work of ``analyze``."""
    gathered = _gather(prepared, images, progress, batch_size, cumulative=False)
    return tuple(site.name for site, found in sorted(gathered, key=lambda pair: pair[1].isolated.sqnr_db))


def ranked(errors: tuple[SiteError, ...]) -> list[SiteError]:
    """The sites, the one with the largest isolated error first."""
    return sorted(errors, key=lambda error: error.isolated_sqnr_db)


def _gather(
    prepared: fx.GraphModule, images: Images, progress: Progress, batch_size: int, cumulative: bool = True
) -> list[tuple[Site, _Found]]:
    if not len(images):
        raise ValueError("an analysis needs at least one image")
    require_state(prepared, "evaluate")
    runner = _Runner(prepared)
    device = next(prepared.parameters()).device
    found = {site: _Found() for site in runner.sites}
    batches = range(0, len(images), batch_size)
    for number, start in enumerate(batches):
        runner.switch("off", *runner.sites)
        plain = runner.values(images[start : start + batch_size].to(device))
        running = plain
        for order, site in enumerate(runner.sites, 1):
            gathered = found[site]
            runner.switch("freeze", site)
            output = runner.changed(plain, site)[runner.result]
            gathered.isolated.add(plain[runner.result], output)
            _look(runner, site, plain, gathered)
            runner.switch("off", site)
            progress({"step": number * len(found) + order, "steps": len(batches) * len(found)})
        for site in runner.sites if cumulative else ():
            runner.switch("freeze", site)
            running = runner.changed(running, site)
            found[site].cumulative.add(plain[runner.result], running[runner.result])
    return list(found.items())


def _look(runner: _Runner, site: Site, plain: Values, found: _Found) -> None:
    """The error at the site, which is on, and the range of each channel."""
    quantizer = runner.quantizers[site.name]
    if site.kind == "weight":
        value, axis = runner.module.get_submodule(str(site.node.target)).folded()[0], 0  # type: ignore[operator]
    else:
        value, axis = plain[site.node.args[0]], 1  # type: ignore[index]
    found.own.add(value, quantizer(value))
    others = [dim for dim in range(value.dim()) if dim != axis]
    low, high = value.amin(others), value.amax(others)
    found.low = low if found.low is None else torch.minimum(found.low, low)
    found.high = high if found.high is None else torch.maximum(found.high, high)
    found.clip_low = (quantizer.quant_min - quantizer.zero_point) * quantizer.scale
    found.clip_high = (quantizer.quant_max - quantizer.zero_point) * quantizer.scale


def _with_shares(gathered: list[tuple[Site, _Found]]) -> list[tuple[Site, _Found, float]]:
    total = max(sum(found.isolated.error for _, found in gathered), _TINY)
    return [(site, found, found.isolated.error / total) for site, found in gathered]


def _numbers(values: Tensor | None) -> tuple[float, ...]:
    assert values is not None
    return tuple(values.flatten().double().tolist())
