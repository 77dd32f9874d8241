"""Plans of the full grid, and what to look at in them."""

from collections import Counter
from pathlib import Path

from grid.planning.plan import Cell, Plan, make_plan
from grid.space.search_space import load_space

ROOT = Path(__file__).resolve().parents[3]


def full(*overrides: str, checkpoint: str | None = "sha", fingerprint: str = "data") -> Plan:
    return make_plan(load_space("full", overrides), checkpoint, fingerprint)


def cell_of(plan: Plan, name: str) -> Cell:
    return next(cell for cell in plan.cells if cell.name == name)


def counts(plan: Plan) -> Counter:
    return Counter(node.stage for node in plan.nodes)
