"""A task of one's own on inputs of an odd shape: handwritten digits, 1 x 8 x 8."""

import torch
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics.classification import MulticlassAccuracy


def datasets(data):
    """Those of scikit-learn, or as many made-up ones: a bright spot whose place is the class."""
    try:
        from sklearn.datasets import load_digits

        found = load_digits()
        images, labels = torch.from_numpy(found.images), torch.from_numpy(found.target)
    except ImportError:
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(10, (1797,), generator=generator)
        images = 8 * torch.rand(1797, 8, 8, generator=generator)
        images[torch.arange(1797), labels // 4 * 2, labels % 4 * 2] = 16
    items = TensorDataset((images[:, None] * 15).to(torch.uint8), labels)
    cuts = {"train": range(600), "val": range(600, 700), "test": range(700, 900)}
    return {split: torch.utils.data.Subset(items, where) for split, where in cuts.items()}


def build(input_size):
    """Two convolutions and a linear layer."""
    first, second = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.Conv2d(16, 32, 3, 2, padding=1, bias=False)
    layers = [first, nn.BatchNorm2d(16), nn.ReLU(), second, nn.BatchNorm2d(32), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10))


loss = nn.functional.cross_entropy


def metrics():
    """Whether the highest logit is that of the digit."""
    return {"top1": MulticlassAccuracy(10, average="micro")}
