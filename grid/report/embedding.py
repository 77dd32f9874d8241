"""PNG files as part of a page."""

import base64
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

MOST_PICTURE_BYTES = 6_000_000
"""Of all pictures of a page together; those beyond stay files beside it, and the page names them."""


@dataclass(frozen=True)
class Embedded:
    """A picture as the address that holds it, empty where the page has no room for it, and its size in pixels."""

    source: str
    width: int
    height: int


@dataclass
class Embedder:
    """Reads the PNG files of ``folder`` for a page, as many as ``left`` bytes allow."""

    folder: Path
    left: int = MOST_PICTURE_BYTES

    def embedded(self, name: str) -> Embedded | None:
        """Return a picture; None where there is no such PNG file in the folder."""
        try:
            file = (self.folder / name).resolve()
            if not file.is_relative_to(self.folder.resolve()) or file.suffix != ".png":
                return None
            with Image.open(file) as picture:
                width, height = picture.size
            content = file.read_bytes()
        except (OSError, ValueError):
            return None
        if len(content) > self.left:
            return Embedded("", width, height)
        self.left -= len(content)
        return Embedded(f"data:image/png;base64,{base64.b64encode(content).decode()}", width, height)
