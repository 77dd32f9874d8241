"""Plan and store -> result rows: the store is the only source of figures."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from grid.planning.plan import Cell, Plan
from grid.planning.stage_table import stage_named
from grid.space.settings import LOCAL, groups, switch_of
from grid.storage.result_store import StageStore
from quant.recipe import FLOAT_METHODS

Row = dict[str, Any]
_STANDARD = ("fuse_bn", "granularity", "method", "engine", "seed")
_TOLD = (*_STANDARD, "network.encoder", "device")
"""Settings that have columns in every table."""


def result_rows(plan: Plan, store: StageStore, failures: Mapping[str, str]) -> list[Row]:
    """One row a cell, in plan order: ok, failed (with its reason), skipped (not run yet) or excluded.

    A cell whose int8 network has the hash of an earlier one says ``same_as``: it is the same arithmetic.
    """
    axes = further_axes(plan)
    rows = [cell_row(cell, axes, store, failures) for cell in plan.cells]
    first: dict[str, str] = {}
    for row in rows:
        if row["graph_hash"]:
            row["same_as"] = first.setdefault(row["graph_hash"], row["cell"])
            row["same_as"] = None if row["same_as"] == row["cell"] else row["same_as"]
    left_out = {"status": "excluded", "same_as": None, "graph_hash": None}
    return rows + [
        {**_settings(cell), **left_out, "reason": cell.excluded, **_further(cell, axes)} for cell in plan.excluded
    ]


def cell_row(cell: Cell, axes: list[str], store: StageStore, failures: Mapping[str, str]) -> Row:
    """The row of one cell of a grid with these ``further_axes``, as if no other had the same network."""
    return _row(cell, store, failures) | _further(cell, axes)


def further_axes(plan: Plan) -> list[str]:
    """Settings beside the standard columns in which the cells of this grid differ: its further axes."""
    values: dict[str, set[object]] = {}
    for cell in (*plan.cells, *plan.excluded):
        for key, value in _chosen(cell).items():
            values.setdefault(key, set()).add(value)
    return [key for key, seen in values.items() if len(seen) > 1 and key not in _TOLD]


def settings_by_place(plan: Plan) -> tuple[Row, dict[str, Row]]:
    """What all cells of a grid have in common, and by cell what tells it from the others: one value an axis."""
    cells = (*plan.cells, *plan.excluded)
    axes = (*_TOLD, *further_axes(plan))
    own = {cell.name: {key: value for key, value in _chosen(cell).items() if key in axes} for cell in cells}
    common = dict(cells[0].settings) if cells else {}
    for cell in cells:
        common = {key: value for key, value in common.items() if key in cell.settings and cell.settings[key] == value}
    return {key: value for key, value in common.items() if key not in axes}, own


def _further(cell: Cell, varied: list[str]) -> Row:
    chosen = _chosen(cell)
    return {key: chosen[key] for key in varied if key in chosen}


def _chosen(cell: Cell) -> Row:
    """What the cell depends on, as search spaces write it: a group that may be off is also true or false."""
    switches = {name: switch_of(cell.relevant, name) for name, (_, optional) in groups().items() if optional}
    return {**cell.relevant, **{name: on for name, on in switches.items() if on is not None}}


def _settings(cell: Cell) -> Row:
    row: Row = {"cell": cell.name, **{key: cell.settings.get(key) for key in _STANDARD}}
    row["encoder"] = cell.settings["network.encoder"]
    row["device"] = cell.settings.get("device", LOCAL)  # runs of before have no other
    if row["method"] in FLOAT_METHODS:
        row["method"], row["granularity"] = "fp32", None
        row["engine"] = cell.relevant.get("engine")
    return row


def _row(cell: Cell, store: StageStore, failures: Mapping[str, str]) -> Row:
    row: Row = {**_settings(cell), "status": "ok", "reason": "", "same_as": None, "graph_hash": None}
    missing = [stage for stage, node in cell.nodes.items() if not store.has(node)]
    if missing:
        reason = next((failures[node] for node in cell.nodes.values() if node in failures), None)
        row["status"] = "failed" if reason else "skipped"
        row["reason"] = reason or f"{missing[0]} did not run; use --resume to go on"
    records = {stage: store.record(node) for stage, node in cell.nodes.items() if stage not in missing}
    row |= {"train_s": 0.0, "note": ""}
    notes: list[str] = []
    for name, record in records.items():
        stage = stage_named(name)
        figures = stage.columns(record)
        notes += [figures["note"]] if figures.get("note") else []
        row |= figures | {"train_s": row["train_s"] + figures.get("train_s", 0.0), "note": "; ".join(notes)}
        if stage.folder_column:
            row[stage.folder_column] = str(store.path(cell.nodes[name]))
    row["seconds"] = sum(record["seconds"] for record in records.values())
    return row


def commands(plan: Plan, command: str) -> dict[str, str]:
    """The command line that runs one cell of a grid: that of the grid, with the cell's values of all axes.

    A cell of this name is then in the results; float baselines stand beside it as in the grid.
    """
    varied = [key for key in (*_STANDARD, "device", *further_axes(plan)) if key != "seed"]
    seeds = {cell.settings["seed"] for cell in plan.cells}
    found = {}
    for cell in plan.cells:
        chosen = {**_chosen(cell), "method": cell.settings["method"]}
        parts = [f"--set {key}={_spelled(chosen[key])}" for key in varied if key in chosen]
        parts += [f"--seeds {cell.settings['seed']}"] if len(seeds) > 1 else []
        found[cell.name] = " ".join([command, *parts])
    return found


def _spelled(value: object) -> str:
    return shlex.quote(value if isinstance(value, str) else json.dumps(value))


def history(cell: Cell, store: StageStore) -> list[dict[str, float]]:
    """Figures by epoch of the cell's own fine-tuning, or of the float training it starts from."""
    for name, node in reversed(cell.nodes.items()):
        if stage_named(name).trains and store.has(node):
            epochs: list[dict[str, float]] = store.record(node)["history"]
            return epochs
    return []
