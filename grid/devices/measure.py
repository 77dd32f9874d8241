"""How a network is timed on a device: in turns with float files, in fresh processes, cool, and with a canary."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from grid.devices.address import Device
from grid.devices.board import Board, File
from grid.devices.facts import Facts
from grid.devices.transport import DeviceError
from grid.space.settings import LatencySpec

DRIFT = 1.03
"""A load in which the float reference takes this much longer than in the fastest load is repeated once it is cooler."""
FEWEST, MOST = 5, 1000
"""Rounds of a load."""
COOL_S, LOOK_EVERY_S = 180.0, 5.0
"""How long a device may take to cool down before a load, and how often it is asked."""


@dataclass(frozen=True)
class Timing:
    """What was measured: ``loads`` are seconds [rounds, files] of each, ``ready_s`` until a load's first forward.

    ``cores`` are those that the networks ran on. ``throttled`` says why the figures are those of a hot or a disturbed
    device (empty: they are not), ``canary`` the float reference's median seconds in each load, ``repeated`` how many
    loads were thrown away as they drifted.
    """

    loads: tuple[np.ndarray, ...]
    ready_s: tuple[float, ...]
    cores: tuple[int, ...]
    canary: tuple[float, ...]
    temperatures_c: tuple[float, ...]
    repeated: int
    throttled: str
    facts: Facts


def cores_of(device: Device, facts: Facts) -> tuple[int, ...]:
    """The cores to run on: those of the device's address, or the fastest cluster; empty: any."""
    fastest = facts.fastest()
    return device.cores or (fastest.cores if fastest else ())


def measure(
    board: Board,
    files: Sequence[File],
    example: Path,
    spec: LatencySpec,
    sleep: Callable[[float], None] = time.sleep,
) -> Timing:
    """Time ``files`` in turns on an input (1xCxHxW, .npy); the last one is the canary.

    Before each load the device cools down below its limit. A load in which the canary drifts is repeated, as often as
    there are loads; what still drifts is kept, and called throttled. Raises DeviceError, also for too few cores.
    """
    facts = board.probe()
    cores = cores_of(board.device, facts)
    if cores and spec.threads > len(cores):
        problem = f"{spec.threads} threads on {len(cores)} cores; latency.threads is too large"
        raise DeviceError(f"{board.device.name}: {problem}")
    steps = {"warmup": spec.warmup, "seconds": spec.seconds / spec.loads, "fewest": FEWEST, "most": MOST}
    kept: list[tuple[float, np.ndarray, float]] = []
    temperatures: list[float] = []
    hot = ""
    spare = spec.loads
    while True:
        wanted = _to_repeat(kept, spec.loads)
        if wanted is None or (wanted < len(kept) and not spare):
            break
        if wanted < len(kept):
            del kept[wanted]
            spare -= 1
        hot = _cooled(board, sleep) or hot
        number = len(temperatures)
        times, ready_s = board.time(list(files), example, cores, spec.threads, {**steps, "number": number})
        kept.append((float(np.median(times[:, -1])), times, ready_s))
        temperatures.append(board.probe().temperature_c or float("nan"))
        board.progress({"step": len(kept), "steps": spec.loads})
    canary = tuple(one[0] for one in kept)
    return Timing(
        tuple(one[1] for one in kept),
        tuple(one[2] for one in kept),
        cores,
        canary,
        tuple(temperatures),
        spec.loads - spare,
        hot or _drifted(canary),
        facts,
    )


def _to_repeat(kept: Sequence[tuple[float, np.ndarray, float]], loads: int) -> int | None:
    """The place of the load to measure next: a new one, or the slowest where it drifted; None where all is well."""
    if len(kept) < loads:
        return len(kept)
    canaries = [one[0] for one in kept]
    slowest = max(range(len(kept)), key=canaries.__getitem__)
    return slowest if canaries[slowest] > DRIFT * min(canaries) else None


def _drifted(canary: Sequence[float]) -> str:
    drift = max(canary) / min(canary)
    return f"the float file took up to {drift:.2f} times as long from load to load" if drift > DRIFT else ""


def _cooled(board: Board, sleep: Callable[[float], None]) -> str:
    """Wait until the device is below its limit; where it does not get there, why its figures are those of a hot one."""
    limit, waited = board.device.cool_below_c, 0.0
    while True:
        temperature = board.probe().temperature_c
        if temperature is None or temperature < limit:
            return ""
        if waited >= COOL_S:
            return f"it stayed at {temperature:.0f} degrees for {COOL_S:g} s (limit {limit:g})"
        board.progress({"cooling_c": temperature})
        sleep(LOOK_EVERY_S)
        waited += LOOK_EVERY_S
