"""A network of the user's own, taken into a grid: tried first, then kept where every node finds it."""

from pathlib import Path

from grid.storage.copies import kept_copy
from model.errors import InputError
from model.network.spec import NetworkSpec
from model.network.user_network import OWN, own_network, register_network


def take_network(name: str, input_size: int, storage: Path) -> Path:
    """Try the registered network ``own/...`` on the whole way to int8; returns a copy of its file in the storage.

    The user's file may change while the grid runs. Raises InputError where the network cannot be built or quantized.
    """
    from model.network.depth_network import build_network  # torchvision, timm and torch.fx: 0.2 GB, for this alone
    from quant.graph import UnsupportedNetworkError
    from quant.quantizable import require_quantizable

    own = own_network(name)
    try:
        require_quantizable(build_network(NetworkSpec(name, input_size)), input_size)
    except UnsupportedNetworkError as error:
        problem, expected = f"its network cannot be quantized ({error})", "fixed sizes, and no branch on tensor values"
        raise InputError(str(own.file), problem, expected, "docs/own.md says what is possible.") from error
    kept = kept_copy(own.file, storage / "networks")
    register_network(kept)
    return kept


def kept_file(storage: Path, name: str, sha256: str) -> Path:
    """Where a storage keeps the file of the network ``own/...``."""
    return storage / "networks" / sha256[:12] / f"{name.removeprefix(OWN)}.py"
