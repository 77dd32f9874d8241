"""The devices that latencies were measured on, side by side."""

from collections.abc import Sequence
from functools import partial

from grid.report.cells import engine_ratio_cell, figure_cell, name_cell, text_cell
from grid.report.devices.picture import MOST_NETWORKS, draw_devices
from grid.report.document import Cell, Column, Paragraph, Picture, Section, Table
from grid.report.formats import DASH
from grid.report.inputs import ReportInputs
from grid.results.ranking import Row, value
from grid.space.settings import LOCAL

_ABOUT = (
    "Each network is timed in turns with the float file of its own engine, on the same device, in the same process: "
    "that ratio is drawn. Milliseconds of different devices are not compared with each other, and each device has a "
    "recommendation of its own where the target asks for a latency. The local machine's ratio is of two figures that "
    "were each measured beside PyTorch's float network."
)
_LEVELS = (
    "Levels: by how much the device's outputs for a few test images differ from those of the host at most, in steps of "
    "the output. Memory: what loading and running the network adds there."
)


def devices(inputs: ReportInputs) -> Section | None:
    """Return the picture and the table of networks by device; nothing where only this machine measured."""
    timed = [row for row in inputs.rows if row["status"] == "ok" and value(row, "latency_ms_p50") is not None]
    names = list(dict.fromkeys(str(row.get("device") or LOCAL) for row in timed))
    if names in ([], [LOCAL]):
        return None
    networks: dict[str, dict[str, Row]] = {}
    for row in timed:
        networks.setdefault(network_name(row), {})[str(row.get("device") or LOCAL)] = row
    shown = {name: rows for name, rows in networks.items() if any(device != LOCAL for device in rows)}
    text = _ABOUT + (f" The first {MOST_NETWORKS} networks are drawn." if len(shown) > MOST_NETWORKS else "")
    picture = Picture("devices.png", "Networks by device", partial(draw_devices, shown, names))
    return Section(
        ("Devices",), (Paragraph((text,)), picture, _by_device(shown, names), Paragraph((_LEVELS,)), _there(timed))
    )


def network_name(row: Row) -> str:
    """The name of a row's cell without its device."""
    return str(row["cell"]).replace(f"-device={row.get('device')}", "")


def _by_device(networks: dict[str, dict[str, Row]], names: Sequence[str]) -> Table:
    """Milliseconds and the ratio to the engine's float file, a pair of columns a device."""
    columns = [Column("network", "name")]
    for name in names:
        columns += [Column(f"p50 ms, {name}", "number"), Column(f"x its engine's float, {name}", "number")]
    lines = []
    for network, rows in networks.items():
        cells = [name_cell(network)]
        for name in names:
            row = rows.get(name)
            cells += (
                [text_cell(DASH)] * 2 if row is None else [figure_cell(row, "latency_ms_p50"), engine_ratio_cell(row)]
            )
        lines.append(tuple(cells))
    return Table(tuple(columns), tuple(lines))


def _there(timed: Sequence[Row]) -> Table:
    """What a device adds to a row: its outputs against the host's, memory, accuracy, and whether it was hot."""
    there = [row for row in timed if row.get("timed_beside")]
    accuracy = sorted({name for row in there for name in row if name.startswith("device_test_")})
    further = {
        "device_levels_max": "levels at most",
        "device_levels_mean": "levels in the mean",
        "device_memory_mb": "memory, MB",
        **{name: f"{name.removeprefix('device_test_')} there" for name in accuracy},
    }
    columns = [Column("cell", "name"), Column("processor"), *(Column(title, "number") for title in further.values())]
    lines: list[tuple[Cell, ...]] = []
    for row in there:
        figures = (figure_cell(row, name) for name in further)
        lines.append(
            (name_cell(row["cell"]), text_cell(row["cpu_model"]), *figures, text_cell(row.get("throttled") or ""))
        )
    return Table((*columns, Column("throttled")), tuple(lines))
