"""What a stage asks of the machine, and where Ray is."""

import socket
from collections.abc import Iterable
from dataclasses import dataclass

from grid.planning.plan import Node
from grid.planning.stage import DEVICE, GPU, PROFILER
from grid.scheduling.cores import own_cores
from grid.scheduling.topology import physical_cores
from model.errors import InputError

FEW_CORES = 4
"""With fewer cores than this a measurement waits until nothing else runs, instead of owning a core all the time."""


@dataclass(frozen=True)
class Resources:
    """What a training, calibration or QAT trial asks for, where Ray is (None: start it here), and how often a stage
    is tried again whose worker died or met an error that may pass."""

    cpus_per_trial: int = 1
    gpus_per_trial: float = 0.0
    address: str | None = None
    retries: int = 2

    def __post_init__(self) -> None:
        cores = len(own_cores())
        if self.cpus_per_trial < 1 or (self.address is None and self.cpus_per_trial > cores):
            expected = f"1 to {cores}, the cores this run may use" if self.address is None else "at least 1"
            raise InputError("--cpus-per-trial", f"{self.cpus_per_trial} CPUs are asked for", expected)
        if self.gpus_per_trial < 0:
            raise InputError("--gpus-per-trial", f"{self.gpus_per_trial} is out of range", "at least 0")
        if self.retries < 0:
            raise InputError("--retries", f"{self.retries} is out of range", "at least 0")
        if self.address not in (None, "auto"):
            _check_answers(str(self.address))

    def of(self, node: Node, total: dict[str, float]) -> dict[str, float]:
        """CPUs and GPUs that one node gets on a cluster that has ``total``, or the device that it is measured on."""
        if total.get(device_of(node), 0) > 0:
            return {device_of(node): 1.0}
        if node.device == PROFILER and total.get(PROFILER, 0) > 0:
            # A custom resource of Ray: where it is, only nodes with it measure, one network at a time each.
            return {PROFILER: 1.0}  # its actor leases cores there by itself
        if node.device == PROFILER and not has_few_cores(total):  # with few cores it runs alone, as the others do
            # More threads than cores fail in the profiler, with a reason; asking Ray for them would wait for ever.
            siblings = max(map(len, physical_cores(own_cores())))  # which stay idle
            return {"CPU": min(float(node.settings["latency.threads"] or 1) * siblings, total.get("CPU", 1))}
        if node.device == GPU and total.get("GPU", 0) > 0 and self.gpus_per_trial > 0:
            return {"CPU": float(self.cpus_per_trial), "GPU": self.gpus_per_trial}
        return {"CPU": float(self.cpus_per_trial)}


def device_resource(label: str) -> str:
    """What Ray calls a device as a resource: the host that reaches it has one of it."""
    return f"{DEVICE}:{label}"


def device_of(node: Node) -> str:
    """The resource of the device that measures a node; empty where none does."""
    return device_resource(str(node.settings["device"])) if node.device == DEVICE else ""


def device_labels(nodes: Iterable[Node]) -> list[str]:
    """The devices that measure any of the nodes."""
    return sorted({str(node.settings["device"]) for node in nodes if node.device == DEVICE})


def has_few_cores(total: dict[str, float]) -> bool:
    """Whether measurements wait for a quiet moment on a cluster that has ``total``."""
    return total.get("CPU", 1) < FEW_CORES and not total.get(PROFILER)


def _check_answers(address: str) -> None:
    """Raise InputError where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InputError("--address", f"{address!r} is no address", "auto or HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        hint = "`ray start --head` starts one."
        raise InputError("--address", f"nobody answers at {address} ({error})", "a running Ray cluster", hint) from None
