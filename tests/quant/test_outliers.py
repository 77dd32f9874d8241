"""Calibration leaves out pictures on which the float network runs wild, and no others."""

import pytest
import torch
from torch import Tensor, nn

from quant.calibrate import calibrate
from quant.outliers import typical_images
from quant.prepare import quantizers
from quant.recipe import CalibrateSpec
from tests.quant.networks import reference


class OverPixels(nn.Module):
    """A linear layer over the pixels of an image, and a factor for each channel of all images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.linear = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 8)
        self.gamma = nn.Parameter(torch.ones(1, 8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.stem(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2) * self.gamma


def test_pictures_of_one_kind_are_all_kept(depth_network, images):
    assert typical_images(depth_network, images, 2.0) == list(range(len(images)))


def test_a_picture_that_drives_the_network_far_is_left_out_wherever_it_is(depth_network, images):
    for position in (0, 5, len(images) - 1):
        wild = images.clone()
        wild[position] *= 20.0
        assert typical_images(depth_network, wild, 2.0, batch_size=5) == [
            i for i in range(len(images)) if i != position
        ]


def test_it_is_found_where_an_image_has_many_rows_of_a_value_and_others_are_constants(images):
    torch.manual_seed(0)
    network = OverPixels().eval()
    wild = images.clone()
    wild[5] *= 20.0
    assert typical_images(network, wild, 2.0, batch_size=5) == [i for i in range(len(images)) if i != 5]


def test_a_high_ratio_keeps_all(depth_network, images):
    wild = torch.cat([images[:4], 20.0 * images[4:5]])
    assert typical_images(depth_network, wild, 1e6) == list(range(5))


def test_ranges_without_the_outlier_are_those_of_the_others(relu_pair, images):
    wild = torch.cat([images, 20.0 * images[:1]])
    kept = wild[typical_images(relu_pair, wild, 2.0)]
    spec = CalibrateSpec(activation_range="minmax")
    with_all, without, wanted = (calibrate(relu_pair, "per_channel", spec, given) for given in (wild, kept, images))
    fresh = images[:2]
    assert torch.equal(reference(without, fresh), reference(wanted, fresh))
    coarser = [
        with_all.get_submodule(name).scale > 4 * q.scale for name, q in quantizers(wanted).items() if not q.weight
    ]
    assert sum(bool(one) for one in coarser) >= 2


def test_values_that_are_not_finite_are_an_error_and_not_an_outlier(relu_pair, images):
    broken = images.clone()
    broken[3, 0, 0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"\[3\]"):
        typical_images(relu_pair, broken, 2.0)


def test_one_picture_is_always_left(depth_network, images):
    assert len(typical_images(depth_network, torch.cat([images[:1], 20.0 * images[1:2]]), 1.0)) >= 1
