"""High-bias absorption (Nagel et al. 2019, arXiv:1906.04721, section 4.1.3), the companion of equalization.

A channel that ReLU never cuts spends range on a constant: for z > c, ``relu(z) = relu(z - c) + c``. The constant c is
taken from the bias in front of the ReLU and given to the convolutions behind it. The paper finds c from BatchNorm's
factors, three standard deviations below the mean; here it is seen on the calibration images.
"""

import torch
from torch import Tensor, fx, nn

from quant.calibrate import Images
from quant.graph import ConvSite, conv_sites, module_of


@torch.no_grad()
def absorb_high_biases_(graph_module: fx.GraphModule, images: Images, batch_size: int = 8) -> dict[str, Tensor]:
    """Take constants out of ReLU outputs that only convolutions without padding read, in place.

    Args:
        graph_module: float network in eval mode, BatchNorm live or folded.
        images: normalized, Nx3xHxW.

    Returns what was taken by convolution, a number a channel (out,): the smallest value in front of the ReLU on any
    image, less one standard deviation, so that other images hardly fall below it; 0 where that is negative.
    """
    by_conv = {site.conv: site for site in conv_sites(graph_module)}
    sites = {site: readers for site in by_conv.values() if (readers := _readers(graph_module, site, by_conv))}
    if not sites:
        return {}
    recorder = _Recorder(graph_module, {site.bn or site.conv for site in sites})
    device = next(graph_module.parameters()).device
    for start in range(0, len(images), batch_size):
        recorder.run(images[start : start + batch_size].to(device))
    taken = {}
    for site, readers in sites.items():
        constant = recorder.constant(site.bn or site.conv)
        taken[str(site.conv.target)] = constant
        _shift_(graph_module, site, -constant)
        for reader in readers:
            conv = module_of(graph_module, reader.conv)
            assert isinstance(conv, nn.Conv2d)
            inputs = constant.reshape(conv.groups, 1, -1)
            weight = conv.weight.sum((2, 3)).reshape(conv.groups, -1, inputs.shape[2])
            gained = (weight * inputs).sum(2).flatten()
            bn = module_of(graph_module, reader.bn)
            if isinstance(bn, nn.BatchNorm2d):
                assert bn.running_mean is not None
                bn.running_mean -= gained  # what comes in is less by as much
            else:
                _shift_(graph_module, reader, gained)
    return taken


def _readers(graph_module: fx.GraphModule, site: ConvSite, by_conv: dict[fx.Node, ConvSite]) -> list[ConvSite]:
    """The convolutions that alone read the site's ReLU; none where something else does, or one pads with zeros."""
    if site.activation is None or not isinstance(module_of(graph_module, site.activation), nn.ReLU):
        return []
    readers = [by_conv.get(user) for user in site.activation.users]
    for reader in readers:
        conv = module_of(graph_module, reader.conv) if reader else None
        if not isinstance(conv, nn.Conv2d) or conv.padding not in ((0, 0), "valid"):
            return []
    return [reader for reader in readers if reader is not None]


def _shift_(graph_module: fx.GraphModule, site: ConvSite, shift: Tensor) -> None:
    """Add ``shift`` (out,) to what the site's convolution, with its BatchNorm, gives."""
    module = module_of(graph_module, site.bn or site.conv)
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
            found = [wide.amin((0, 2, 3)), wide.sum((0, 2, 3)), (wide**2).sum((0, 2, 3))]
            found.append(torch.full_like(found[0], value[:, 0].numel()))
            smallest, *sums = self.seen.get(n, [found[0], *[torch.zeros_like(found[0])] * 3])
            self.seen[n] = [torch.minimum(smallest, found[0]), *(a + b for a, b in zip(sums, found[1:], strict=True))]
        return value

    def constant(self, node: fx.Node) -> Tensor:
        """What the node's channels stay above."""
        smallest, total, squares, count = self.seen[node]
        deviation = (squares / count - (total / count) ** 2).clamp_min(0.0).sqrt()
        return (smallest - deviation).clamp_min(0.0).float()
