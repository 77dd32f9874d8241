"""The integers and scales that a ``.tflite`` file holds."""

from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema


def read(path: Path) -> tuple[set[bytes], set[float]]:
    """The int8 constants, a byte each whatever the file packs them in, and all scales."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    weights, scales = set[bytes](), set[float]()
    for tensor in model.subgraphs[0].tensors:
        if tensor.quantization is not None and tensor.quantization.scale is not None:
            scales.update(np.asarray(tensor.quantization.scale, np.float32).tolist())
        content = model.buffers[tensor.buffer].data
        if content is None:
            continue
        if tensor.type == schema.TensorType.INT8:
            weights.add(np.asarray(content, np.uint8).tobytes())
        elif tensor.type == schema.TensorType.INT4:
            weights.add(unpacked(np.asarray(content, np.uint8), int(np.prod(tensor.shape))))
    return weights, scales


def unpacked(content: np.ndarray, count: int) -> bytes:
    """Integers of 4 bits, two a byte, as a byte each."""
    pairs = np.stack([content & 15, content >> 4], 1).reshape(-1)[:count].astype(np.int8)
    return np.where(pairs > 7, pairs - 16, pairs).astype(np.int8).tobytes()
