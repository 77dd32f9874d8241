"""Which network: its name, and the shapes that it is built for.

To read settings takes no more than this; the networks themselves need torchvision and timm, 0.2 GB of memory.
"""

from dataclasses import dataclass
from typing import ClassVar

from model.errors import InputError

SIZE_MULTIPLE = 32
DEPTH = "depth"
LIBRARIES = ("torchvision/", "timm/")


@dataclass(frozen=True)
class NetworkSpec:
    """Which network, and its input size in pixels.

    ``encoder`` is torchvision's ``efficientnet_b0`` or ``timm/<name>``, to which decoder and head of the depth network
    are added, or ``own/<name>``, a whole network of the user's (see ``model.network.user_network``). Of another
    ``task`` than depth it is a whole network in any case, ``timm/<name>`` or ``torchvision/<name>``, with so many
    ``classes``. ``inputs`` is the shape of one input, ``CxHxW``, where that is no RGB image of ``input_size`` square.
    """

    encoder: str = "efficientnet_b0"
    input_size: int = 224
    task: str = DEPTH
    inputs: str = ""
    classes: int = 0

    TOLD_BY_DATA: ClassVar = ("task", "inputs", "classes")

    def __post_init__(self) -> None:
        family, _, name = self.encoder.rpartition("/")
        if self.encoder != "efficientnet_b0" and not (name and (family == "own" or self.encoder.startswith(LIBRARIES))):
            raise InputError(
                "network.encoder",
                "is unknown",
                "efficientnet_b0, timm/<name of a timm model>, torchvision/<name> (of a task other than depth), or "
                "own/<name> of a file given by --network",
                value=repr(self.encoder),
                options=("efficientnet_b0",),
            )
        least, multiple = (32, SIZE_MULTIPLE) if self.task == DEPTH else (1, 1)
        if self.input_size < least or self.input_size % multiple:
            raise InputError(
                "network.input_size",
                "does not fit the strides",
                "a multiple of 32, at least 32",
                value=repr(self.input_size),
            )
        parts = self.inputs.split("x") if self.inputs else []
        if self.inputs and not (len(parts) == 3 and all(part.isdigit() and int(part) > 0 for part in parts)):
            raise InputError("network.inputs", "is no shape", "CxHxW, such as 1x28x28", value=repr(self.inputs))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an input."""
        if not self.inputs:
            return 3, self.input_size, self.input_size
        channels, height, width = map(int, self.inputs.split("x"))
        return channels, height, width

    @property
    def output_size(self) -> int:
        """Height and width of the depth map in pixels: a quarter of the input."""
        return self.input_size // 4
