"""LiteRT (TFLite): the network as a ``.tflite`` file, and its interpreter with XNNPACK."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.tasks.nested import Nested
from quant.engines.outputs import KEY, Outputs

FILE = "network.tflite"
SIGNED = True  # its quantized operators take int8 activations
CHANNELS_LAST = True  # as phones have pictures, and the kernels want them


def write(network: nn.Module, example: Tensor, path: Path, outputs: Outputs) -> None:
    """Write ``network`` for inputs like ``example`` (1xCxHxW) to ``path``; the file takes them as 1xHxWxC.

    Raises UnsupportedNetworkError where an operator of it has no form in the format.
    """
    from quant.engines.litert.lowering import lower  # as the package may be missing

    lower(network, example, path, outputs)


class Runner:
    """An interpreter for one image at a time, on as many threads as torch has."""

    def __init__(self, path: Path) -> None:
        self.path, self.threads = path, 0
        self.interpreter: Any = None

    def __call__(self, image: Tensor) -> Nested:
        """1xCxHxW to the outputs of the network, images of them as 1xCxHxW too."""
        if self.threads != torch.get_num_threads():
            self.threads = torch.get_num_threads()
            self._start()
        inputs = np.ascontiguousarray(image.numpy().transpose(0, 2, 3, 1), np.float32)
        self.interpreter.set_tensor(self.input, inputs)
        self.interpreter.invoke()
        found = [torch.from_numpy(self.interpreter.get_tensor(index)) for index in self.given]
        return self.outputs.nested([one.permute(0, 3, 1, 2).contiguous() if one.dim() == 4 else one for one in found])

    def _start(self) -> None:
        from ai_edge_litert.interpreter import Interpreter

        content = self.path.read_bytes()
        self.interpreter = Interpreter(model_content=content, num_threads=self.threads)
        self.interpreter.allocate_tensors()
        (details,) = self.interpreter.get_input_details()
        self.input = details["index"]
        self.given = [one["index"] for one in self.interpreter.get_output_details()]
        self.outputs = Outputs.read(_note(content, KEY))


def _note(content: bytes, key: str) -> str | None:
    """What the file's metadata say under ``key``."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    for place in range(model.MetadataLength()):
        metadata = model.Metadata(place)
        if metadata.Name().decode() == key:
            return bytes(model.Buffers(metadata.Buffer()).DataAsNumpy()).decode()
    return None


class Contents:
    """What a file holds, to be compared with a recipe."""

    def __init__(self, path: Path) -> None:
        from quant.engines.litert.contents import read

        self.weights, self.scales = read(path)

    def has_weight(self, weight: Tensor) -> bool:
        """Whether these integers (out x in x h x w) are in it, channels last; of depthwise convolutions out is last."""
        orders = ((0, 2, 3, 1), (1, 2, 3, 0))
        return any(weight.permute(order).contiguous().numpy().tobytes() in self.weights for order in orders)

    def has_scale(self, scale: float) -> bool:
        """Whether this float32 is one of its scales."""
        return float(np.float32(scale)) in self.scales
