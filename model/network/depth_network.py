"""The depth network: encoder, Up-C decoder and depth head."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.network.decoder import ConvBNReLU, Decoder
from model.network.encoder import build_encoder
from model.network.spec import NetworkSpec

BASE_CHANNELS = (128, 16, 16, 16)
BRANCH_CHANNELS = (128, 16, 16, 16)
HEAD_CHANNELS = 128


@dataclass(frozen=True)
class Stage:
    """The shape of one encoder stage's output: channels, and height and width in pixels."""

    channels: int
    size: int


class DepthNetwork(nn.Module):
    """Depth from one image: N x 3 x S x S normalized float to N x 1 x S/4 x S/4, depth as a fraction of 10 m.

    There is no final activation, so outputs may lie slightly outside [0, 1].
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Predict the depth fraction."""
        depth: Tensor = self.head(self.decoder(self.encoder(images)))
        return depth


class DepthHead(nn.Module):
    """3x3 convolution with BN and ReLU, then a 1x1 convolution with bias to one channel."""

    def __init__(self, in_channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvBNReLU(in_channels, hidden_channels, kernel_size=3),
            nn.Conv2d(hidden_channels, 1, kernel_size=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map the decoder's features to depth."""
        depth: Tensor = self.layers(features)
        return depth


def build_depth_network(spec: NetworkSpec) -> DepthNetwork:
    """Build the network with random weights, in train mode; nothing is downloaded.

    All sizes inside are fixed at build from ``spec.input_size``, so that ``torch.fx`` traces the network. Raises
    InputError where the encoder does not exist or does not give four usable stages.
    """
    encoder = build_encoder(spec.encoder, spec.input_size)
    stages = probe_stages(encoder, spec.input_size)
    decoder = Decoder(
        in_channels=tuple(stage.channels for stage in stages),
        sizes=tuple(stage.size for stage in stages),
        base_channels=BASE_CHANNELS,
        branch_channels=BRANCH_CHANNELS,
    )
    network = DepthNetwork(encoder, decoder, DepthHead(sum(BRANCH_CHANNELS), HEAD_CHANNELS))
    network.train()
    return network


def probe_stages(encoder: nn.Module, input_size: int) -> tuple[Stage, ...]:
    """Run the encoder once in eval mode on zeros and return the shapes of its four stages, finest first."""
    was_training = encoder.training
    with torch.no_grad():
        features = encoder.eval()(torch.zeros(1, 3, input_size, input_size))
    encoder.train(was_training)
    return tuple(Stage(feature.shape[1], feature.shape[2]) for feature in features)
