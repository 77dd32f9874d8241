"""A plan as text: what a dry run prints, and what stands beside the results of a grid."""

from grid.planning.plan import Cell, Plan
from grid.planning.stage_table import stage_names
from grid.storage.result_store import StageStore
from quant.recipe import FLOAT_METHODS


def describe(plan: Plan, store: StageStore) -> list[str]:
    """The plan as lines of text: cells with their stages, how widely each is shared, what is done already."""
    done = {node.id for node in plan.nodes if store.has(node.id)}
    shared = {node.id: len(node.cells) for node in plan.nodes}
    unshared = sum(len(cell.nodes) for cell in plan.cells)
    lines = [
        f"{len(plan.cells)} cells, {len(plan.excluded)} excluded; {len(plan.nodes)} stages ({unshared} if "
        f"not shared); {len(done)} are in the store, {len(plan.nodes) - len(done)} to compute"
    ]
    left_out, planned = ([cell for cell in cells if _is_int8(cell)] for cells in (plan.excluded, plan.cells))
    if left_out and not planned:
        reasons = "; ".join(dict.fromkeys(str(cell.excluded) for cell in left_out))
        lines[0] += f"; none of the {len(left_out)} int8 cells is left ({reasons})"
    if plan.repeats:
        lines.append(f"{plan.repeats} combinations repeat a cell: they differ in settings that it ignores")
    width = max([len(cell.name) for cell in (*plan.cells, *plan.excluded)], default=0)
    lines += ["", "cells, each stage with the number of cells that need it; * is in the store"]
    for cell in plan.cells:
        steps = [f"{stage}({shared[node]}){'*' * (node in done)}" for stage, node in cell.nodes.items()]
        lines.append(f"  {cell.name:{width}}  {' '.join(steps)}")
    lines += [f"  {cell.name:{width}}  excluded: {cell.excluded}" for cell in plan.excluded]
    lines += ["", "stages     planned  in the store"]
    for stage in stage_names():
        ids = [node.id for node in plan.nodes if node.stage == stage]
        if ids:
            lines.append(f"  {stage:9}{len(ids):7}{len(done.intersection(ids)):14}")
    return lines


def _is_int8(cell: Cell) -> bool:
    return cell.settings["method"] not in FLOAT_METHODS
