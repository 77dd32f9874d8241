"""Which logical CPUs are hyper-threads of one physical core, as Linux says."""

from collections.abc import Iterable
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")


def physical_cores(cpus: Iterable[int], folder: Path = CPUS) -> list[tuple[int, ...]]:
    """Return the CPUs grouped by physical core, in order; each by itself where the system does not say.

    ``folder`` holds ``cpuN/topology/thread_siblings_list``, such as ``0,4`` or ``0-1``. Siblings that are not among
    ``cpus`` belong to somebody else and are left out.
    """
    left = sorted(set(cpus))
    groups = []
    while left:
        siblings = _siblings(left[0], folder)
        groups.append(tuple(cpu for cpu in left if cpu in siblings))
        left = [cpu for cpu in left if cpu not in siblings]
    return groups


def _siblings(cpu: int, folder: Path) -> set[int]:
    try:
        text = (folder / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text()
        found: set[int] = set()
        for part in text.strip().split(","):
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    except (OSError, ValueError):
        return {cpu}
    return found | {cpu}
