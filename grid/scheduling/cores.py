"""Which process may use which CPU core: locks that the kernel frees, and pinning."""

import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from grid.scheduling.topology import physical_cores
from grid.storage.locks import locked
from model.errors import InputError

POLL_S = 0.05


def own_cores() -> tuple[int, ...]:
    """Return the numbers of the cores this process may run on, sorted."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def pin_process(cores: Iterable[int]) -> None:
    """Keep every thread of this process, torch's pool included, on ``cores``, one torch thread a core.

    ``os.sched_setaffinity(0, ...)`` alone moves the calling thread only. Where the system has no such call
    (macOS) only the thread count is set.
    """
    wanted = set(cores)
    if hasattr(os, "sched_setaffinity"):
        # The caller first: threads started from now on inherit its mask.
        os.sched_setaffinity(0, wanted)
        _pin_threads(wanted)
    torch.set_num_threads(len(wanted))


@contextmanager
def pinned(cores: Iterable[int]) -> Iterator[None]:
    """Pin this process to ``cores`` for the body; then all its threads may run where the caller's could."""
    threads_before = torch.get_num_threads()
    affine = hasattr(os, "sched_getaffinity")
    home = os.sched_getaffinity(0) if affine else set()
    pin_process(cores)
    try:
        yield
    finally:
        if affine:
            os.sched_setaffinity(0, home)
            _pin_threads(home)
        torch.set_num_threads(threads_before)


class CoreLease:
    """Cores of this machine lent to one process at a time through lock files in ``folder``.

    The kernel frees the locks of a process that dies, however it dies. ``cores`` are those to lend, as a rule
    the process's own; a process that may be pinned already has to be told those of the run.
    Machines that share the folder keep their locks apart by host name. With ``whole`` a core is a physical one: its
    hyper-threads (of those to lend) are lent together, and only the first is named, so that the others stay idle. A
    machine that has a single physical core, or fewer than are asked for, lends its hyper-threads one by one.
    """

    def __init__(self, folder: Path, cores: Iterable[int] | None = None, whole: bool = False) -> None:
        self.whole = whole
        self.cores = tuple(sorted(cores)) if cores is not None else own_cores()
        self.folder = Path(folder) / socket.gethostname()
        self.folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def lease(self, count: int, timeout_s: float | None = None) -> Iterator[list[int]]:
        """Wait until ``count`` cores are free, yield their numbers, and free them after the body.

        One waiting process at a time collects cores, and nobody else may begin to meanwhile: small leases cannot
        starve a large one, and two half-filled leases cannot block each other. Raises InputError when there
        are fewer cores, TimeoutError after ``timeout_s`` seconds.
        """
        if not 1 <= count <= len(self.cores):
            raise InputError(
                "cores", f"{count} cores are asked for", f"1 to {len(self.cores)}, the cores this run may use"
            )
        end = None if timeout_s is None else time.monotonic() + timeout_s
        with ExitStack() as held:
            with ExitStack() as door:
                while not _try_lock(door, self.folder / "door.lock"):
                    _sleep_until(end, count)
                taken: list[tuple[int, ...]] = []
                while len(taken) < count:
                    for unit in self._units(count):
                        if unit not in taken and len(taken) < count and self._try_lock_all(held, unit):
                            taken.append(unit)
                    if len(taken) < count:
                        _sleep_until(end, count)
            yield sorted(unit[0] for unit in taken)

    def _units(self, count: int) -> list[tuple[int, ...]]:
        """What is lent together: CPUs, or physical cores."""
        physical = physical_cores(self.cores) if self.whole else []
        return physical if len(physical) >= max(count, 2) else [(core,) for core in self.cores]

    def _try_lock_all(self, held: ExitStack, unit: tuple[int, ...]) -> bool:
        """Lock all of a unit until ``held`` closes, or none."""
        with ExitStack() as stack:
            if all(_try_lock(stack, self.folder / f"core-{core}.lock") for core in unit):
                held.enter_context(stack.pop_all())
                return True
        return False


@contextmanager
def on_own_cores(folder: Path, cores: Iterable[int] | None, count: int, whole: bool = False) -> Iterator[None]:
    """Wait for ``count`` cores of this machine (``whole``: their hyper-threads too), run the body pinned to them."""
    with CoreLease(folder, cores, whole).lease(count) as leased, pinned(leased):
        yield


def _try_lock(stack: ExitStack, path: Path) -> bool:
    """Lock ``path`` until ``stack`` closes; False when another holder has it."""
    try:
        stack.enter_context(locked(path, wait=False))
    except BlockingIOError:
        return False
    return True


def _sleep_until(end: float | None, count: int) -> None:
    if end is not None and time.monotonic() >= end:
        raise TimeoutError(f"no {count} free cores in time: other processes hold their locks")
    time.sleep(POLL_S)


def _pin_threads(cores: set[int]) -> None:
    for thread in os.listdir("/proc/self/task"):
        try:
            os.sched_setaffinity(int(thread), cores)
        except ProcessLookupError:
            continue  # it has ended meanwhile
