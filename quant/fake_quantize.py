"""Fake quantization: observes ranges, simulates int8 rounding, and holds the scale and zero point."""

import torch
from torch import Tensor, nn

from quant.qat.learnable_fake_quantize import LearnableFakeQuantize
from quant.ranges import RangeObserver, affine_qparams, symmetric_qparams, weight_limits
from quant.straight_through import straight_through

MODES = ("off", "calibrate", "moving_average", "freeze", "learn")
"""off: passes values through. calibrate: gathers statistics, passes through. moving_average: quantizes with the moving
average of the batches' ranges (a weight with its own range). freeze: quantizes with fixed ranges. learn: quantizes with
ranges that are parameters."""
_FORMER_MODES = {"follow": "moving_average"}

_AVERAGING = 0.05


def current_mode(mode: str) -> str:
    """Today's name of a quantizer mode as older files have it."""
    return _FORMER_MODES.get(mode, mode)


class FakeQuantize(nn.Module):
    """Fake quantization of one tensor with a straight-through gradient (``torch.ao.quantization.FakeQuantize``).

    Activations are quint8 affine per tensor. Weights are symmetric integers of ``bits`` (8: -127 to 127; 4: -7 to 7;
    2: -1, 0, 1), per output channel when ``channels`` is given. ``fixed`` sets scale and zero point once for all;
    ``limit`` caps the upper end (a clamp such as ReLU6 that the int8 convolution absorbs).
    """

    scale: Tensor
    zero_point: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        *,
        weight: bool = False,
        bits: int = 8,
        channels: int | None = None,
        fixed: tuple[float, int] | None = None,
        limit: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.per_channel = channels is not None
        self.bits = bits
        largest: int = 2 ** (bits - 1) - 1 if weight else 2**bits - 1
        self.quant_min, self.quant_max = (-largest if weight else 0), largest
        self.fixed = fixed is not None
        self.limit = limit
        self.mode = "off"
        self.observer: RangeObserver | None = None
        self.learned: LearnableFakeQuantize | None = None
        scale, zero_point = fixed or (1.0, 0)
        size = (channels or 1,)
        self.register_buffer("scale", torch.full(size, float(scale)))
        self.register_buffer("zero_point", torch.full(size, zero_point, dtype=torch.int32))
        self.register_buffer("low", torch.full(size, float("inf")))
        self.register_buffer("high", torch.full(size, float("-inf")))

    def set_mode(self, mode: str, observer: RangeObserver | None = None) -> None:
        """Change the mode; a fixed quantizer only ever freezes. ``observer`` gathers statistics in calibrate.

        ``learn`` makes parameters of the range as it stands; leaving it keeps what they have become.
        """
        if mode not in MODES:
            raise ValueError(f"quantizer mode {mode!r} is unknown; expected one of {', '.join(MODES)}")
        if self.fixed and mode in ("moving_average", "learn"):
            mode = "freeze"
        if mode == "learn" and self.learned is None:
            limits = (self.quant_min, self.quant_max)
            self.learned = LearnableFakeQuantize(
                self.scale, self.zero_point, *limits, per_channel=self.per_channel, limit=self.limit
            )
        elif mode != "learn" and self.learned is not None:
            self._keep_learned(self.learned)
            self.learned = None
        self.mode = mode
        self.observer = observer if mode == "calibrate" and not self.fixed else None

    @torch.no_grad()
    def set_range(self, low: Tensor, high: Tensor) -> None:
        """Set the range (one value, or one a channel) and the scale and zero point that follow from it."""
        if not (torch.isfinite(low).all() and torch.isfinite(high).all()):
            raise FloatingPointError(f"quantizer range is not finite: low {low.min()}, high {high.max()}")
        if self.limit is not None:
            high = high.clamp(max=self.limit)
        self.low.copy_(low)
        self.high.copy_(high)
        if self.weight:
            self.scale.copy_(symmetric_qparams(low, high, self.quant_max))
        else:
            scale, zero_point = affine_qparams(low, high, self.quant_max)
            self.scale.copy_(scale)
            self.zero_point.copy_(zero_point)

    @torch.no_grad()
    def widen_(self, bits: int) -> None:
        """Give an activation more bits over the range that it has."""
        ends = ((end - self.zero_point) * self.scale for end in (self.quant_min, self.quant_max))
        self.bits, self.quant_max = bits, 2**bits - 1
        self.set_range(*ends)

    @torch.no_grad()
    def _keep_learned(self, learned: LearnableFakeQuantize) -> None:
        learned.project_()
        self.scale.copy_(learned.scale)
        self.zero_point.copy_(learned.zero_point.round())
        self.low.copy_((self.quant_min - self.zero_point) * self.scale)
        self.high.copy_((self.quant_max - self.zero_point) * self.scale)

    @torch.no_grad()
    def set_range_from_weight(self, weight: Tensor, method: str) -> None:
        """Set the range of a weight quantizer from the weight (out, in, kh, kw) by ``minmax`` or ``mse``."""
        self.set_range(*weight_limits(weight, method, self.per_channel, self.quant_max))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` as it would come back from int8, or unchanged, by mode."""
        if self.mode == "off":
            return x
        if self.mode == "calibrate":
            if self.observer is not None:
                self.observer.update(x.detach())
            return x
        if self.learned is not None:
            learned: Tensor = self.learned(x)
            return learned
        if self.mode == "moving_average" and self.weight:
            # Known exactly: the range of this very weight.
            self.set_range_from_weight(x, "minmax")
        elif self.mode == "moving_average":
            self._average_(x)
        return straight_through(x, self.scale, self.zero_point, (self.quant_min, self.quant_max))

    @torch.no_grad()
    def _average_(self, x: Tensor) -> None:
        """Move the range towards that of this batch; the first batch sets it."""
        low, high = (value.reshape(1) for value in x.aminmax())
        if torch.isfinite(self.low):
            low, high = (old + _AVERAGING * (new - old) for old, new in ((self.low, low), (self.high, high)))
        self.set_range(low, high)

    def quantize(self, x: Tensor) -> Tensor:
        """The integers (int32) that ``x`` becomes."""
        shape = (-1, *[1] * (x.dim() - 1)) if self.per_channel else (1,)
        scaled = torch.round(x / self.scale.reshape(shape)) + self.zero_point.reshape(shape)
        return scaled.clamp(self.quant_min, self.quant_max).to(torch.int32)

    def extra_repr(self) -> str:
        """Kind, granularity and mode, for the printed network."""
        kind = "weight" if self.weight else "activation"
        return f"{kind}, {self.bits} bits, {'per_channel' if self.per_channel else 'per_tensor'}, mode={self.mode}"
