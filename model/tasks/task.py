"""A task as a value: its loss, its metrics, and what is done to its images for training.

A task is a Python file: one of this package, or one of the user's own, named on the command line (docs/tasks.md).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from model.tasks.nested import Nested, count, each, leaves

if TYPE_CHECKING:  # it takes as long as torch, and most processes compute no metric of it
    from torchmetrics import Metric as TorchMetric

Augment = Callable[[Tensor, Nested], tuple[Tensor, Nested]]
"""(inputs, targets) of a training batch, as they are in the pack, to what is learned from."""


@dataclass(frozen=True)
class ImageMetric:
    """A metric that is the mean of a figure of each image: ``figures`` of (outputs, targets) are [N], NaN for none.

    ``title`` is what tables call it, and ``margin`` up to which difference two networks are as good as each other, in
    parts of the figure where it ``is_relative``.
    """

    figures: Callable[[Nested, Nested], Tensor]
    higher_is_better: bool
    title: str = ""
    margin: float | None = None
    margin_is_relative: bool = False


Metrics = Mapping[str, "ImageMetric | TorchMetric"]
Show = Callable[..., Mapping[str, Any]]
"""(inputs, outputs, targets) of a few images, and ``classes`` where it asks for them, to pictures by their title."""


@dataclass(frozen=True)
class Task:
    """What a network learns and how it is judged.

    ``loss`` of (outputs, targets) is a scalar; ``distillation`` that of (outputs, those of the float network), which
    QAT mixes in. The first of ``metrics`` is the headline. ``monitor`` names the metric that chooses the best epoch,
    and cells that the headline does not tell apart; without a name it is the headline.
    ``identity`` changes with the code of the task: it is part of all ids, and empty for depth, whose ids are older.
    ``show`` draws the report's pictures, where a task has any: of (inputs, outputs, targets) of a few test images, the
    inputs and targets as they are in the pack, a dict of pictures uint8 N x H x W x 3 by what stands above them. With
    outputs those of what the network found, and with None for them those of the truth. The names of the classes are
    its argument ``classes``, if it has one.
    """

    name: str
    identity: str
    loss: Callable[[Nested, Nested], Tensor]
    metrics: Metrics
    augment: Augment
    distillation: Callable[[Nested, Nested], Tensor]
    show: Show | None = None
    monitor: str = ""

    @property
    def headline(self) -> str:
        """The name of the first metric."""
        return next(iter(self.metrics))

    @property
    def _watched(self) -> str:
        return self.monitor or self.headline

    def choosing(self, figures: Mapping[str, float]) -> dict[str, float]:
        """The figures on the validation images that choose: the headline's and the monitor's, by their names there."""
        return {f"val_{name}": figures[f"val_{name}"] for name in (self.headline, self._watched)}

    def gain(self, figures: Mapping[str, float], prefix: str = "") -> float:
        """The headline as a figure of which more is better; ``prefix`` is that of the figures' names."""
        return self._gain(self.headline, figures[f"{prefix}{self.headline}"])

    def score(self, figures: Mapping[str, float], prefix: str = "val_") -> float:
        """The monitor as a figure of which more is better, or the headline where no image has the monitor."""
        found = self._gain(self._watched, figures[f"{prefix}{self._watched}"])
        return self.gain(figures, prefix) if math.isnan(found) else found

    def _gain(self, name: str, figure: float) -> float:
        return float(figure if self.metrics[name].higher_is_better else -figure)


def image_figures(task: Task, outputs: Nested, targets: Nested) -> dict[str, Tensor]:
    """Each metric of each image alone, float64 [N] by name; NaN where an image has none.

    Raises FloatingPointError where an output is not finite.
    """
    outputs = each(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor, outputs)
    for tensor in leaves(outputs).values():
        if not torch.isfinite(tensor).all():
            raise FloatingPointError(f"{int((~torch.isfinite(tensor)).sum())} predicted values are not finite")
    return {name: figures_of(metric, outputs, targets) for name, metric in task.metrics.items()}


def metric_means(task: Task, outputs: Nested, targets: Nested) -> dict[str, float]:
    """The ``image_figures``, each as its mean over the images that have it."""
    return {name: float(figures.nanmean()) for name, figures in image_figures(task, outputs, targets).items()}


def figures_of(metric: "ImageMetric | TorchMetric", outputs: Nested, targets: Nested) -> Tensor:
    """The figure of each image alone, float64 [N]; those of torchmetrics are computed image by image."""
    if isinstance(metric, ImageMetric):
        return metric.figures(outputs, targets).double()
    figures = []
    for index in range(count(outputs)):
        metric.reset()
        one = slice(index, index + 1)
        metric.update(*(each(partial(_at, one), nested) for nested in (outputs, targets)))
        figures.append(float(metric.compute()))
    metric.reset()
    return torch.tensor(figures, dtype=torch.float64)


def _at(where: slice, tensor: Tensor) -> Tensor:
    return tensor[where]
