"""Time by kind of operator as stacked bars, each int8 network beside its float network."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from grid.report.figures.colours import OPERATORS
from grid.results.operators.because import WORDS
from grid.results.operators.times import Beside, NetworkTimes
from quant.operator_times.operator_time import CONVERSION, FLOAT, KINDS, OUTSIDE

PYTORCH = "PyTorch's float network"
_HATCH = "////"
_ORDER = (*(kind for kind in KINDS if kind not in (CONVERSION, OUTSIDE)), CONVERSION, OUTSIDE)
_SPACE, _HEIGHT = 0.42, 0.36


def draw_operators(shown: Sequence[Beside], path: Path) -> None:
    """Draw two bars a network: int8 and float."""
    figure, axes = pyplot.subplots(figsize=(13, 1.6 + 1.05 * len(shown)), layout="constrained")
    places, labels = [], []
    for number, one in enumerate(shown):
        for network, place, name in (
            (one.int8, number - _SPACE / 2, one.int8.cell),
            (one.float_, number + _SPACE / 2, f"beside {one.float_.cell or PYTORCH}"),
        ):
            _bar(axes, network, place, in_int8=network is one.int8)
            places.append(place)
            labels.append(name)
    axes.set_yticks(places, labels, fontsize=9)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set_xlabel("ms a forward (left is better)")
    axes.grid(alpha=0.25, axis="x")
    axes.set_axisbelow(True)
    figure.legend(handles=list(_key(shown)), loc="outside lower center", ncols=4, fontsize=9)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _bar(axes: Axes, network: NetworkTimes, place: float, in_int8: bool) -> None:
    """Its kinds from left to right, what an int8 network has in float hatched; conversions behind the operators."""
    left = 0.0
    for kind in _ORDER:
        in_float = network.ms(kind, FLOAT) if in_int8 else 0.0
        for width, hatch in ((network.ms(kind) - in_float, ""), (in_float, _HATCH)):
            if width > 0:
                axes.barh(
                    place, width, _HEIGHT, left=left, facecolor=OPERATORS[kind], hatch=hatch, edgecolor="white",
                    linewidth=0.4,
                )  # fmt: skip
                left += width


def _key(shown: Sequence[Beside]) -> Iterator[Patch]:
    networks = [network for one in shown for network in (one.int8, one.float_)]
    for kind in _ORDER:
        if any(network.ms(kind) for network in networks):
            yield Patch(facecolor=OPERATORS[kind], label=WORDS[kind])
    yield Patch(facecolor="#dddddd", edgecolor="black", hatch=_HATCH, label="in float, within an int8 network")
