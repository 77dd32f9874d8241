"""ONNX Runtime: the network as an ONNX file with quantize and dequantize operators (QDQ), and its session."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.tasks.nested import Nested
from quant.engines.decomposed import DEQUANTIZE, DEQUANTIZE_CHANNELS, QUANTIZE
from quant.engines.outputs import KEY, Outputs

FILE = "network.onnx"
SIGNED = False  # its x86 kernels want uint8 activations
CHANNELS_LAST = False
OPSET = 21
INPUT, OPTIMIZED = "image", "optimized.onnx"


def write(network: nn.Module, example: Tensor, path: Path, outputs: Outputs) -> None:
    """Write ``network`` for inputs like ``example`` (1xCxHxW) to ``path``, by PyTorch's exporter."""
    import onnx
    from onnxscript.function_libs.torch_lib.ops import quantized_decomposed as translated

    program = torch.onnx.export(
        torch.export.export(network, (example,)),
        dynamo=True,
        opset_version=OPSET,
        input_names=[INPUT],
        output_names=[f"{name}_output" if name == INPUT else name for name in outputs.names],
        custom_translation_table={
            QUANTIZE: translated.quantized_decomposed_quantize_per_tensor,
            DEQUANTIZE: translated.quantized_decomposed_dequantize_per_tensor,
            DEQUANTIZE_CHANNELS: translated.quantized_decomposed_dequantize_per_channel,
        },
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    del model.metadata_props[:]
    del model.graph.value_info[:]
    _name_global_averages_(model.graph)
    for node in model.graph.node:  # the exporter's notes are a third of the file
        node.doc_string = ""
        del node.metadata_props[:]
    if outputs.text:
        model.metadata_props.add(key=KEY, value=outputs.text)
    onnx.save(model, path)


def _name_global_averages_(graph: Any) -> None:
    """Call means over rows and columns what they are, in place: there is no int8 kernel for ReduceMean."""
    import onnx

    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in constants:
            continue
        axes = sorted(onnx.numpy_helper.to_array(constants[node.input[1]]).tolist())
        keeps = next((one.i for one in node.attribute if one.name == "keepdims"), 1)
        if axes in ([-2, -1], [2, 3]) and keeps:
            node.op_type = "GlobalAveragePool"
            del node.input[1:], node.attribute[:]


class Runner:
    """A session for one image at a time, on as many threads as torch has."""

    def __init__(self, path: Path) -> None:
        self.path, self.threads = path, 0
        self.session: Any = None

    def __call__(self, image: Tensor) -> Nested:
        """1xCxHxW to the outputs of the network."""
        if self.threads != torch.get_num_threads():
            self.threads = torch.get_num_threads()
            self.session = start_session(self.path, self.threads)
            self.outputs = Outputs.read(self.session.get_modelmeta().custom_metadata_map.get(KEY))
        found = self.session.run(None, {INPUT: image.numpy()})
        return self.outputs.nested([torch.from_numpy(output) for output in found])


def start_session(path: Path, threads: int, profile: Path | None = None) -> Any:
    """A session of the file; ``profile``: a folder for its profile, and for the graph that it runs (``OPTIMIZED``)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # Threads that spin while they wait would take the core from whatever is timed beside them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile / "profile")
        options.optimized_model_filepath = str(profile / OPTIMIZED)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Contents:
    """What a file holds, to be compared with a recipe."""

    def __init__(self, path: Path) -> None:
        import onnx

        tensors = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
        self.weights = {values.tobytes() for values in tensors if values.dtype == np.int8 and values.ndim == 4}
        scales = [values.ravel().tolist() for values in tensors if values.dtype == np.float32 and values.ndim <= 1]
        self.scales = {scale for some in scales for scale in some}

    def has_weight(self, weight: Tensor) -> bool:
        """Whether these integers (out x in x h x w) are a constant of it."""
        return weight.numpy().tobytes() in self.weights

    def has_scale(self, scale: float) -> bool:
        """Whether this float32 is one of its scales."""
        return float(torch.tensor(scale)) in self.scales
