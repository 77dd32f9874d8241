"""A network, pictures and a training that take a second."""

from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from model.epochs import TrainingRun
from model.training import TrainSpec, train

CPU = torch.device("cpu")
SPEC = TrainSpec(epochs=3, batch_size=4, learning_rate=5e-3, init="random")


class TinyDepth(nn.Module):
    """Depth at a quarter of the size in three convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.SiLU(),
            nn.Conv2d(8, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def write(path: Path, sizes: dict[str, int], size: int = 64) -> Path:
    """Depth that follows from brightness, so that it can be learned."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "depth-pack-1", "fingerprint": "0" * 64, "origin": "rooms", "input_size": size})
        file.attrs.update({"output_size": size // 4, "skipped": 0, "origin_detail": "{}"})
        for split, count in sizes.items():
            coarse = torch.from_numpy(rng.uniform(0.1, 0.9, (count, 1, 4, 4)).astype(np.float32))
            depth = functional.interpolate(coarse, size=size // 4, mode="bilinear")
            light = functional.interpolate(1 - depth, size=size, mode="bilinear").numpy()
            image = (light * 220 + rng.uniform(0, 30, (count, 3, size, size))).astype(np.uint8)
            file[f"{split}/image"], file[f"{split}/depth"] = image, (depth[:, 0].numpy() * 10_000).astype(np.uint16)
            file[f"{split}/scene"], file[f"{split}/source"] = np.arange(count, dtype=np.int32), ["x"] * count
    return path


def tiny(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return TinyDepth()


def run(network, pack, spec=SPEC, seed=0, scratch=None, progress=lambda info: None):
    return train(network, spec, TrainingRun(pack, seed, CPU, scratch, progress))


def same(one: nn.Module | dict, other: nn.Module | dict) -> bool:
    a, b = (item.state_dict() if isinstance(item, nn.Module) else item for item in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
