"""Which channels share one free scale: channel classes of the float graph.

A positive factor on a channel passes through ReLU, resizing, pooling and concatenation, ties both sides of an
addition, and is undone in the convolutions that read the channel. A ScaledSiLU takes it into its own scale. Plain SiLU,
ReLU6, sigmoid, and the network's own input and output admit none. Equalization works on the classes that are left.
"""

from dataclasses import dataclass

import numpy as np
from torch import fx, nn

from quant.graph import ADDITIONS, PRODUCTS, ConvBlock, conv_blocks, is_linear_in_place, joined, module_of
from quant.scaled_silu import ScaledSiLU


@dataclass(frozen=True)
class Use:
    """One end of a class: for each channel of a convolution's output (or input) the class it belongs to (C,)."""

    block: ConvBlock
    classes: np.ndarray


@dataclass(frozen=True)
class ChannelClasses:
    """The classes of a graph: ``count`` of them, what writes and what reads their channels, and which values have them.

    A class number of -1 marks a channel without a free scale. ``values`` are the nodes whose output channels carry
    classes; ``silus`` are those among them that keep the factor in a scale of their own.
    """

    count: int
    producers: tuple[Use, ...]
    consumers: tuple[Use, ...]
    silus: tuple[fx.Node, ...]
    values: dict[fx.Node, np.ndarray]


class _Union:
    """Union-find over channels; a root may be fixed, which holds for its whole class."""

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.fixed: set[int] = set()

    def new(self, count: int) -> np.ndarray:
        start = len(self.parent)
        self.parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def find(self, channel: int) -> int:
        while self.parent[channel] != channel:
            self.parent[channel] = self.parent[self.parent[channel]]
            channel = self.parent[channel]
        return channel

    def join(self, one: np.ndarray, other: np.ndarray) -> None:
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            root_a, root_b = self.find(a), self.find(b)
            self.parent[root_b] = root_a
            if root_b in self.fixed:
                self.fixed.add(root_a)

    def fix(self, channels: np.ndarray | None) -> None:
        if channels is not None:
            self.fixed.update(self.find(channel) for channel in channels.tolist())


def channel_classes(graph_module: fx.GraphModule) -> ChannelClasses:
    """Find the channel classes of a traced float network, with BatchNorm live or folded."""
    union = _Union()
    blocks = {block.conv: block for block in conv_blocks(graph_module)}
    inside = {node: block for block in blocks.values() for node in (block.bn, block.activation) if node is not None}
    channels: dict[fx.Node, np.ndarray | None] = {}
    reads: list[tuple[ConvBlock, np.ndarray]] = []
    writes: list[tuple[ConvBlock, np.ndarray]] = []
    for node in graph_module.graph.nodes:
        inputs = [channels.get(arg) for arg in node.all_input_nodes]
        module = module_of(graph_module, node)
        if node in blocks:
            assert isinstance(module, nn.Conv2d)
            if inputs[0] is not None:
                reads.append((blocks[node], inputs[0]))
            written = channels[node] = union.new(module.out_channels)
            writes.append((blocks[node], written))
        elif (
            (node in inside and not isinstance(module, nn.ReLU6))
            or isinstance(module, ScaledSiLU)
            or is_linear_in_place(graph_module, node)
        ):
            channels[node] = inputs[0]
        elif node.target in ADDITIONS and len(inputs) == 2:
            channels[node] = _added(union, *inputs)
        elif (
            node.target in PRODUCTS
            and len(inputs) == 2
            and any(item is None for item in inputs)
            and not any(item is not None and len(item) == 1 for item in inputs)
        ):
            # A gate without a free scale (sigmoid of squeeze-and-excitation) only passes the other side's on. (One
            # channel may be spread over many.)
            channels[node] = next((item for item in inputs if item is not None), None)
        elif (parts := joined(node)) and _is_over_channels(node) and all(item is not None for item in inputs):
            # all_input_nodes names a value once, and it may be there twice.
            channels[node] = np.concatenate([channels[part] for part in parts])
        else:
            for item in inputs:
                union.fix(item)
            channels[node] = None
    silus = tuple(node for node in channels if isinstance(module_of(graph_module, node), ScaledSiLU))
    return _number(union, reads, writes, silus, channels)


def _is_over_channels(concatenation: fx.Node) -> bool:
    return 1 in (*concatenation.args[1:], concatenation.kwargs.get("dim"))


def _added(union: _Union, one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    if one is None or other is None or len(one) != len(other):
        union.fix(one)
        union.fix(other)
        return None
    union.join(one, other)
    return one


def _number(
    union: _Union,
    reads: list[tuple[ConvBlock, np.ndarray]],
    writes: list[tuple[ConvBlock, np.ndarray]],
    silus: tuple[fx.Node, ...],
    channels: dict[fx.Node, np.ndarray | None],
) -> ChannelClasses:
    """Give the free classes that are both written and read the numbers 0, 1, ..., and all others -1."""
    roots = np.array([union.find(channel) for channel in range(len(union.parent))], dtype=np.int64)
    read = {int(root) for _, used in reads for root in roots[used]}
    fixed = {union.find(channel) for channel in union.fixed}
    free = sorted(read - fixed)
    number = np.full(len(roots) + 1, -1)
    number[free] = np.arange(len(free))
    return ChannelClasses(
        count=len(free),
        producers=tuple(Use(block, number[roots[used]]) for block, used in writes),
        consumers=tuple(Use(block, number[roots[used]]) for block, used in reads),
        silus=silus,
        values={node: number[roots[used]] for node, used in channels.items() if used is not None},
    )
