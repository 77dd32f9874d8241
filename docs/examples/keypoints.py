"""A task of one's own: where in a room seats, tables and windows are (heat maps S/4 x S/4), and which there are."""

import torch
from torch import nn
from torchvision.ops import Conv2dNormActivation as Unit

from model.data.rooms.labels import SURFACES
from model.data.rooms.views import RoomViews
from model.tasks.task import ImageMetric

THINGS = ("seat", "table", "window")


def datasets(data, spec):
    """Images uint8 3 x S x S, each with a heat map around the middle of each thing, and with 1 or 0 for each."""
    return RoomViews.by_split(spec, _item)


def _item(view):
    masks = torch.stack([torch.from_numpy(view.mask[2::4, 2::4] == SURFACES.index(name)) for name in THINGS]).float()
    places = torch.ones_like(masks[0]).nonzero().float()  # row and column of each pixel
    middles = (masks.flatten(1) @ places / masks.sum((1, 2))[:, None].clamp_min(1)).round()
    here = (masks.mean((1, 2)) > 0.005).float()
    heat = here[:, None] * torch.exp(-((14 / masks.shape[1] * torch.cdist(middles, places)) ** 2) / 2)
    return torch.from_numpy(view.frame.image), {"heat": heat.view(masks.shape), "here": here}


class _Finder(nn.Module):
    def __init__(self, input_size):
        super().__init__()
        layers = [Unit(*sizes) for sizes in ((3, 16, 3, 2), (16, 32, 3, 2), (32, 48, 3, 2), (48, 64, 3, 2), (64, 64))]
        self.fine, self.coarse = nn.Sequential(*layers[:2]), nn.Sequential(*layers[2:])
        self.up = nn.Upsample(scale_factor=4, mode="bilinear", align_corners=False)
        self.heat = nn.Sequential(Unit(96, 32), nn.Conv2d(32, len(THINGS), 1))
        self.here = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(64, len(THINGS), 1), nn.Flatten())

    def forward(self, images):
        fine = self.fine(images)
        coarse = self.coarse(fine)
        return {"heat": self.heat(torch.cat([fine, self.up(coarse)], 1)), "here": self.here(coarse)}


build = _Finder  # is called with the size of the images


def loss(outputs, targets):
    """Squared error of the heat maps, most of it where heat is, and cross entropy of what is there."""
    heat = (outputs["heat"] - targets["heat"]).square() * (1 + 20 * targets["heat"])
    return heat.mean() + 0.1 * nn.functional.binary_cross_entropy_with_logits(outputs["here"], targets["here"])


def metrics():
    """Share of the things in an image whose strongest peak is within a tenth of its width; NaN without any."""

    def near(outputs, targets):
        peaks = [torch.stack([one["heat"].amax(side).argmax(2) for side in (2, 3)]) for one in (outputs, targets)]
        right = (peaks[0] - peaks[1]).float().norm(dim=0) <= outputs["heat"].shape[-1] / 10
        return (right * targets["here"]).sum(1) / targets["here"].sum(1)

    return {"near": ImageMetric(near, True, "peaks near")}
