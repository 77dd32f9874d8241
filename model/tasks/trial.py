"""A task tried on the first two images of its data, before any work is spent on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.data.pack import Pack
from model.epochs import augmented
from model.errors import InputError
from model.images import to_network
from model.network.user_network import line_of, reason
from model.tasks.nested import Nested, count, each, leaves
from model.tasks.task import ImageMetric, Task, figures_of

IMAGES = 2
_LOSS = "a scalar of the outputs and the targets of a batch"
_AUGMENT = "(inputs, targets) of a batch in the same shapes"


def try_task(task: Task, file: Path, network: nn.Module, pack: Pack) -> None:
    """Outputs, loss and its gradient, metrics and augmentation, once each, with the network in eval mode.

    Raises InputError naming ``file``, and the line where the user's code has one, for the first that fails.
    """
    indices = range(min(IMAGES, pack.size("train")))
    images, targets = pack.images("train", indices), pack.targets("train", indices)
    trial = _Trial(task, file)
    outputs = trial.outputs(network.eval(), to_network(images), targets)
    trial.learns(outputs, targets, network)
    trial.judges(each(lambda output: output.detach().float(), outputs), targets)
    trial.augments(network, images, targets)


class _Trial:
    def __init__(self, task: Task, file: Path) -> None:
        self.task, self.file = task, file
        self.shapes = ""

    def outputs(self, network: nn.Module, inputs: Tensor, targets: Nested) -> Nested:
        """What the network gives, from which on every message says the shapes."""
        outputs: Nested = self._call("the network", "outputs of a batch", network, inputs)
        for name, output in leaves(outputs).items():
            which = f"output {name!r}" if name else "the output"
            if output.ndim == 0 or len(output) != len(inputs) or not output.is_floating_point():
                problem = f"{which} of the network is {_shape(output)} for {len(inputs)} images"
                raise self._error(problem, f"floating point numbers whose first dimension is {len(inputs)}")
            if not torch.isfinite(output).all():
                raise self._error(f"{which} of the network is not finite on the first images", "numbers")
        self.shapes = f"The outputs are {_shown(outputs)}, the targets {_shown(targets)}."
        return outputs

    def learns(self, outputs: Nested, targets: Nested, network: nn.Module) -> None:
        """The loss, and that of distillation, are finite scalars with a gradient."""
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        loss = self._scalar("loss", self.task.loss, outputs, targets)
        gradients = self._call("the gradient of loss", _LOSS, torch.autograd.grad, loss, weights, allow_unused=True)
        found = [gradient for gradient in gradients if gradient is not None]
        if not found:
            raise self._error(f"loss{line_of(self.task.loss)} does not depend on the network's weights", _LOSS)
        if not all(torch.isfinite(gradient).all() for gradient in found):
            problem = f"the gradient of loss{line_of(self.task.loss)} is not finite on the first images"
            raise self._error(problem, "one without 0 / 0, and without the root of 0")
        again = each(lambda output: output.detach().requires_grad_(), outputs)
        self._scalar("distillation", self.task.distillation, again, each(Tensor.detach, outputs))

    def judges(self, outputs: Nested, targets: Nested) -> None:
        """Each metric gives a figure of each image alone."""
        images = count(outputs)
        for name, metric in self.task.metrics.items():
            what, expected = f"metric {name!r}", "a figure of each image alone"
            try:
                figures = self._call(what, expected, figures_of, metric, outputs, targets)
            except InputError as error:
                raise self._of_several(name, outputs, targets) or error from error.__cause__
            if not isinstance(figures, Tensor) or tuple(figures.shape) != (images,):
                line = line_of(metric.figures) if isinstance(metric, ImageMetric) else ""
                raise self._error(
                    f"{what}{line} gives {_shape(figures)} for {images} images", f"{expected}: [{images}]"
                )
            if figures.isnan().all() and (refusal := self._of_several(name, outputs, targets)):
                raise refusal

    def _of_several(self, name: str, outputs: Nested, targets: Nested) -> InputError | None:
        """The refusal of a metric of torchmetrics that has a figure of two images, and none of one."""
        metric = self.task.metrics[name]
        if isinstance(metric, ImageMetric) or count(outputs) < IMAGES:
            return None
        try:
            metric.reset()
            metric.update(outputs, targets)
            found = float(metric.compute())
            metric.reset()
        except Exception:  # it fails in any case: what it raised first is told
            return None
        if found != found:
            return None
        problem = f"metric {name!r} ({type(metric).__name__}) has no figure of a single image"
        return self._error(problem, "a metric that is a mean over images", shapes=False)

    def augments(self, network: nn.Module, images: Tensor, targets: Nested) -> None:
        """The augmentation keeps the shape of the inputs, and the loss takes what it makes of the targets."""
        line = line_of(self.task.augment)
        given = self._call("augment", _AUGMENT, self.task.augment, images.clone(), each(Tensor.clone, targets))
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise self._error(f"augment{line} gives a {type(given).__name__}", _AUGMENT)
        if not isinstance(given[0], Tensor) or given[0].shape != images.shape:
            raise self._error(f"augment{line} turns inputs of {_shape(images)} into {_shape(given[0])}", _AUGMENT)
        drawn = self._call("augment", _AUGMENT, augmented, self.task, images.clone(), each(Tensor.clone, targets))
        if _shown(drawn[1]) != _shown(targets):  # a mix of images may have other targets, if the loss takes them
            self.shapes = f"augment turns targets of {_shown(targets)} into {_shown(drawn[1])}."
        with torch.no_grad():
            outputs = network(drawn[0])
        again = each(lambda output: output.requires_grad_(), outputs)
        self._scalar("loss of what augment gives", self.task.loss, again, drawn[1])

    def _scalar(self, what: str, function: Callable[..., Any], outputs: Nested, others: Nested) -> Tensor:
        value = self._call(what, _LOSS, function, outputs, others)
        line = line_of(function)
        if not isinstance(value, Tensor) or value.ndim:
            raise self._error(f"{what}{line} gives {_shape(value)}", _LOSS)
        if not torch.isfinite(value):
            raise self._error(f"{what}{line} is {float(value)} on the first images", "a finite number")
        if not value.requires_grad:
            raise self._error(f"{what}{line} has no gradient", "torch functions of the outputs, with nothing detached")
        return value

    def _call(self, what: str, expected: str, function: Callable[..., Any], *given: Any, **more: Any) -> Any:
        try:
            return function(*given, **more)
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            problem = f"{what} fails on the first images ({reason(error, self.file)})"
            raise self._error(problem, expected) from error

    def _error(self, problem: str, expected: str, *, shapes: bool = True) -> InputError:
        return InputError(str(self.file), problem, expected, self.shapes if shapes else "")


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"a {type(value).__name__}"


def _shown(nested: Nested) -> str:
    """``float32 [2, 10]``, or ``heat: float32 [2, 10], size: ...``."""
    return ", ".join(f"{name}: {_shape(one)}" if name else _shape(one) for name, one in leaves(nested).items())
