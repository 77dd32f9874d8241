"""Small networks of convolutions, each with one thing that is hard to take apart: 3x16x16 images to maps or logits."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FunctionalConvolutions(nn.Module):
    """Convolution, BatchNorm, activation, pooling and linear layer as functions of parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 3, 3, 3) / 5)
        self.bn = nn.BatchNorm2d(8)
        self.head = nn.ModuleDict({"proj": nn.Linear(8, 6), "conv": nn.Conv2d(8, 8, 3, padding=1, groups=4)})

    def forward(self, x: Tensor) -> Tensor:
        bn, conv, proj = self.bn, self.head["conv"], self.head["proj"]
        x = F.conv2d(x, self.kernel, None, stride=(2, 2), padding="valid")
        x = F.relu(F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, self.training, eps=bn.eps))
        x = F.leaky_relu(torch.conv2d(x, conv.weight, conv.bias, padding=1, groups=4), 0.1)
        x = F.avg_pool2d(F.max_pool2d(x, 3, 1), kernel_size=2)
        return F.linear(F.adaptive_avg_pool2d(x, (1, 1)).flatten(1), proj.weight, bias=proj.bias)


class StandardizedConv(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        mean, var = self.weight.mean((1, 2, 3), keepdim=True), self.weight.var((1, 2, 3), keepdim=True)
        weight = (self.weight - mean) * torch.rsqrt(var * 27 + 1e-5)
        return F.conv2d(input, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class WeightStandardization(nn.Module):
    """Weights that are computed from weights, with GroupNorm, and a weight times a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = StandardizedConv(3, 8, 3, padding=1), nn.GroupNorm(2, 8)
        self.last, self.scale = nn.Conv2d(8, 4, 1), nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm(self.stem(x)))
        return F.conv2d(x, self.last.weight * self.scale, self.last.bias)


class NormalizedWeights(nn.Module):
    """Weights in the forms of ``torch.nn.utils``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3, padding=1))
        self.conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 8, 3, padding=1))
        self.last = nn.utils.spectral_norm(nn.Conv2d(8, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.elu(self.conv(F.mish(self.stem(x)))))


class SharedHead(nn.Module):
    """A head that two levels share, as detectors have it, with BatchNorm inside."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, 1)
        self.head = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine = self.stem(x).relu()
        return {"fine": self.last(self.head(fine)), "coarse": self.last(self.head(self.down(fine)))}


class Recurrent(nn.Module):
    """One block three times in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.bn = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.act = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = x + self.act(self.bn(self.conv(x)))
        return x


class ChannelShuffle(nn.Module):
    """ShuffleNet's unit: chunk, a depthwise branch, cat, and channels shuffled by sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.branch = nn.Sequential(
            *(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), nn.BatchNorm2d(4)),
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.bn(self.stem(x)).relu().chunk(2, dim=1)
        x = torch.cat((left, self.branch(right)), dim=1)
        count, channels, height, width = x.size()
        return (
            x.view(count, 2, channels // 2, height, width).transpose(1, 2).contiguous().view(count, -1, height, width)
        )


class UNet(nn.Module):
    """A transposed convolution, a skip, and a resize to the size of another tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.inner = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.up, self.bn = nn.ConvTranspose2d(8, 8, 2, stride=2, bias=False), nn.BatchNorm2d(8)
        self.last = nn.Conv2d(19, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        fine = F.relu(self.down(x))
        coarse = F.relu(self.bn(self.up(F.relu(self.inner(fine)))))
        levels = [F.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False) for y in (fine, coarse)]
        return self.last(torch.cat([*levels, x], 1))


class FunctionalTransposed(nn.Module):
    """A transposed convolution as a function, and a resize by a factor."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=4, padding=1)
        self.up = nn.Parameter(torch.randn(4, 6, 4, 4) / 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.stem(x))
        return F.interpolate(F.conv_transpose2d(x, self.up, stride=2, padding=1), scale_factor=2, mode="nearest")


class SuperResolution(nn.Module):
    """Pixels shuffled out of channels, PReLU, and the picture added to the result."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, 12, 3, padding=1), nn.PReLU(12)
        self.up, self.shuffle = nn.Conv2d(12, 12, 3, padding=1), nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.shuffle(self.up(self.act(self.stem(x)))) + F.interpolate(x, scale_factor=2.0)


class SqueezeExcite(nn.Module):
    """Gates from means, with and without the dimensions kept, and an inverted residual."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.bn = nn.Conv2d(3, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=2, dilation=2, groups=12)
        self.squeeze, self.excite = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.first, self.second = nn.Linear(12, 4), nn.Linear(4, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.bn(self.expand(x)))
        x = x * torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        x = F.relu6(self.depthwise(x))
        gate = F.hardsigmoid(self.second(F.relu(self.first(x.mean([-2, -1])))))
        return x.mul(gate.view(*gate.shape, 1, 1))


class SignalNetwork(nn.Module):
    """Convolutions over rows of pixels, one by one: Conv1d with BatchNorm1d."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv1d(8, 8, 3, padding=1, bias=False)
        self.bn, self.last = nn.BatchNorm1d(8), nn.Conv1d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.bn(self.conv(self.stem(x).flatten(2)))))


class BatchNormAfterAdd(nn.Module):
    """Pre-activation: BatchNorm of a sum, which no convolution in front can take up."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn, self.conv = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.bn2, self.last = nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.conv(F.relu(self.bn(x)))
        return self.last(F.relu(self.bn2(x)))


class InPlace(nn.Module):
    """Values that are changed where they are, and read again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.act = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.act(x)  # x is the same now
        x = x.add_(self.conv(y))
        x += 0.5
        F.relu_(x)
        return torch.sigmoid_(x.mul_(2.0))


class Padded(nn.Module):
    """Paddings: by name, uneven, reflected, and by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv2d(3, 8, 3, padding="same", dilation=2)
        self.uneven = nn.Conv2d(8, 8, 4, padding="same")
        self.mirror = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.last = nn.Conv2d(8, 4, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.uneven(F.relu(self.same(x))))
        return self.last(F.pad(F.relu(self.mirror(x)), (0, 1, 0, 1)))


class Pools(nn.Module):
    """Average pooling that does not count its padding, max pooling with its indices, and a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        self.average = nn.AvgPool2d(3, 2, padding=1, count_include_pad=False)
        self.most, self.back = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.stem.register_forward_hook(double)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        values, places = self.most(x)
        return self.last(self.average(x + self.back(values, places + 0)))


def double(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return output * 2.0


class Outputs(nn.Module):
    """A tuple of maps, one of them an input of the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        y = F.gelu(self.stem(x))
        return self.last(y), [y.softmax(1), x]
