"""Tasks by name: the built-in ones, and those of a file of the user's own, which runs only where it is named."""

import hashlib
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from model.errors import InputError
from model.network.user_network import OWN, line_of, reason, run_file
from model.tasks.depth import DEPTH
from model.tasks.facts import DEPTH_FACTS, MetricFacts, TaskFacts
from model.tasks.names import BUILT_IN
from model.tasks.nested import Nested, leaves
from model.tasks.task import Augment, ImageMetric, Metrics, Task

_FORM = "docs/tasks.md shows whole ones."
_SHOW = "def show(inputs, outputs, targets) -> {'what it shows': uint8 N x H x W x 3}"


def task_module(name: str) -> tuple[str, str, ModuleType]:
    """The name, the identity and the module of a task: a built-in one, or a Python file, which is run.

    Raises InputError for an unknown name, and for a file that is missing or does not run.
    """
    if name in BUILT_IN:
        module = importlib.import_module(f"model.tasks.{name}")
        return name, f"{name}-{getattr(module, 'VERSION', 1)}" if name != DEPTH.name else "", module
    file = Path(name)
    if file.suffix != ".py":
        raise InputError("--task", "is unknown", f"one of {', '.join(BUILT_IN)}, or a Python file", value=repr(name))
    source, module = run_file(file, "task", _FORM)
    return OWN + file.stem, hashlib.sha256(source).hexdigest(), module


def load_task(facts: TaskFacts, file: Path | None) -> Task:
    """The task that these facts are of; ``file`` is that of the user's own.

    Raises InputError where the file is another one, or lacks what a task needs.
    """
    if facts.name == DEPTH.name:
        return DEPTH
    _, identity, module = task_module(str(file) if facts.name.startswith(OWN) else facts.name)
    if identity != facts.identity:
        problem = f"is not the task {facts.name} that the data were packed for"
        raise InputError(str(file or facts.name), problem, "the same code", "Start a new run.")
    return task_of(facts.name, identity, module)


def task_of(name: str, identity: str, module: ModuleType) -> Task:
    """The task that a module defines; raises InputError that names what is missing or wrong."""
    loss = required_function(module, "loss", "def loss(outputs, targets) -> Tensor")
    metrics = _metrics(module)
    augment: Augment = getattr(module, "augment", None) or _unchanged
    distillation = getattr(module, "distillation", None) or _distance
    show = required_function(module, "show", _SHOW) if getattr(module, "show", None) is not None else None
    return Task(name, identity, loss, metrics, augment, distillation, show, _monitor(module, metrics))


def task_facts(name: str) -> TaskFacts:
    """What is said about a task before its data are known; raises InputError as ``task_module`` and ``task_of`` do."""
    if name == DEPTH.name:
        return DEPTH_FACTS
    return facts_of(task_of(*task_module(name)))


def task_settings(name: str) -> tuple[str, Mapping[str, object]]:
    """The file of a task, and what its grids are set to where nothing else says so: its ``SETTINGS``.

    Raises InputError as ``task_module`` does, and where they are no settings by name.
    """
    if name == DEPTH.name:
        return "", {}
    module = task_module(name)[2]
    settings, file = getattr(module, "SETTINGS", {}), str(module.__file__)
    kinds = (bool, int, float, str)
    if not isinstance(settings, Mapping) or not all(isinstance(value, kinds) for value in settings.values()):
        raise InputError(file, f"has SETTINGS = {settings!r:.80}", "a dict such as {'qat.epochs': 2}", _FORM)
    return file, {str(key): value for key, value in settings.items()}


def facts_of(task: Task, classes: tuple[str, ...] = ()) -> TaskFacts:
    """What is said about a task without its code."""
    metrics = tuple(map(_metric_facts, task.metrics, task.metrics.values()))
    return TaskFacts(task.name, task.identity, metrics, classes, task.monitor)


def _metric_facts(name: str, metric: Any) -> MetricFacts:
    """Half a percentage point, or 1 % of a metric of which less is better, where the task names no margin."""
    better = bool(metric.higher_is_better)
    title, margin = str(getattr(metric, "title", "")), getattr(metric, "margin", None)
    if margin is None:
        return MetricFacts(name, better, title, *((0.005, False) if better else (0.01, True)))
    return MetricFacts(name, better, title, float(margin), bool(getattr(metric, "margin_is_relative", False)))


def required_function(module: ModuleType, name: str, form: str) -> Callable[..., Any]:
    """A function of a task's file; raises InputError, which shows its ``form``, where there is none."""
    function: Callable[..., Any] | None = getattr(module, name, None)
    if not callable(function):
        raise InputError(str(module.__file__), f"has no function {name}", form, _FORM)
    return function


def _metrics(module: ModuleType) -> Metrics:
    file = str(module.__file__)
    form = "a dict of torchmetrics, the headline first, such as {'top1': MulticlassAccuracy(10)}"
    function = required_function(module, "metrics", "def metrics() -> dict[str, torchmetrics.Metric]")
    try:
        metrics = function()
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise InputError(file, f"metrics() fails ({reason(error, Path(file))})", form, _FORM) from error
    if not isinstance(metrics, Mapping) or not metrics:
        given = "an empty dict" if isinstance(metrics, Mapping) else f"a {type(metrics).__name__}"
        raise InputError(file, f"metrics(){line_of(function)} gives {given}", form, _FORM)
    for name, metric in metrics.items():
        if not isinstance(name, str) or not name.isidentifier() or name in _TAKEN:
            problem = f"metrics(){line_of(function)} has the name {name!r}"
            raise InputError(file, problem, "letters, digits and '_', and none of ours", _FORM)
        named, is_ours = f"metric {name!r} of metrics(){line_of(function)}", isinstance(metric, ImageMetric)
        if isinstance(metric, type) or not (is_ours or (hasattr(metric, "update") and hasattr(metric, "compute"))):
            kind = f"the class {metric.__name__}" if isinstance(metric, type) else f"a {type(metric).__name__}"
            raise InputError(file, f"{named} is {kind}", "a torchmetrics Metric", _FORM)
        if not isinstance(getattr(metric, "higher_is_better", None), bool):
            problem = f"{named} does not say whether more of it is better: its higher_is_better is none"
            raise InputError(file, problem, "True or False there, set in a class of your own", _FORM)
    return dict(metrics)


def _monitor(module: ModuleType, metrics: Metrics) -> str:
    name = getattr(module, "MONITOR", "")
    if not isinstance(name, str) or (name and name not in metrics):
        raise InputError(str(module.__file__), f"has MONITOR = {name!r}", f"one of {', '.join(metrics)}", _FORM)
    return name


_TAKEN = {"sqnr_db", "size_mb", "latency", "latency_ms", "noise_mse"}


def _unchanged(inputs: Tensor, targets: Nested) -> tuple[Tensor, Nested]:
    return inputs, targets


def _distance(outputs: Nested, taught: Nested) -> Tensor:
    """Mean squared distance to the float network's outputs, in parts of their variance, over all outputs."""
    pairs = zip(leaves(outputs).values(), leaves(taught).values(), strict=True)
    parts = [(one - other).square().mean() / other.var(correction=0).clamp_min(1e-12) for one, other in pairs]
    total = sum(parts[1:], parts[0])
    return total / len(parts)
