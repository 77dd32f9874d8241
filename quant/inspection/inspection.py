"""How much of a network would run in int8 on each engine, what stays behind, and what that costs."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from quant.calibrate import calibrate
from quant.engines.catalog import missing
from quant.graph import UnsupportedNetworkError
from quant.inspection.cautions import activation_cautions, depthwise_cautions, island_cautions, range_cautions
from quant.inspection.memory import Peak, peak_activations
from quant.inspection.on_litert import on_litert
from quant.inspection.on_onnxruntime import on_onnxruntime
from quant.inspection.on_qnnpack import int8_form, on_qnnpack
from quant.inspection.on_xnnpack import on_xnnpack
from quant.inspection.operators import Operator, first_tensor, float_form, operators, weights_of
from quant.inspection.placement import Placement
from quant.recipe import CalibrateSpec
from quant.tracing.trace import fuse_bn

PASSES = 9
"""Of the float network, for the times of its operators."""
ENGINES: dict[str, Callable[[fx.GraphModule, Tensor], Placement]] = {
    "qnnpack": on_qnnpack,
    "onnxruntime": on_onnxruntime,
    "xnnpack": on_xnnpack,
    "litert": on_litert,
}


@dataclass(frozen=True)
class Inspection:
    """What was found for one image: all operators, what each engine makes of them, peaks of memory, and cautions.

    ``weights`` counts the values in all weights, those that no operator owns (such as embeddings) included; ``absent``
    has the engines that could not be asked, and why. ``int8_peak`` is that of QNNPACK's graph, None without it.
    """

    operators: tuple[Operator, ...]
    weights: int
    placements: tuple[Placement, ...]
    absent: dict[str, str]
    int8_peak: Peak | None
    float_peak: Peak
    cautions: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """All of it as values that JSON has."""
        return asdict(self)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "Inspection":
        """What ``document`` gave; raises LookupError, TypeError or AttributeError for anything else."""
        listed = [
            Operator(**{**one, "shape": tuple(one["shape"]), "inputs": tuple(one["inputs"])})
            for one in document["operators"]
        ]
        placements = tuple(Placement(**one) for one in document["placements"])
        int8_peak = None if document["int8_peak"] is None else Peak(**document["int8_peak"])
        float_peak = Peak(**document["float_peak"])
        cautions, absent = tuple(map(str, document["cautions"])), dict(document["absent"])
        return cls(tuple(listed), document["weights"], placements, absent, int8_peak, float_peak, cautions)


@torch.no_grad()
def inspect_network(
    network: nn.Module,
    images: Tensor,
    engines: Sequence[str] = tuple(ENGINES),
    passes: int = PASSES,
    progress: Callable[[str], None] = lambda step: None,
) -> Inspection:
    """Inspect ``network`` in eval mode, with ranges calibrated on ``images`` (NxCxHxW).

    Its forward returns a tensor, a tuple or list of tensors, or a dictionary, of which "out" is taken if it is there.
    ``progress`` hears what is done next. Raises UnsupportedNetworkError where the network cannot be traced or prepared.
    """
    image = images[:1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of exporters and torch's deprecated int8 tensors: nothing a reader can change
        progress("tracing and calibrating")
        try:
            float_network = with_plain_outputs(fuse_bn(network.eval(), image), image)
            prepared = calibrate(float_network, "per_channel", CalibrateSpec(activation_range="minmax"), images)
        except UnsupportedNetworkError:
            raise
        except Exception as error:  # what a forward does with a traced or prepared value can fail in any way
            raise UnsupportedNetworkError(first_line(error)) from error
        found = inspect_prepared(prepared, image, engines, passes, progress)
        return replace(found, cautions=(*found.cautions, *activation_cautions(float_network)))


@torch.no_grad()
def inspect_prepared(
    prepared: fx.GraphModule,
    image: Tensor,
    engines: Sequence[str] = tuple(ENGINES),
    passes: int = PASSES,
    progress: Callable[[str], None] = lambda step: None,
) -> Inspection:
    """Inspect a prepared network with frozen ranges on ``image`` (1xCxHxW); for the rest see ``inspect_network``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        progress("timing the float network")
        listed = operators(prepared, image, passes)
        placements, absent = [], {}
        for engine in engines:
            progress(f"asking {engine}")
            reason = missing(engine)
            try:
                if reason is None:
                    placements.append(ENGINES[engine](prepared, image))
            except Exception as error:  # an exporter may fail in any way; the other engines have their answers
                reason = f"it does not take the network: {first_line(error)}"
            if reason is not None:
                absent[engine] = reason
        int8_peak = None if missing("qnnpack") else peak_activations(int8_form(prepared), image)
        float_peak = peak_activations(float_form(prepared), image)
        cautions = [one for placement in placements for one in island_cautions(placement, listed)]
        cautions += [*range_cautions(prepared), *depthwise_cautions(prepared)]
        return Inspection(
            listed, weights_of(prepared), tuple(placements), absent, int8_peak, float_peak, tuple(cautions)
        )


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def with_plain_outputs(graph_module: fx.GraphModule, image: Tensor) -> fx.GraphModule:
    """The graph with a tensor or a tuple of tensors as output, in place; ``image`` is 1xCxHxW.

    Raises UnsupportedNetworkError where it gives something else.
    """
    (output,) = (node for node in graph_module.graph.nodes if node.op == "output")
    value = output.args[0]
    if isinstance(value, dict):
        value = [value["out"]] if "out" in value else list(value.values())
    kept = list(value) if isinstance(value, tuple | list) else [value]
    kept = [one for one in kept if one is not None]
    if not kept or not all(isinstance(one, fx.Node) for one in kept):
        raise UnsupportedNetworkError(
            "its forward returns nested values; expected a tensor, a tuple or list of tensors, or a dictionary of them"
        )
    output.args = (kept[0] if len(kept) == 1 else tuple(kept),)
    graph_module.graph.eliminate_dead_code()
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()
    if first_tensor(graph_module(image)) is None:
        raise UnsupportedNetworkError("its forward returns no tensor; expected one, or several")
    return graph_module
