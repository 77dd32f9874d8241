"""What the card of an exported network says of its input and its outputs; the script beside it goes by that."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from model.images import MAX_DEPTH_M, mean_and_std
from model.network.build import example_image
from model.network.spec import DEPTH, NetworkSpec
from model.tasks.facts import TaskFacts
from model.tasks.nested import leaves
from quant.engines.outputs import Outputs, output_nodes
from quant.fake_quantize import FakeQuantize
from quant.graph import module_of

_LONE = {"depth": "depth", "classification": "logits", "segmentation": "logits", "restoration": "restored"}
_SCALED = "scaled to 0..1, minus mean, divided by std, a channel each"
_RESIZES = {
    "whole": f"RGB {_SCALED}; the whole view resized to the square, bilinearly and with antialiasing",
    "shorter side": f"RGB {_SCALED}; the shorter side of the view resized to {{edge}}, bicubically and with "
    "antialiasing, and the centre cut out",
    "none": f"RGB {_SCALED}; nothing is resized, the centre is cut out",
}
_OF_FOLDERS = {"classification": "shorter side", "segmentation": "whole", "restoration": "none"}
"""How ``model.data.folders`` brings a picture to the size of the network."""
_OF_DEPTH = f"RGB {_SCALED}; the whole view shrunk to the square"


def output_name(task: str) -> str:
    """What files call the output of a network that has one only."""
    return _LONE.get(task, "output")


def card_input(network: nn.Module, spec: NetworkSpec, dtype: str | None, origin: str) -> dict[str, Any]:
    """Name, shape and preprocessing of the input.

    ``dtype`` is that of the inputs in the pack, None where that is gone; ``origin`` is where the data are from.
    """
    shape = {"name": "image", "shape": [1, *spec.shape], "dtype": "float32", **_preprocessing(spec, dtype, origin)}
    if dtype == "uint8":
        mean, std = mean_and_std(spec.shape[0])
        shape |= {"mean": mean, "std": std}
    return shape | {"levels": _input_levels(network)}


def _preprocessing(spec: NetworkSpec, dtype: str | None, origin: str) -> dict[str, Any]:
    """In words, and where the script has a choice in a word for it."""
    if spec.task == DEPTH:
        return {"preprocessing": _OF_DEPTH}
    if spec.task in _OF_FOLDERS:
        resize = _OF_FOLDERS[spec.task]
        if origin == "rooms" and resize == "shorter side":  # they are rendered as squares
            resize = "whole"
        edge = round(spec.input_size / 0.875)
        return {"preprocessing": _RESIZES[resize].format(edge=edge), "resize": resize}
    if dtype == "uint8":
        return {"preprocessing": f"values of 8 bits {_SCALED}; how inputs come to this size is up to the task's file"}
    if dtype is None:
        return {"preprocessing": "as the task's file makes inputs; the run's packed data, which would tell, are gone"}
    return {"preprocessing": "none: inputs are not normalized, and go in as the task's file makes them"}


@torch.no_grad()
def card_output(network: nn.Module, spec: NetworkSpec, facts: TaskFacts) -> dict[str, Any] | list[dict[str, Any]]:
    """Name, shape and meaning of the output, or of each in a list where the network gives several."""
    found = network(example_image(spec))
    outputs = Outputs.of(found, output_name(spec.task))
    shapes = [list(output.shape) for output in leaves(found).values()]
    nodes: list[fx.Node | None] = [*output_nodes(network)] if isinstance(network, fx.GraphModule) else []
    if len(nodes) != len(shapes):  # they leave one operator together
        nodes = [None] * len(shapes)
    told = [
        {"name": name, "shape": shape, "dtype": "float32", **_meaning(facts), "levels": _levels(_module(network, node))}
        for name, shape, node in zip(outputs.names, shapes, nodes, strict=True)
    ]
    return told[0] if outputs.kind == "tensor" else told


def output_scales(network: nn.Module | None, count: int) -> list[float | None]:
    """The step between two levels of each of ``count`` outputs of a network; None of one that is not rounded."""
    nodes = output_nodes(network) if isinstance(network, fx.GraphModule) else []
    if network is None or len(nodes) != count:  # they leave one operator together
        return [None] * count
    levels = [_levels(_module(network, node)) for node in nodes]
    return [None if found is None else found["scale"] for found in levels]


def _meaning(facts: TaskFacts) -> Mapping[str, Any]:
    if facts.name == DEPTH:
        return {"metres": f"times {MAX_DEPTH_M:g}"}
    if facts.name == "classification":
        return {"values": "logits: softmax gives probabilities", "classes": facts.classes}
    if facts.name == "segmentation":
        return {"values": "logits of each pixel: the class is the one of the largest", "classes": facts.classes}
    if facts.name == "restoration":
        mean, std = mean_and_std(3)
        return {"values": "an RGB image: times std, plus mean is 0..1", "mean": mean, "std": std}
    return {}


def _input_levels(network: nn.Module) -> dict[str, float] | None:
    if not isinstance(network, fx.GraphModule):
        return None
    modules = (module_of(network, node) for node in network.graph.nodes)
    on = (module for module in modules if isinstance(module, FakeQuantize) and module.mode != "off")
    return _levels(next(on, None))


def _module(network: nn.Module, node: fx.Node | None) -> nn.Module | None:
    return module_of(network, node) if isinstance(network, fx.GraphModule) else None


def _levels(quantizer: nn.Module | None) -> dict[str, float] | None:
    """Scale and zero point, for levels 0 to 255; None where there is no quantizer, or one that rounds nothing."""
    if not isinstance(quantizer, FakeQuantize) or quantizer.mode == "off":
        return None
    return {"scale": float(quantizer.scale[0]), "zero_point": int(quantizer.zero_point[0])}
