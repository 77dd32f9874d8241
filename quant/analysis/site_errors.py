"""Where the noise of a quantized network comes from: the error that each quantizer makes alone, and up to each one.

A *site* is one quantizer that rounds: of a weight, or of a value (resized and pooled values share that of their
input). Isolated: this site is on and all others are off. Cumulative: all sites up to this one, in the order in which
the network runs, are on. Both are read at the output of the network, against the same network with all sites off, as
signal to quantization noise ratio (SQNR) and as cosine. (SQNR by quantizer as in Pandey et al. 2023,
arXiv:2302.05397.)
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from model.noise import comparable
from model.progress import Progress, ignore_progress
from model.tasks.nested import Nested
from quant.analysis.sites import QuantizerSite, SitesRunner
from quant.calibrate import Images
from quant.fake_quantize import FakeQuantize
from quant.state import require_state

_TINY = 1e-30


@dataclass(frozen=True)
class SiteError:
    """One site: its effect on the output, alone and with all before it, and what its range has to hold.

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
        """How many times the widest channel exceeds the median one that is not dead: what one scale for all costs."""
        widths = torch.maximum(torch.tensor(self.low).abs(), torch.tensor(self.high).abs())
        alive = widths[widths > 0]
        return float(alive.max() / alive.median()) if len(alive) else 1.0


@dataclass
class _Agreement:
    """Sums over what is compared, for SQNR and cosine."""

    count: int = 0
    reference: float = 0.0
    squared_reference: float = 0.0
    squared: float = 0.0
    product: float = 0.0
    error: float = 0.0

    def add(self, reference: Nested, value: Nested) -> None:
        reference, value = (one.flatten().double() for one in comparable(reference, value))
        self.count += reference.numel()
        self.reference += float(reference.sum())
        self.squared_reference += float(reference @ reference)
        self.squared += float(value @ value)
        self.product += float(reference @ value)
        self.error += float((value - reference).square().sum())

    @property
    def sqnr_db(self) -> float:
        """As ``model.noise.sqnr_db``."""
        variance = self.squared_reference / self.count - (self.reference / self.count) ** 2
        noise = max(self.error / self.count, _TINY)
        return float(10.0 * torch.log10(torch.tensor(max(variance, _TINY) / noise, dtype=torch.float64)))

    @property
    def cosine(self) -> float:
        norm: float = (self.squared_reference * self.squared) ** 0.5
        return self.product / max(norm, _TINY)


@dataclass
class _Statistics:
    """What is gathered of one site over the images."""

    isolated: _Agreement = field(default_factory=_Agreement)
    cumulative: _Agreement = field(default_factory=_Agreement)
    own: _Agreement = field(default_factory=_Agreement)
    low: Tensor | None = None
    high: Tensor | None = None
    clip_low: Tensor | None = None
    clip_high: Tensor | None = None

    def add(self, value: Tensor, rounded: Tensor, channel_dim: int, quantizer: FakeQuantize) -> None:
        """Take in the error at the site itself, and the range of each channel."""
        self.own.add(value, rounded)
        others = [dim for dim in range(value.dim()) if dim != channel_dim]
        low, high = value.amin(others), value.amax(others)
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)
        self.clip_low = (quantizer.quant_min - quantizer.zero_point) * quantizer.scale
        self.clip_high = (quantizer.quant_max - quantizer.zero_point) * quantizer.scale


@torch.no_grad()
def analyze(
    prepared: fx.GraphModule,
    images: Images,
    progress: Progress = ignore_progress,
    *,
    original: fx.GraphModule | None = None,
    batch_size: int = 2,
) -> tuple[SiteError, ...]:
    """Isolated and cumulative error of every site, in the order of the run; ``ranked`` sorts them.

    Args:
        prepared: quantizers frozen at their ranges (those that are off stay off), eval mode; it is not changed.
        images: normalized, Nx3xHxW. About as many forward passes are made as there are sites, for each image.
        original: the calibrated network, where later steps (rounding, bias correction) have written into
            weights and biases: a weight that is off is then the original one, with its bias.
        batch_size: images a pass; all values of a pass are kept.

    Raises QuantizerStateError where a quantizer still observes or averages, ValueError without images.
    """
    gathered = _gather(prepared, original or prepared, images, progress, batch_size)
    return tuple(
        SiteError(
            name=site.name,
            kind=site.kind,
            order=order,
            isolated_sqnr_db=statistics.isolated.sqnr_db,
            isolated_cosine=statistics.isolated.cosine,
            noise_share=share,
            site_sqnr_db=statistics.own.sqnr_db,
            cumulative_sqnr_db=statistics.cumulative.sqnr_db,
            cumulative_cosine=statistics.cumulative.cosine,
            low=_numbers(statistics.low),
            high=_numbers(statistics.high),
            clip_low=_numbers(statistics.clip_low),
            clip_high=_numbers(statistics.clip_high),
        )
        for order, (site, statistics, share) in enumerate(_with_shares(gathered))
    )


@torch.no_grad()
def rank_sites(
    prepared: fx.GraphModule,
    images: Images,
    progress: Progress = ignore_progress,
    *,
    original: fx.GraphModule | None = None,
    batch_size: int = 2,
) -> tuple[str, ...]:
    """The names of all sites, the one with the largest isolated error first; half the work of ``analyze``."""
    gathered = _gather(prepared, original or prepared, images, progress, batch_size, cumulative=False)
    return tuple(site.name for site, _ in sorted(gathered, key=lambda pair: pair[1].isolated.sqnr_db))


def ranked(errors: tuple[SiteError, ...]) -> list[SiteError]:
    """The sites, the one with the largest isolated error first."""
    return sorted(errors, key=lambda error: error.isolated_sqnr_db)


def _gather(
    prepared: fx.GraphModule,
    original: fx.GraphModule,
    images: Images,
    progress: Progress,
    batch_size: int,
    cumulative: bool = True,
) -> list[tuple[QuantizerSite, _Statistics]]:
    if not len(images):
        raise ValueError("an analysis needs at least one image")
    require_state(prepared, "evaluate")
    runner = SitesRunner(prepared, original)
    device = next(prepared.parameters()).device
    gathered = {site: _Statistics() for site in runner.sites}
    batches = range(0, len(images), batch_size)
    steps = len(batches) * len(gathered) * (2 if cumulative else 1)
    step = 0
    for start in batches:
        plain = runner.values(images[start : start + batch_size].to(device))
        for site in runner.sites:
            runner.switch(True, site)
            changed = runner.changed(plain, site)
            gathered[site].isolated.add(plain[runner.result], changed[runner.result])
            gathered[site].add(*runner.at(site, plain), runner.quantizers[site.name])
            runner.switch(False, site)
            step += 1
            progress({"step": step, "steps": steps})
        running = plain
        for site in runner.sites if cumulative else ():
            runner.switch(True, site)
            running = runner.changed(running, site)
            gathered[site].cumulative.add(plain[runner.result], running[runner.result])
            step += 1
            progress({"step": step, "steps": steps})
        runner.switch(False, *runner.sites)
    return list(gathered.items())


def _with_shares(gathered: list[tuple[QuantizerSite, _Statistics]]) -> list[tuple[QuantizerSite, _Statistics, float]]:
    total = max(sum(statistics.isolated.error for _, statistics in gathered), _TINY)
    return [(site, statistics, statistics.isolated.error / total) for site, statistics in gathered]


def _numbers(values: Tensor | None) -> tuple[float, ...]:
    assert values is not None
    return tuple(values.flatten().double().tolist())
