"""How a network lies on the device that trains it: on a GPU with its channels last, which its convolutions want."""

import torch
from torch import nn


def memory_format(device: torch.device) -> torch.memory_format:
    """In which order a device has the values of pictures and of weights."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def place_(network: nn.Module, device: torch.device) -> None:
    """Bring a network to a device, in its memory format."""
    network.to(device)
    network.to(memory_format=memory_format(device))


def take_back_(network: nn.Module) -> None:
    """Lay the weights as files and all other code have them."""
    network.to(memory_format=torch.contiguous_format)
