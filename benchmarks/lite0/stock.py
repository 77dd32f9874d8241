"""What other tools make of the same float network, calibrated on the same pictures, without code of ours in between."""

import copy
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from quant.engines.onnxruntime import Runner

Network = Callable[[Tensor], Tensor]
ORT_SETTINGS = {
    "default": {},  # per tensor, uint8 activations, min-max
    **{
        f"per channel, {name}, {kind}": {"per_channel": True, "calibrate": name, "activations": kind}
        for name in ("MinMax", "Entropy", "Percentile")
        for kind in ("QUInt8", "QInt8")
    },
}
"""Settings of ONNX Runtime's ``quantize_static``: its default, and per channel all its ranges, with both types."""


def float_onnx(network: nn.Module, example: Tensor, path: Path) -> None:
    """The float network as ONNX for any number of images, prepared as ONNX Runtime's guide to quantization says."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    program = torch.onnx.export(
        network,
        (example.repeat(2, 1, 1, 1),),
        dynamo=True,
        opset_version=21,
        input_names=["image"],
        dynamic_shapes=({0: torch.export.Dim("n")},),
        verbose=False,
    )
    assert program is not None
    raw = path.with_name("raw.onnx")
    program.save(raw)
    quant_pre_process(raw, path)


def onnxruntime(source: Path, calibration: Tensor, path: Path, settings: dict[str, object]) -> Network:
    """ONNX Runtime's static quantization of ``source`` as a QDQ file at ``path``, on its own session."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # has no types
        def __init__(self) -> None:
            self.images: Iterator[Tensor] = iter(calibration.split(1))

        def get_next(self) -> dict[str, object] | None:
            image = next(self.images, None)
            return None if image is None else {"image": image.numpy()}

    quantize_static(
        source,
        path,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=bool(settings.get("per_channel", False)),
        activation_type=QuantType[str(settings.get("activations", "QUInt8"))],
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[str(settings.get("calibrate", "MinMax"))],
    )
    return Runner(path)


def pt2e(network: nn.Module, calibration: Tensor, backend: str) -> fx.GraphModule:
    """PyTorch's pt2e quantization with the quantizer of ``x86`` or ``xnnpack``, per channel, as its simulation runs."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    if backend == "x86":
        from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
            X86InductorQuantizer,
            get_default_x86_inductor_quantization_config,
        )

        quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    else:
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
            XNNPACKQuantizer,
            get_symmetric_quantization_config,
        )

        quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(copy.deepcopy(network), (calibration[:1],)).module()
        prepared = prepare_pt2e(exported, quantizer)
        for image in calibration.split(1):
            prepared(image)
        converted: fx.GraphModule = convert_pt2e(prepared)
    return converted


def int8_layers(path: Path) -> int:
    """How many convolutions and linear layers of an ONNX file read int8 values and int8 weights."""
    import onnx

    graph = onnx.load(path).graph
    rounded = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    return sum(rounded.issuperset(node.input[:2]) for node in layers)


def int8_layers_of_graph(converted: fx.GraphModule) -> int:
    """The same of what ``pt2e`` gives."""
    kinds = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)
    layers = [node for node in converted.graph.nodes if node.target in kinds]
    return sum(all("dequantize" in str(source.target) for source in node.args[:2]) for node in layers)
