"""What a network's outputs tell whoever asks it: metres, probabilities, classes, pictures."""

import ast

import torch
from torch import Tensor

from model.images import MAX_DEPTH_M, mean_and_std
from model.tasks.nested import Nested, each

POSTPROCESS = "postprocess"
"""The function of a task's file that makes answers of outputs."""


def answer(task: str, outputs: Nested) -> Nested:
    """Outputs as an answer of the task; those of a task of the user's own stay as they are.

    Depth: metres. Classification: probabilities, N x classes. Segmentation: the class of each pixel, uint8 N x H x W.
    Restoration: RGB images, uint8 N x 3 x H x W.
    """
    if task == "depth":
        return outputs * MAX_DEPTH_M
    if task == "classification":
        return outputs.softmax(1)
    if task == "segmentation":
        return outputs.argmax(1).to(torch.uint8)
    if task == "restoration":
        return _image(outputs)
    return each(lambda output: output, outputs)


def _image(normalized: Tensor) -> Tensor:
    mean, std = (torch.tensor(one).view(1, -1, 1, 1) for one in mean_and_std(normalized.shape[1]))
    return ((normalized * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def has_postprocess(source: bytes) -> bool:
    """Whether a task's file defines ``postprocess``; the file is read and not run."""
    return any(isinstance(one, ast.FunctionDef) and one.name == POSTPROCESS for one in ast.parse(source).body)
