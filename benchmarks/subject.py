"""What the benchmarks measure: the shipped float network, its int8 network and a few rendered pictures."""

import dataclasses
from pathlib import Path

from torch import Tensor, nn

from model.data.pack import Pack, PackSpec, prepare_pack
from model.images import normalize
from model.network.checkpoint import load_checkpoint, save_checkpoint
from model.network.spec import NetworkSpec
from quant.calibrate import calibrate
from quant.engines.qnnpack import convert
from quant.recipe import CalibrateSpec
from quant.tracing.trace import fuse_bn

CHECKPOINT = Path(__file__).resolve().parents[1] / "checkpoints" / "efficientnet_b0-rooms.safetensors"


def float_network() -> nn.Module:
    """The shipped network in eval mode."""
    network, _, _ = load_checkpoint(CHECKPOINT)
    return network.eval()


def int8_network(network: nn.Module, images: Tensor) -> nn.Module:
    """The quickest int8 network of ``network``: fused, per channel, ranges of the extremes over ``images``."""
    return convert(calibrate(fuse_bn(network), "per_channel", CalibrateSpec(activation_range="minmax"), images))


def smaller(path: Path, size: int) -> NetworkSpec:
    """Write the shipped network to ``path`` as one for pictures of ``size`` x ``size``; its spec."""
    network, spec, metadata = load_checkpoint(CHECKPOINT)
    spec = dataclasses.replace(spec, input_size=size)
    save_checkpoint(network, spec, path, metadata)
    return spec


def rendered(folder: Path, train: int, test: int) -> Pack:
    """A pack of so many rooms at 224 x 224, made in ``folder``."""
    return Pack(prepare_pack("rooms", folder, PackSpec(rooms_train=train, rooms_val=1, rooms_test=test)))


def pictures(folder: Path, train: int, test: int) -> tuple[Tensor, Tensor]:
    """Normalized pictures N x 3 x 224 x 224 to learn from, and others to test on."""
    pack = rendered(folder, train, test)
    return normalize(pack.images("train")), normalize(pack.images("test"))
