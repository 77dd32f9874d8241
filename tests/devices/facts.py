"""What the board says of itself: the files of /proc and /sys of a made-up Arm board with little and big cores."""

import os
from collections.abc import Sequence
from pathlib import Path

MODEL = "Emulated Board Model A (not a measuring instrument)"
MOST_CORES = 8
LITTLE = (0xD05, 1_800_000, 500)
"""Cortex-A55: part number, highest frequency in kHz, capacity of 1024."""
BIG = (0xD0B, 2_400_000, 1024)
"""Cortex-A76."""


def cores() -> tuple[list[int], list[int]]:
    """Little and big cores: the cores of this host that the board runs on, so that pinning to them is real.

    A host with one core makes a board of one big core.
    """
    usable = sorted(os.sched_getaffinity(0))[:MOST_CORES]
    return usable[: len(usable) // 2], usable[len(usable) // 2 :]


def write(root: Path) -> None:
    """Write the files below `root`, the board's QUANTIZATION_GRID_SYSROOT."""
    little, big = cores()
    texts = {
        "proc/cpuinfo": "".join(cpuinfo(core, LITTLE[0] if core in little else BIG[0]) for core in (*little, *big))
        + f"Revision\t: c03115\nModel\t\t: {MODEL}\n",
        "proc/meminfo": "MemTotal:        3884376 kB\nMemFree:         3011220 kB\nMemAvailable:    3405612 kB\n",
        "proc/loadavg": "0.00 0.01 0.00 1/123 4567\n",
        # Device trees end their texts with a zero byte.
        "proc/device-tree/model": MODEL + "\0",
        "proc/device-tree/compatible": "emulated,model-a\0emulated,soc\0",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "45000\n",
        "sys/class/thermal/thermal_zone0/trip_point_0_type": "passive\n",
        "sys/class/thermal/thermal_zone0/trip_point_0_temp": "80000\n",
        "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0\n",
        "sys/class/thermal/cooling_device0/cur_state": "0\n",
        "sys/class/thermal/cooling_device0/max_state": "3\n",
    }
    texts |= dict.fromkeys(
        (f"sys/devices/system/cpu/{name}" for name in ("online", "possible", "present")), span(little + big)
    )
    for cluster, (_, most_khz, capacity) in ((little, LITTLE), (big, BIG)):
        for core in cluster:
            at = f"sys/devices/system/cpu/cpu{core}"
            texts |= {
                f"{at}/cpu_capacity": f"{capacity}\n",
                f"{at}/topology/cluster_cpus_list": span(cluster),
                f"{at}/cpufreq/affected_cpus": " ".join(map(str, cluster)) + "\n",
                f"{at}/cpufreq/related_cpus": " ".join(map(str, cluster)) + "\n",
                f"{at}/cpufreq/cpuinfo_max_freq": f"{most_khz}\n",
                f"{at}/cpufreq/cpuinfo_min_freq": "600000\n",
                f"{at}/cpufreq/scaling_max_freq": f"{most_khz}\n",
                f"{at}/cpufreq/scaling_min_freq": "600000\n",
                f"{at}/cpufreq/scaling_cur_freq": f"{most_khz}\n",
                f"{at}/cpufreq/scaling_governor": "performance\n",
            }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def cpuinfo(core: int, part: int) -> str:
    """One processor's paragraph of /proc/cpuinfo, as 64-bit Arm kernels write it."""
    return (
        f"processor\t: {core}\nBogoMIPS\t: 108.00\n"
        "Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc asimddp\n"
        "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x4\n"
        f"CPU part\t: {part:#x}\nCPU revision\t: 1\n\n"
    )


def span(numbers: Sequence[int]) -> str:
    """Core numbers as the kernel lists them: `0-3`, or `1,5`."""
    first, last = numbers[0], numbers[-1]
    if list(numbers) == list(range(first, last + 1)) and first != last:
        return f"{first}-{last}\n"
    return ",".join(map(str, numbers)) + "\n"
