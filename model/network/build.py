"""A network from its spec: the depth network, one of a library, or one of the user's own."""

import torch
from torch import Tensor, nn

from model.errors import InputError
from model.network.depth_network import build_depth_network
from model.network.named import library_network
from model.network.spec import DEPTH, NetworkSpec
from model.network.user_network import OWN, build_own


def build_network(spec: NetworkSpec) -> nn.Module:
    """Build the network with random weights, in train mode; nothing is downloaded.

    A network of the user's own has the weights that its file gives it. Raises InputError where the name is not known,
    or the network does not take the inputs or give the outputs of its task.
    """
    if spec.encoder.startswith(OWN):
        return build_own(spec)
    if spec.task != DEPTH:
        return library_network(spec)
    if spec.encoder.startswith("torchvision/"):
        expected = "efficientnet_b0, timm/<name of a timm model>, or a file given by --network"
        raise InputError("network.encoder", "is no encoder of the depth network", expected, value=repr(spec.encoder))
    return build_depth_network(spec)


def example_image(spec: NetworkSpec) -> Tensor:
    """An input of the network's shape, all zeros, 1xCxHxW."""
    return torch.zeros(1, *spec.shape)
