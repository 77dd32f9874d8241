"""Equivalence margins: up to which difference two cells are as good as each other, by metric."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from grid.space.values import nearest
from model.errors import InputError

_FORM = re.compile(r"(\w+)\s*=\s*([^\s%]+)\s*(%?)")


@dataclass(frozen=True)
class Margin:
    """A difference that does not matter: absolute, or in parts of the figure that is compared with."""

    amount: float
    relative: bool = False

    def __str__(self) -> str:
        return f"{100 * self.amount:g} %" if self.relative else f"{self.amount:g}"

    def of(self, figure: float) -> float:
        """The margin around this figure, in its own unit."""
        return self.amount * abs(figure) if self.relative else self.amount


Margins = Mapping[str, Margin]
COSTS: Margins = {
    "sqnr_db": Margin(1.5),
    "size_mb": Margin(0.005, relative=True),
    "latency": Margin(0.03, relative=True),
    "latency_ms": Margin(0.03, relative=True),
}
"""Of what all tasks have. 1.5 dB is what drawing a network again moves: two calibrations of one recipe differ by it."""


def parse_margins(texts: Iterable[str], defaults: Margins) -> Margins:
    """Read ``top1=0.01`` or ``mse=2%``, several with commas, over ``defaults``. Raises InputError, naming the part."""
    margins = dict(defaults)
    for part in (part.strip() for text in texts for part in text.split(",")):
        if not part:
            continue
        found = _FORM.fullmatch(part)
        if found is None:
            raise InputError("--margin", f"{part!r} is no margin", "METRIC=NUMBER or METRIC=NUMBER%")
        metric, number, percent = found.groups()
        if metric not in defaults:
            options = f"one of {', '.join(defaults)}"
            raise InputError("--margin", f"{metric!r} is an unknown metric", options, nearest(metric, defaults))
        amount = _amount(part, number)
        margins[metric] = Margin(amount / 100 if percent else amount, bool(percent))
    return margins


def _amount(part: str, text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = float("nan")
    if not 0 <= amount < float("inf"):
        raise InputError("--margin", f"{part!r} holds no margin behind its sign", "a finite number from 0 on")
    return amount
