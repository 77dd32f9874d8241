"""Results taken away or replaced in a copied store."""

import shutil

import torch

from grid.planning.plan import Node
from grid.stages.work import Context
from grid.storage.result_store import StageStore, write_record
from quant.artifact import Form, save_network


def without(context: Context, *nodes: Node) -> Context:
    """The store with some results taken out."""
    for node in nodes:
        shutil.rmtree(context.storage / "stages" / node.id)
    return context


def replace_result(context: Context, node: Node, network: torch.nn.Module, form: Form) -> None:
    """Another network as the result of a node, with a record and checksums that are in order."""
    with StageStore(context.storage).writer(node.id) as folder:
        save_network(folder, network, form)
        empty = {"metrics": {}, "asserted": {}, "history": [], "seconds": 0.0}
        settings, inputs = dict(node.settings), [list(pair) for pair in node.inputs]
        write_record(folder, {"stage": node.stage, "settings": settings, "inputs": inputs, **empty})
