"""Time by operator of PyTorch's own kernels, float and int8, from torch's profiler."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from quant.operator_times.operator_time import (
    CONVERSION,
    CONVOLUTION,
    FLOAT,
    INT8,
    WARMUP,
    OperatorTime,
    kind_of_convolution,
    kind_of_name,
    of_quieter_half,
)

_FORWARD, _LAYER = "forward of the network", "layer "
_QUANTIZED = ("c10::quint8", "c10::qint8", "c10::qint32")


@torch.inference_mode()
def operator_times(
    network: nn.Module, image: Tensor, forwards: int, run: Callable[[Tensor], object] | None = None
) -> list[OperatorTime]:
    """Operators of a network in eval mode for ``image`` (1xCxHxW), on as many threads as torch has.

    ``run`` is its forward where that is not the network's own. An operator is what Python calls; those that it calls in
    turn belong to it. The cost of the profiler, about a microsecond an operator, is in the times.
    """
    forward = run or network
    for _ in range(WARMUP):
        forward(image)
    with (
        _labelled(network),
        profile(activities=[ProfilerActivity.CPU], record_shapes=True, acc_events=True) as profiler,
    ):
        for _ in range(forwards):
            with record_function(_FORWARD):
                forward(image)
    layers = dict(network.named_modules())
    found: list[tuple[float, list[OperatorTime]]] = []
    for event in sorted(profiler.events(), key=lambda event: event.time_range.start):
        if event.name == _FORWARD:
            found.append((float(event.cpu_time_total), []))
        elif found and not event.name.startswith(_LAYER) and _is_label(event.cpu_parent):
            layer = event.cpu_parent.name.removeprefix(_LAYER) if event.cpu_parent.name != _FORWARD else ""
            found[-1][1].append(_operator_time(event, layer, layers.get(layer)))
    return of_quieter_half(found)


def _is_label(event: Any) -> bool:
    return event is not None and (event.name == _FORWARD or event.name.startswith(_LAYER))


def _operator_time(event: Any, layer: str, module: nn.Module | None) -> OperatorTime:
    kind = kind_of_name(event.name)
    if kind == CONVOLUTION:
        kind = _kind_of_convolution(event, module)
    types = event.input_dtypes or ()
    quantized = event.name.startswith("quantized::") or any(one in _QUANTIZED for one in types)
    number_format = CONVERSION if kind == CONVERSION else INT8 if quantized else FLOAT
    return OperatorTime(event.name, kind, number_format, layer, float(event.cpu_time_total))


def _kind_of_convolution(event: Any, module: Any) -> str:
    """By its module, or by the shapes of input and weight (out x in / groups x h x w)."""
    if module is not None and hasattr(module, "groups"):
        return kind_of_convolution(module.in_channels, module.groups, module.kernel_size)
    image, weight = (*event.input_shapes[:2], [], [])[:2]
    if len(image) < 3 or len(weight) < 3:
        return CONVOLUTION
    return kind_of_convolution(image[1], image[1] // weight[1], weight[2:])


@contextmanager
def _labelled(network: nn.Module) -> Iterator[None]:
    """Within it the profiler sees which module an operator is called in."""
    with ExitStack() as hooks:
        for name, module in network.named_modules():
            if not name:
                continue
            labels: list[record_function] = []

            def enter(_: nn.Module, __: Any, name: str = name, labels: list[record_function] = labels) -> None:
                labels.append(record_function(f"{_LAYER}{name}"))
                labels[-1].__enter__()

            def leave(_: nn.Module, __: Any, ___: Any, labels: list[record_function] = labels) -> None:
                labels.pop().__exit__(None, None, None)

            hooks.enter_context(_removed(module.register_forward_pre_hook(enter)))
            hooks.enter_context(_removed(module.register_forward_hook(leave)))
        yield


@contextmanager
def _removed(hook: Any) -> Iterator[None]:
    try:
        yield
    finally:
        hook.remove()
