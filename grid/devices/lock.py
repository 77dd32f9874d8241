"""One measurement at a time on a device, whichever grid of this machine asks for it."""

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from grid.devices.address import Device
from grid.storage.locks import locked
from model.progress import Progress

_LOOK_EVERY_S = 0.5


@contextlib.contextmanager
def locked_device(device: Device, progress: Progress) -> Iterator[None]:
    """Hold a device for the body; who waits says so. Grids of other machines are kept off run by run, by the device."""
    folder = Path(tempfile.gettempdir()) / f"quantization-grid-devices-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    address = f"{device.kind} {device.host} {device.port}"
    file = folder / hashlib.sha256(address.encode()).hexdigest()[:16]
    while True:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(file, wait=False))
            except BlockingIOError:
                progress({"waiting": 1.0})
            else:
                yield
                return
        time.sleep(_LOOK_EVERY_S)
