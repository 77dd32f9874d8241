"""Transposed convolutions as convolutions whose output channels are shuffled into pixels.

A transposed convolution of stride s gives s x s output pixels for each input pixel, each by kernel taps of its own: a
convolution with s * s times the channels computes the same (Shi et al. 2016, arXiv:1609.07009). Written as one, all
techniques for convolutions hold for it, and it runs in the same int8 kernels.
"""

import itertools
import operator

import torch
import torch.nn.functional as F
from torch import fx, nn

from quant.graph import ACTIVATIONS, module_of, only_user, set_module


def unfold_transposed_(graph_module: fx.GraphModule) -> None:
    """Rewrite every ``nn.ConvTranspose2d`` of equal strides, with the BatchNorm and the clamp behind it.

    The graph knows its shapes. BatchNorm gets statistics for each of the s * s places of an output pixel.
    """
    for node in list(graph_module.graph.nodes):
        transposed = module_of(graph_module, node)
        if isinstance(transposed, nn.ConvTranspose2d) and len(set(transposed.stride)) == 1:
            _unfold(graph_module, node, transposed)


def _unfold(graph_module: fx.GraphModule, node: fx.Node, transposed: nn.ConvTranspose2d) -> None:
    graph, stride, shape, source = graph_module.graph, transposed.stride[0], node.meta["shape"], node.args[0]
    assert isinstance(source, fx.Node)
    conv, starts = sub_pixel_convolution(transposed, source.meta["shape"][2:], shape[2:])
    set_module(graph_module, str(node.target), conv)
    bn = only_user(graph_module, node, (nn.BatchNorm2d,))
    norm = module_of(graph_module, bn)
    if bn is not None and isinstance(norm, nn.BatchNorm2d):
        set_module(graph_module, str(bn.target), _repeated(norm, stride**2))
    last = only_user(graph_module, bn or node, ACTIVATIONS) or bn or node
    readers = list(last.users)
    with graph.inserting_after(last):
        pixels = graph.call_function(F.pixel_shuffle, (last, stride))
    rows, columns = (slice(start, start + size) for start, size in zip(starts, shape[2:], strict=True))
    with graph.inserting_after(pixels):
        value = graph.call_function(operator.getitem, (pixels, (slice(None), slice(None), rows, columns)))
    value.meta["shape"] = shape
    for reader in readers:
        reader.replace_input_with(last, value)
    for inner in (node, bn or node, last):
        inner.meta.pop("shape", None)


@torch.no_grad()
def sub_pixel_convolution(
    transposed: nn.ConvTranspose2d, input_size: tuple[int, int], output_size: tuple[int, int]
) -> tuple[nn.Conv2d, list[int]]:
    """The convolution in front of the pixel shuffle, and the row and the column of its result at which to start.

    Its output channel ``(o * s + i) * s + j`` is pixel (i, j) of channel ``o``. It pads both sides by what the side
    that needs more needs; what the result has in front of the start and beyond the output's size is to be cut off.
    """
    stride = transposed.stride[0]
    taps, least, most, padding = [], [], [], []
    for axis in (0, 1):
        found = _taps(transposed.kernel_size[axis], transposed.dilation[axis], int(transposed.padding[axis]), stride)
        offsets = [offset for _, _, offset in found]
        behind = -(-output_size[axis] // stride) - input_size[axis] - min(offsets)
        taps.append(found)
        least.append(min(offsets))
        most.append(max(offsets))
        padding.append(max(most[-1], behind, 0))
    groups, outputs = transposed.groups, transposed.out_channels
    weight = transposed.weight.reshape(groups, -1, outputs // groups, *transposed.kernel_size).transpose(1, 2)
    weight = weight.flatten(0, 1)  # out x in / groups x rows x columns
    size = [high - low + 1 for low, high in zip(least, most, strict=True)]
    shuffled = weight.new_zeros(outputs, stride, stride, weight.shape[1], *size)
    for (row, i, down), (column, j, right) in itertools.product(*taps):
        shuffled[:, i, j, :, most[0] - down, most[1] - right] = weight[:, :, row, column]
    conv = nn.Conv2d(transposed.in_channels, outputs * stride**2, size, padding=padding, groups=groups, bias=False)  # type: ignore[arg-type]
    conv.weight = nn.Parameter(shuffled.flatten(0, 2))
    if transposed.bias is not None:
        conv.bias = nn.Parameter(transposed.bias.repeat_interleave(stride**2))
    conv.training = transposed.training
    return conv, [stride * (pad - high) for pad, high in zip(padding, most, strict=True)]


def _taps(size: int, dilation: int, padding: int, stride: int) -> list[tuple[int, int, int]]:
    """For each tap of a kernel: its index, the output pixel that it is for, and how many inputs before it it reads."""
    reached = [(tap, tap * dilation - padding) for tap in range(size)]
    return [(tap, place % stride, place // stride) for tap, place in reached]


@torch.no_grad()
def _repeated(norm: nn.BatchNorm2d, times: int) -> nn.BatchNorm2d:
    """The same BatchNorm with every channel ``times`` times in a row."""
    repeated = nn.BatchNorm2d(norm.num_features * times, norm.eps, norm.momentum, norm.affine)
    state = {
        name: value.repeat_interleave(times) if value.dim() else value for name, value in norm.state_dict().items()
    }
    repeated.load_state_dict(state)
    return repeated.to(norm.running_mean.device).train(norm.training)  # type: ignore[union-attr]
