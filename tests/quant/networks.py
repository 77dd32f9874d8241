"""Tiny real networks and settled BatchNorm statistics, shared by the tests of the quantization steps."""

import copy
from pathlib import Path

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from quant.fake_quantize import FakeQuantize
from quant.prepare import quantizers


def smooth_images(count: int, size: int, seed: int = 0) -> Tensor:
    """Pictures with large shapes and some grain, as normalized images have them (count, 3, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, size // 8, size // 8, generator=generator)
    grain = torch.randn(count, 3, size, size, generator=generator)
    return F.interpolate(coarse, size=(size, size), mode="bilinear") + 0.3 * grain


@torch.no_grad()
def settled(network: nn.Module, images: Tensor, seed: int = 1) -> nn.Module:
    """Give every BatchNorm factors of its own and statistics of ``images``; the network in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
        nn.init.uniform_(norm.bias, -0.5, 0.5, generator=generator)
        norm.momentum = 0.5
    network.train()
    for _ in range(5):
        network(images)
    for norm in norms:
        norm.momentum = 0.1
    return network.eval()


class ReluPair(nn.Module):
    """Two convolutions with BatchNorm and ReLU between, and a last one: the pair of the paper, twice."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU, channels: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.act = activation()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act2 = activation()
        self.last = nn.Conv2d(channels, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act2(self.bn2(self.depthwise(self.act(self.bn(self.first(x)))))))


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = nn.Conv2d(channels, 4, 1)
        nn.init.ones_(self.squeeze.bias)  # no channel is dead
        self.act = nn.ReLU()
        self.expand = nn.Conv2d(4, channels, 1)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.sigmoid(self.expand(self.act(self.squeeze(self.pool(x))))) * x


class AllKinds(nn.Module):
    """Every operator that the graph passes know: depth of a quarter of the picture's size."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.stem = nn.Conv2d(3, channels, 3, stride=2, bias=False)
        self.stem_bn = nn.BatchNorm2d(channels)
        self.silu = nn.SiLU()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.depthwise_bn = nn.BatchNorm2d(channels)
        self.relu6 = nn.ReLU6()
        self.gate = Gate(channels)
        self.project = nn.Conv2d(channels, channels, 1, bias=False)
        self.project_bn = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(0.5)
        self.pool = nn.MaxPool2d(2)
        self.one = nn.Conv2d(channels, channels, 3, padding=1)
        self.other = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.relu = nn.ReLU()
        self.head = nn.Conv2d(2 * channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.silu(self.stem_bn(self.stem(self.pad(x))))
        y = self.gate(self.relu6(self.depthwise_bn(self.depthwise(x))))
        x = self.pool(x + self.dropout(self.project_bn(self.project(y))))
        coarse = F.interpolate(self.relu(self.other(x)), scale_factor=2.0, mode="bilinear", align_corners=True)
        return self.head(torch.cat([self.relu(self.one(x)), coarse], 1))


def frozen_state(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, object]]:
    """All that a step may not change in its input: a copy of its tensors, and its modes."""
    tensors = {name: value.detach().clone() for name, value in module.state_dict().items()}
    modes: dict[str, object] = {name: child.training for name, child in module.named_modules()}
    modes |= {f"{name}.mode": quantizer.mode for name, quantizer in quantizers(module).items()}
    return tensors, modes | {"graph": str(module.graph) if isinstance(module, fx.GraphModule) else None}


def same_tensors(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two state dicts of float networks are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def freeze_at_unit_ranges_(prepared: nn.Module) -> None:
    """Give every quantizer some range without looking at data, and freeze it."""
    for quantizer in quantizers(prepared).values():
        if not quantizer.fixed:
            size = quantizer.low.shape
            quantizer.set_range(-torch.ones(size), torch.ones(size))
        quantizer.set_mode("freeze")


def activation_quantizers(prepared: nn.Module) -> dict[str, FakeQuantize]:
    return {name: quantizer for name, quantizer in quantizers(prepared).items() if not quantizer.weight}


def weight_quantizers(prepared: nn.Module) -> dict[str, FakeQuantize]:
    return {name: quantizer for name, quantizer in quantizers(prepared).items() if quantizer.weight}


def reference(network: nn.Module, images: Tensor) -> Tensor:
    """The output in eval mode without gradients; the network is copied, not touched."""
    with torch.no_grad():
        return copy.deepcopy(network).eval()(images)


def write_pack(path: Path, sizes: dict[str, int], size: int = 64) -> Path:
    """A pack whose depth can be learned from the picture: nearer is brighter, with grain that says nothing."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "depth-pack-1", "fingerprint": "0" * 64, "origin": "rooms", "input_size": size})
        file.attrs.update({"output_size": size // 4, "skipped": 0, "origin_detail": "{}"})
        for split, count in sizes.items():
            coarse = torch.from_numpy(rng.uniform(0.1, 0.9, (count, 1, 4, 4)).astype(np.float32))
            depth = F.interpolate(coarse, size=(size // 4, size // 4), mode="bilinear", align_corners=True)
            light = F.interpolate(1.0 - depth, size=(size, size), mode="bilinear", align_corners=True)
            image = (light.numpy() * 220 + rng.uniform(0, 30, (count, 3, size, size))).clip(0, 255)
            group = file.create_group(split)
            group["image"] = image.astype(np.uint8)
            group["depth"] = (depth[:, 0].numpy() * 10_000).astype(np.uint16)
            group["scene"] = np.arange(count, dtype=np.int32)
            group["source"] = [f"{split}/{number}" for number in range(count)]
    return path


def noise(output, reference):
    """Error as a share of the signal."""
    return float((output - reference).detach().pow(2).mean().sqrt() / reference.detach().std())
