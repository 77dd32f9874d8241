"""What a stage is called where people look for it: in trial names, metrics and the folder of logs."""

from collections.abc import Mapping
from pathlib import Path

from grid.planning.plan import Node, Plan

SHARED = "shared"
_LONGEST = 80
"""Characters of a cell's name that go into a file name: those of long lists of axes would be refused by the disk."""


def names_by_key(plan: Plan) -> dict[str, str]:
    """The names of the plan's cells, by the keys that its nodes list."""
    return {cell.key: cell.name for cell in plan.cells}


def cells_of(node: Node, names: Mapping[str, str]) -> str:
    """``fuse_bn-per_tensor-qat`` for a stage of one cell, ``6-cells`` for one that six cells need."""
    return names[node.cells[0]] if len(node.cells) == 1 else f"{len(node.cells)}-cells"


def trial_name(node: Node, names: Mapping[str, str]) -> str:
    """``finetune-fuse_bn-per_tensor-qat-1a2b3c4d``: stage, cells, and the first 8 characters of the id."""
    return f"{node.stage}-{cells_of(node, names)[:_LONGEST]}-{node.id[:8]}"


def write_failure(storage: Path, node: Node, names: Mapping[str, str], text: str) -> Path:
    """Write why a stage failed, behind a line that lists its cells, into the folder of its cell; returns the file.

    A stage of one cell goes to ``logs/<cell>/``, one that several need to ``logs/shared/``.
    """
    folder = names[node.cells[0]][:_LONGEST] if len(node.cells) == 1 else SHARED
    log = storage / "logs" / folder / f"{node.stage}-{node.id}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    cells = ", ".join(names[key] for key in node.cells)
    log.write_text(f"{node.stage} {node.id} of {cells}\n\n{text}", encoding="utf-8")
    return log
