"""A device that computes on the CPU, and refuses what a GPU refuses: to mix its tensors with those of the CPU.

Where no GPU is at hand, code that is made for one runs on it to the same figures. Its name is ``lazy``, of a device
that every build of PyTorch knows and nothing here uses; its tensors hold their values in tensors of the CPU (a wrapper
subclass, as in "The subclass zoo", github.com/albanD/subclass_zoo).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

DEVICE = torch.device("lazy")
_CPU = torch.device("cpu")
_MOVES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
_TO_THE_HOST = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)
"""What gives a number or a bool."""


@contextmanager
def pretended_gpu() -> Iterator[torch.device]:
    """In here tensors can be moved to the device, made and computed on it."""
    with _Functions(), _Operators():
        yield DEVICE


class OnDevice(Tensor):
    """A tensor on the device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnDevice":
        shown = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        return Tensor._make_wrapper_subclass(cls, held.shape, **shown, layout=held.layout, device=DEVICE)

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def __repr__(self) -> str:
        return f"OnDevice({self.held})"

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], context: None, size: object, stride: object) -> "OnDevice":
        return OnDevice(inner["held"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Operators(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled():  # operators that are made of others come here whole
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        return _run(func, args, kwargs)


class _Functions(TorchFunctionMode):
    """``torch.tensor`` moves what it makes to the device out of a mode's sight, and a subclass has no ``tolist``."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu") == DEVICE:
            return func(*args, **{**kwargs, "device": _CPU}).to(DEVICE)
        if func is Tensor.tolist:
            return args[0].cpu().tolist()
        return func(*args, **kwargs)


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    flat, spec = tree_flatten((args, kwargs))
    tensors = [value for value in flat if isinstance(value, Tensor)]
    here = any(isinstance(tensor, OnDevice) for tensor in tensors)
    if here and func not in _MOVES:
        # As on a GPU a number of the CPU may take part.
        strangers = [tensor for tensor in tensors if not isinstance(tensor, OnDevice) and tensor.dim()]
        if strangers:
            raise RuntimeError(f"{func} has tensors of two devices; on the CPU: {[tuple(t.shape) for t in strangers]}")
    wanted = [value for value in flat if isinstance(value, torch.device)]
    result_here = wanted[0] == DEVICE if wanted else here
    if func is torch.ops.aten.copy_.default:
        result_here = isinstance(args[0], OnDevice)
    elif func in _TO_THE_HOST:
        result_here = False
    plain_args, plain_kwargs = tree_unflatten([_plain(value) for value in flat], spec)
    result = func(*plain_args, **plain_kwargs)
    if result_here:
        result = tree_map_only(Tensor, OnDevice, result)
        return return_and_correct_aliasing(func, args, kwargs, result)
    return args[0] if func is torch.ops.aten.copy_.default else result


def _plain(value: Any) -> Any:
    if isinstance(value, OnDevice):
        return value.held
    return _CPU if isinstance(value, torch.device) else value
