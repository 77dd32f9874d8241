"""What the benchmarks measure: the shipped float network and a few rendered pictures."""

from pathlib import Path

from torch import Tensor

from model.checkpoint import load_checkpoint
from model.network import DepthNetwork, normalize
from model.pack import Pack, PackSpec, prepare_pack

CHECKPOINT = Path(__file__).resolve().parents[1] / "checkpoints" / "efficientnet_b0-rooms.safetensors"


def float_network() -> DepthNetwork:
    """The shipped network in eval mode."""
    network, _, _ = load_checkpoint(CHECKPOINT)
    return network.eval()


def rendered(folder: Path, train: int, test: int) -> Pack:
    """A pack of so many rooms at 224 x 224, made in ``folder``."""
    return Pack(prepare_pack("rooms", folder, PackSpec(rooms_train=train, rooms_val=1, rooms_test=test)))


def pictures(folder: Path, train: int, test: int) -> tuple[Tensor, Tensor]:
    """Normalized pictures N x 3 x 224 x 224 to learn from, and others to test on."""
    pack = rendered(folder, train, test)
    return normalize(pack.images("train")), normalize(pack.images("test"))
