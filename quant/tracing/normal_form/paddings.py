"""Layers that pad in ways that int8 kernels do not: convolutions as a padding and a convolution, pooling in float."""

import torch.nn.functional as F
from torch import Tensor, fx, nn

from quant.graph import module_of, set_module
from quant.tracing.normal_form.constants import free_name
from quant.tracing.normal_form.modules import PADS


def make_paddings_numbers_(graph_module: fx.GraphModule) -> None:
    """Replace ``padding="same"`` and ``padding_mode="reflect"`` and its like. The graph knows its shapes."""
    done: set[nn.Module] = set()
    for node in list(graph_module.graph.nodes):
        conv = module_of(graph_module, node)
        if not isinstance(conv, nn.Conv2d) or conv in done:
            continue
        left, right, top, bottom = sides = _sides(conv)
        if conv.padding_mode == "zeros" and (left, top) == (right, bottom):
            conv.padding = (top, left)
        else:
            name = free_name(graph_module, f"{node.target}_pad")
            set_module(graph_module, name, PADS[conv.padding_mode](sides))
            source = node.args[0]
            with graph_module.graph.inserting_before(node):
                padded = graph_module.graph.call_module(name, (source,))
            *outer, rows, columns = source.meta["shape"]
            padded.meta = {**node.meta, "shape": (*outer, rows + top + bottom, columns + left + right)}
            node.args = (padded,)
            conv.padding, conv.padding_mode = (0, 0), "zeros"
        done.add(conv)


class AveragePool(nn.Module):
    """Averages with a divisor of its own, for which there is no int8 kernel: over what is no padding, or given."""

    def __init__(self, pool: nn.AvgPool2d) -> None:
        super().__init__()
        self.size, self.stride, self.padding, self.ceil_mode = (
            pool.kernel_size,
            pool.stride,
            pool.padding,
            pool.ceil_mode,
        )
        self.count_include_pad, self.divisor = pool.count_include_pad, pool.divisor_override

    def forward(self, x: Tensor) -> Tensor:
        """NxCxHxW to NxCxH'xW'."""
        where = self.size, self.stride, self.padding, self.ceil_mode
        return F.avg_pool2d(x, *where, self.count_include_pad, self.divisor)


def keep_divisors_(graph_module: fx.GraphModule) -> None:
    """Let average pooling that does not divide by the size of its kernel be float."""
    for node in graph_module.graph.nodes:
        pool = module_of(graph_module, node)
        if isinstance(pool, nn.AvgPool2d):
            uncounted = not pool.count_include_pad and pool.padding not in (0, (0, 0), [0, 0])
            if uncounted or pool.divisor_override is not None:
                set_module(graph_module, str(node.target), AveragePool(pool))


def _sides(conv: nn.Conv2d) -> tuple[int, int, int, int]:
    """Left, right, top and bottom."""
    sides: list[int] = []
    for axis in (1, 0):
        if conv.padding == "same":  # as many pixels as come in, the uneven one behind
            total = conv.dilation[axis] * (conv.kernel_size[axis] - 1)
            sides += [total // 2, total - total // 2]
        else:
            sides += [0, 0] if conv.padding == "valid" else [int(conv.padding[axis])] * 2
    return sides[0], sides[1], sides[2], sides[3]
