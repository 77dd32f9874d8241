"""How far the engines of one recipe agree, with each other and with its simulation, on the same images."""

import csv
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch

from model.noise import comparable, sqnr_db
from model.tasks.nested import Nested, leaves


@dataclass(frozen=True)
class Agreement:
    """How far the outputs of ``other`` are from those of ``one``.

    ``sqnr_db`` is the ratio of one's signal to their difference, None where they are equal. Differences in levels are
    those of an output in its scale, the largest and the mean (of several outputs: of the one that is furthest off);
    None where no output is rounded.
    """

    one: str
    other: str
    sqnr_db: float | None
    largest_levels: float | None
    mean_levels: float | None


def agreements(outputs: Mapping[str, Nested], scales: Sequence[float | None]) -> list[Agreement]:
    """Every pair of what several networks gave for the same images, those of the first network first.

    ``scales`` are the steps between two levels of each output, None of one that is not rounded.
    """
    return [
        _agreement(one, other, outputs[one], outputs[other], scales)
        for one, other in itertools.combinations(outputs, 2)
    ]


def _agreement(one: str, other: str, first: Nested, second: Nested, scales: Sequence[float | None]) -> Agreement:
    pairs = [(value.double(), leaves(second)[name].double()) for name, value in leaves(first).items()]
    equal = all(torch.equal(*pair) for pair in pairs)
    apart = [(a - b).abs() / scale for (a, b), scale in zip(pairs, scales, strict=True) if scale is not None]
    return Agreement(
        one,
        other,
        None if equal else sqnr_db(*comparable(first, second)),
        max((float(levels.max()) for levels in apart), default=None),
        max((float(levels.mean()) for levels in apart), default=None),
    )


def write_csv(path: Path, found: Sequence[Agreement], headline: str, figures: Mapping[str, float]) -> None:
    """A row for each pair; ``figures`` are the headline metric by network."""
    columns = [*(field.name for field in fields(Agreement)), f"{headline}_one", f"{headline}_other"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for pair in found:
            writer.writerow([*asdict(pair).values(), figures[pair.one], figures[pair.other]])


def agreement_text(found: Sequence[Agreement], headline: str, figures: Mapping[str, float]) -> list[str]:
    """The same as lines of a table."""
    rows = [("", "and", "SQNR dB", "most levels", "mean levels", headline, "and")]
    for pair in found:
        decibels = "equal" if pair.sqnr_db is None else f"{pair.sqnr_db:.1f}"
        levels = ["–" if value is None else f"{value:.{places}f}" for value, places in _levels(pair)]
        both = (f"{figures[name]:.4f}" for name in (pair.one, pair.other))
        rows.append((pair.one, pair.other, decibels, *levels, *both))  # type: ignore[arg-type]  # as many as above
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_aligned(*cell) for cell in zip(row, widths, range(len(row)), strict=True)) for row in rows]


def _levels(pair: Agreement) -> tuple[tuple[float | None, int], ...]:
    return (pair.largest_levels, 1), (pair.mean_levels, 3)


def _aligned(text: str, width: int, place: int) -> str:
    return text.ljust(width) if place < 2 else text.rjust(width)
