"""Pictures of what a network made of images, as the ``show`` of a task draws them: panels of one size."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from model.tasks.nested import Nested
from model.tasks.task import Task

SIDE = 128
"""Of the longer side of a panel, in pixels."""
Panels = dict[str, NDArray[np.uint8]]
"""Pictures N x H x W x 3 by what stands above them."""


def panels_of(
    task: Task, inputs: Tensor, outputs: Nested | None, targets: Nested, classes: tuple[str, ...] = ()
) -> Panels:
    """What the ``show`` of a task draws, with a longer side of ``SIDE``; none where the task has no ``show``.

    Raises TypeError or ValueError for what is no dict of pictures, and whatever the task's code raises.
    """
    if task.show is None:
        return {}
    more = {"classes": classes} if "classes" in inspect.signature(task.show).parameters else {}
    found: Any = task.show(inputs, outputs, targets, **more)
    if not isinstance(found, Mapping):
        raise TypeError(f"show gives a {type(found).__name__}; expected a dict of pictures")
    return {str(name): fitted(_pictures(str(name), panel, len(inputs))) for name, panel in found.items()}


def _pictures(name: str, panel: Any, count: int) -> NDArray[np.uint8]:
    array = np.asarray(panel)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[0] != count or array.shape[3] != 3:
        expected = f"uint8 [{count}, H, W, 3]"
        raise ValueError(f"the panel {name!r} of show is {array.dtype} {list(array.shape)}; expected {expected}")
    return array


def fitted(pictures: NDArray[np.uint8], smooth: bool = True) -> NDArray[np.uint8]:
    """Pictures N x H x W x 3, or maps of classes N x H x W, with a longer side of ``SIDE``.

    Small ones are enlarged pixel by pixel, large ones averaged where ``smooth``.
    """
    height, width = pictures.shape[1:3]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == (width, height):
        return pictures
    method = Image.Resampling.LANCZOS if smooth and scale < 1 else Image.Resampling.NEAREST
    return np.stack([np.asarray(Image.fromarray(one).resize(size, method)) for one in pictures])
