"""High-bias absorption (Nagel et al. 2019, arXiv:1906.04721, section 4.1.3), the companion of equalization.

A channel that ReLU never cuts spends range on a constant: for z > c, ``relu(z) = relu(z - c) + c``. The constant c is
taken from the bias in front of the ReLU and given to the convolutions behind it. The paper finds c from BatchNorm's
factors, three standard deviations below the mean; here it is measured on the calibration images.
"""

import torch
from torch import Tensor, fx, nn

from quant.calibrate import Images
from quant.graph import ConvBlock, conv_blocks, module_of


@torch.no_grad()
def absorb_high_biases_(graph_module: fx.GraphModule, images: Images, batch_size: int = 8) -> dict[str, Tensor]:
    """Take constants out of ReLU outputs that only convolutions without padding read, in place.

    Args:
        graph_module: float network in eval mode, BatchNorm live or folded.
        images: normalized, Nx3xHxW.

    Returns what was taken, by convolution, for each channel (out,): the smallest value in front of the ReLU on any
    image, less one standard deviation, so that other images hardly fall below it; 0 where that is negative.
    """
    by_conv = {block.conv: block for block in conv_blocks(graph_module)}
    blocks = {block: readers for block in by_conv.values() if (readers := _readers(graph_module, block, by_conv))}
    if not blocks:
        return {}
    recorder = _Recorder(graph_module, {block.bn or block.conv for block in blocks})
    device = next(graph_module.parameters()).device
    for start in range(0, len(images), batch_size):
        recorder.run(images[start : start + batch_size].to(device))
    taken = {}
    for block, readers in blocks.items():
        constant = recorder.constant(block.bn or block.conv)
        taken[str(block.conv.target)] = constant
        _shift_(graph_module, block, -constant)
        for reader in readers:
            conv = module_of(graph_module, reader.conv)
            assert isinstance(conv, nn.Conv2d)
            inputs = constant.reshape(conv.groups, 1, -1)
            weight = conv.weight.sum((2, 3)).reshape(conv.groups, -1, inputs.shape[2])
            gained = (weight * inputs).sum(2).flatten()
            bn = module_of(graph_module, reader.bn)
            if isinstance(bn, nn.BatchNorm2d):
                assert bn.running_mean is not None
                bn.running_mean -= gained  # the input is smaller by this much
            else:
                _shift_(graph_module, reader, gained)
    return taken


def _readers(graph_module: fx.GraphModule, block: ConvBlock, by_conv: dict[fx.Node, ConvBlock]) -> list[ConvBlock]:
    """The convolutions that alone read the block's ReLU; none where something else does, or one pads with zeros."""
    if block.activation is None or not isinstance(module_of(graph_module, block.activation), nn.ReLU):
        return []
    readers = [by_conv.get(user) for user in block.activation.users]
    for reader in readers:
        conv = module_of(graph_module, reader.conv) if reader else None
        if not isinstance(conv, nn.Conv2d) or conv.padding not in ((0, 0), "valid"):
            return []
    return [reader for reader in readers if reader is not None]


def _shift_(graph_module: fx.GraphModule, block: ConvBlock, shift: Tensor) -> None:
    """Add ``shift`` (out,) to what the block's convolution, with its BatchNorm, gives."""
    module = module_of(graph_module, block.bn or block.conv)
    assert isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    if module.bias is None:
        module.bias = nn.Parameter(torch.zeros_like(shift))
    module.bias += shift


class _Recorder(fx.Interpreter):
    """Keeps the smallest value of each channel, and its first two moments, of the wanted nodes."""

    def __init__(self, graph_module: fx.GraphModule, wanted: set[fx.Node]) -> None:
        super().__init__(graph_module)
        self.wanted = wanted
        self.seen: dict[fx.Node, list[Tensor]] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if n in self.wanted:
            assert isinstance(value, Tensor)
            wide = value.double()
            low, added = wide.amin((0, 2, 3)), [wide.sum((0, 2, 3)), (wide**2).sum((0, 2, 3))]
            added.append(torch.full_like(low, value[:, 0].numel()))
            smallest, *sums = self.seen.get(n, [low, *[torch.zeros_like(low)] * 3])
            self.seen[n] = [torch.minimum(smallest, low), *(a + b for a, b in zip(sums, added, strict=True))]
        return value

    def constant(self, node: fx.Node) -> Tensor:
        """What the node's channels stay above."""
        smallest, total, squares, count = self.seen[node]
        deviation = (squares / count - (total / count) ** 2).clamp_min(0.0).sqrt()
        return (smallest - deviation).clamp_min(0.0).float()
