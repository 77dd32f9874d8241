"""Which network: its encoder and input size.

To read settings takes no more than this; the networks themselves need torchvision and timm, 0.2 GB of memory.
"""

from dataclasses import dataclass

from model.errors import InputError

SIZE_MULTIPLE = 32


@dataclass(frozen=True)
class NetworkSpec:
    """Which network, and its input size in pixels.

    ``encoder`` is torchvision's ``efficientnet_b0`` or ``timm/<name>``, to which decoder and head are added, or
    ``own/<name>``, a whole network of the user's (see ``model.network.user_network``).
    """

    encoder: str = "efficientnet_b0"
    input_size: int = 224

    def __post_init__(self) -> None:
        family, _, name = self.encoder.rpartition("/")
        if self.encoder != "efficientnet_b0" and not (name and (family == "own" or self.encoder.startswith("timm/"))):
            raise InputError(
                "network.encoder",
                "is unknown",
                "efficientnet_b0, timm/<name of a timm model>, or own/<name> of a file given by --network",
                value=repr(self.encoder),
                options=("efficientnet_b0",),
            )
        if self.input_size < 32 or self.input_size % SIZE_MULTIPLE:
            raise InputError(
                "network.input_size",
                "does not fit the strides",
                "a multiple of 32, at least 32",
                value=repr(self.input_size),
            )

    @property
    def output_size(self) -> int:
        """Height and width of the depth map in pixels: a quarter of the input."""
        return self.input_size // 4
