"""Where the operators of the analyzed cells run on each engine."""

import json
from collections.abc import Iterator
from pathlib import Path

from grid.planning.output_files import INSPECTION
from grid.report.document import Code, Paragraph, Section
from grid.report.inputs import ReportInputs
from grid.report.inspection import details, in_short
from quant.inspection.inspection import Inspection

_ABOUT = (
    "What each engine makes of the network, read from its own graph; an engine that is not installed was not asked. "
    "Cells whose operators run at the same places are told once."
)


def placement(inputs: ReportInputs) -> Section | None:
    """Return where the operators of the analyzed cells run, what stays in float, and what that costs."""
    found: dict[str, tuple[Inspection, list[str]]] = {}
    for cell, folder in inputs.analyses.items():
        if (inspection := _read(folder)) is not None:
            found.setdefault(_places(inspection), (inspection, []))[1].append(cell)
    if not found:
        return None
    sections = [_network(cells, inspection) for inspection, cells in found.values()]
    return Section(("What runs in int8",), (Paragraph((_ABOUT,)), *sections))


def _read(folder: Path) -> Inspection | None:
    """None for an analysis of an earlier version."""
    try:
        return Inspection.read(json.loads((folder / INSPECTION).read_text()))
    except FileNotFoundError:
        return None


def _places(inspection: Inspection) -> str:
    """The same for networks whose operators run at the same places."""
    placements = [(one.engine, *sorted(one.where.items())) for one in inspection.placements]
    return repr((placements, sorted(inspection.absent)))


def _network(cells: list[str], found: Inspection) -> Section:
    return Section(tuple(_names(cells)), (in_short(found), *details(found, ranges_of_noise=False)))


def _names(cells: list[str]) -> Iterator[str | Code]:
    for number, cell in enumerate(cells):
        if number:
            yield ", "
        yield Code(cell)
