"""How much memory a training step wants, told before it starts: what its backward pass keeps of one picture."""

import copy

import torch
from torch import Tensor, nn

from model.data.cache import GPU_SHARE, free_gpu_bytes
from model.epochs import TrainingRun

_OVER_SAVED = 1.5
"""Of what is kept: gradients of activations, and the convolutions' own space."""


def saved_bytes(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Bytes of all that the backward pass of one input (C x H x W) keeps beside the parameters; runs a copy."""
    network = copy.deepcopy(network).cpu().eval()
    known = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def keep(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return saved

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        output = network(torch.zeros(1, *shape))
    del output  # held until here: what is freed could lend its address to the next
    return sum(kept.values())


def make_room_(network: nn.Module, run: TrainingRun, batch_size: int) -> None:
    """Have batches go in parts from the start where a GPU, shared with other trials, has no room for them whole."""
    if run.device.type == "cuda":
        fit_(run, batch_size, saved_bytes(network, run.pack.input_shape), free_gpu_bytes(run.device))


def fit_(run: TrainingRun, batch_size: int, picture: int, free: int) -> None:
    """Set the parts of batches by the bytes that a picture keeps and those that are free."""
    most = int(free * (1.0 - GPU_SHARE) / (_OVER_SAVED * max(picture, 1)))
    if most < batch_size:
        run.micro_batches.most = max(most, 2)
