"""Which cells need a stage, and how that is said."""

from collections.abc import Sequence

from grid.planning.plan import Cell, Plan


def users_by_node(plan: Plan) -> dict[str, list[Cell]]:
    """The cells with a stage in their own chain, by its node id; a mere reference of others has no entry."""
    users: dict[str, list[Cell]] = {}
    for cell in plan.cells:
        for node in cell.nodes.values():
            users.setdefault(node, []).append(cell)
    return users


def users_named(cells: Sequence[Cell]) -> str:
    """``fp32`` for one cell, ``6 cells`` for several, ``the float reference`` where no cell has the stage itself."""
    if not cells:
        return "the float reference"
    return cells[0].name if len(cells) == 1 else f"{len(cells)} cells"
