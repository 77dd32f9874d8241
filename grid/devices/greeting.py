"""The devices of a run are asked who they are before anything is computed."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from grid.devices.address import Device, written
from grid.devices.command_line import board_of
from grid.devices.measure import cores_of
from grid.devices.transport import DeviceError


def who_is_there(devices: Sequence[Device]) -> list[str]:
    """What each device is, in a line; one that cannot be reached is told, and the grid goes on without its rows."""
    with ThreadPoolExecutor(len(devices) or 1) as threads:
        return list(threads.map(_who, devices))


def _who(device: Device) -> str:
    try:
        board = board_of(device)
        facts = board.probe()
        cores = cores_of(device, facts)
        degrees = f", {facts.temperature_c:.0f} degrees" if facts.temperature_c is not None else ""
        found = f"{device.label}: {facts.model or facts.machine}, {facts.processor(cores)}"
        runtimes = board.runtimes()["runtimes"]
    except DeviceError as error:
        return f"{error} Its rows will fail unless that is mended by then."
    there = ", ".join(f"{name} {version}" for name, version in runtimes.items()) or "no runtime"
    return f"{found}{f' (cores {written(cores)})' if cores else ''}{degrees}; {there}"
