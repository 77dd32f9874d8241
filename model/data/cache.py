"""Where a training keeps the pictures of its pack: on the GPU, in memory, or on disk alone."""

import os
from pathlib import Path

import torch

CACHES = ("auto", "gpu", "memory", "disk")
GPU_SHARE = 0.4
"""Of the GPU's free memory, that pictures may take: the rest is for the network, and for other trials."""
_RAM_SHARE = 0.5
"""Of the available memory. It is taken once for all trials of a machine, as pages of the file."""


def chosen_cache(cache: str, size: int, reads: float, device: torch.device) -> str:
    """``gpu``, ``memory`` or ``disk`` for ``size`` bytes that are read ``reads`` times over in the whole training.

    ``auto`` is the first of them that has room. What is not read once over is not worth keeping. Without a GPU
    ``gpu`` is ``memory``.
    """
    on_gpu = device.type == "cuda"
    if cache != "auto":
        return "memory" if cache == "gpu" and not on_gpu else cache
    if reads < 1.0:
        return "disk"
    if on_gpu and size <= GPU_SHARE * free_gpu_bytes(device):
        return "gpu"
    return "memory" if size <= _RAM_SHARE * available_bytes() else "disk"


def free_gpu_bytes(device: torch.device) -> int:
    """What a GPU has left for this process: free, or held by PyTorch's allocator and not in use."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def available_bytes(root: Path = Path("/")) -> int:
    """Main memory that this process may still take, by the machine and by its control groups (v2 or v1)."""
    left = [_machine_bytes(root), *_group_bytes(root)]
    return max(min(left), 0)


def _machine_bytes(root: Path) -> int:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux: half of what there is
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _group_bytes(root: Path) -> list[int]:
    """What each limited group that the process is in has left; pages of files count as left."""
    try:
        groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return []
    found = []
    for _, controllers, path in groups:
        if not controllers:
            base, limit, used = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, limit, used = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        own = base / path.strip("/")
        for folder in (own, *own.parents):
            if folder.is_relative_to(base):
                found += _left(folder, limit, used)
    return found


def _left(folder: Path, limit: str, used: str) -> list[int]:
    try:
        most = (folder / limit).read_text().strip()
        if most == "max":
            return []
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        files = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
        files += int(stat.get("total_active_file", stat.get("active_file", 0)))
        return [int(most) - int((folder / used).read_text()) + files]
    except (OSError, ValueError):
        return []
