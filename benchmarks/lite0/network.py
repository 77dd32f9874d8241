"""EfficientNet-Lite0 with its ImageNet weights, as a classifier of plain ``torch.nn`` modules."""

from torch import Tensor, nn

from model.network.pretrained import LITE0_BN_EPS, lite0_weights

SIZE = 224
STEM, HEAD, CLASSES = 32, 1280, 1000
STAGES = (
    *((16, 3, 1, 1, 1), (24, 3, 2, 6, 2), (40, 5, 2, 6, 2), (80, 3, 2, 6, 3)),
    *((112, 5, 1, 6, 3), (192, 5, 2, 6, 4), (320, 3, 1, 6, 1)),
)
"""Channels, kernel, stride of the first block, expansion, and number of blocks."""


class Block(nn.Module):
    """An inverted residual block without squeeze-and-excitation (Sandler et al. 2018, arXiv:1801.04381)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        expand = unit(inputs, wide, 1) if expansion != 1 else []
        self.layers = nn.Sequential(
            *expand, *unit(wide, wide, kernel, stride, groups=wide), *unit(wide, outputs, 1, clamp=False)
        )
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Nx{in}xHxW to Nx{out}xH'xW'."""
        y: Tensor = self.layers(x)
        return x + y if self.skip else y


def unit(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, clamp: bool = True
) -> list[nn.Module]:
    """Convolution, BatchNorm and ReLU6. Where it halves an even size it pads as TensorFlow does, less in front."""
    side = (kernel - 1) // 2
    pad = [nn.ZeroPad2d((side - 1, side) * 2)] if stride == 2 else []
    padding = 0 if stride == 2 else side
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return [*pad, conv, nn.BatchNorm2d(outputs, eps=LITE0_BN_EPS), *([nn.ReLU6()] if clamp else [])]


def build(stages: tuple[tuple[int, ...], ...] = STAGES, classes: int = CLASSES, head: int = HEAD) -> nn.Sequential:
    """The classifier with random weights: Nx3xSxS, S even at every halving, to Nx{classes} logits."""
    blocks, inputs = [], STEM
    for outputs, kernel, stride, expansion, count in stages:
        blocks.append(Block(inputs, outputs, kernel, stride, expansion))
        blocks += [Block(outputs, outputs, kernel, 1, expansion) for _ in range(count - 1)]
        inputs = outputs
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*unit(3, STEM, 3, 2), *blocks, *unit(inputs, head, 1), *pool, nn.Linear(head, classes)).eval()


def pretrained() -> nn.Sequential:
    """Lite0 with the ImageNet weights of the package, for pictures as ``(x - 127) / 128``; raises InputError."""
    network = build()
    ours, theirs = network.state_dict(), lite0_weights()
    network.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))
    return network
