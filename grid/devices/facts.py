"""What a device says of itself: its chip, its clusters of cores, clocks, temperature and memory."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

PROBE = r"""
r=$QUANTIZATION_GRID_SYSROOT
say() { printf '%s=%s\n' "$1" "$2"; }
first() { head -n 1 "$1" 2>/dev/null | tr -d '\000'; }
say machine "$(uname -m)"
say system "$(uname -sr)"
say model "$(first $r/proc/device-tree/model)"
command -v getprop >/dev/null && say model "$(getprop ro.product.manufacturer) $(getprop ro.product.model)"
command -v getprop >/dev/null && say chip "$(getprop ro.soc.manufacturer) $(getprop ro.soc.model)"
command -v getprop >/dev/null && say system "Android $(getprop ro.build.version.release)"
grep -E '^(processor|CPU part|model name)' $r/proc/cpuinfo 2>/dev/null | sed 's/[[:space:]]*:[[:space:]]*/=/'
for c in $r/sys/devices/system/cpu/cpu[0-9]*; do
  n=${c##*cpu}
  say "max $n" "$(first $c/cpufreq/cpuinfo_max_freq)"
  say "now $n" "$(first $c/cpufreq/scaling_cur_freq)"
  say "governor $n" "$(first $c/cpufreq/scaling_governor)"
done
for z in $r/sys/class/thermal/thermal_zone*; do
  say "zone $(first $z/type)" "$(first $z/temp)"
done
grep -E '^(MemTotal|MemAvailable)' $r/proc/meminfo 2>/dev/null | sed 's/:[[:space:]]*/=/'
exit 0
"""
"""A script for the shell of a device (POSIX; Android's toybox knows all of it)."""

_PARTS = {
    "0xd03": "Cortex-A53", "0xd04": "Cortex-A35", "0xd05": "Cortex-A55", "0xd07": "Cortex-A57", "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73", "0xd0a": "Cortex-A75", "0xd0b": "Cortex-A76", "0xd0c": "Neoverse-N1", "0xd0d": "Cortex-A77",
    "0xd40": "Neoverse-V1", "0xd41": "Cortex-A78", "0xd44": "Cortex-X1", "0xd46": "Cortex-A510", "0xd47": "Cortex-A710",
    "0xd48": "Cortex-X2", "0xd49": "Neoverse-N2", "0xd4d": "Cortex-A715", "0xd4e": "Cortex-X3", "0xd4f": "Neoverse-V2",
    "0xd80": "Cortex-A520", "0xd81": "Cortex-A720", "0xd82": "Cortex-X4",
}  # fmt: skip
"""Arm's numbers of its cores (Linux, arch/arm64/include/asm/cputype.h)."""
_OF_CPU = re.compile(r"cpu|soc|tsens|big|little|cluster", re.IGNORECASE)
_PLAUSIBLE_C = (-20.0, 130.0)


@dataclass(frozen=True)
class Cluster:
    """Cores of one kind: their numbers, what they are, and their clock in MHz (0: not told) with its governor."""

    cores: tuple[int, ...]
    part: str
    max_mhz: int
    governor: str


@dataclass(frozen=True)
class Facts:
    """What ``PROBE`` found; figures that a device does not tell are 0, None or empty.

    ``now_mhz`` is the clock of each core at this moment, ``temperature_c`` that of the warmest sensor of the processor.
    """

    machine: str
    system: str
    model: str
    clusters: tuple[Cluster, ...]
    now_mhz: Mapping[int, int]
    temperature_c: float | None
    memory_mb: int

    @classmethod
    def read(cls, text: str) -> "Facts":
        """What the output of ``PROBE`` says."""
        said: dict[str, str] = {}
        parts: dict[int, str] = {}
        core = 0
        for line in text.splitlines():
            key, _, value = (part.strip() for part in line.partition("="))
            if key == "processor" and value.isdigit():
                core = int(value)
            elif key in ("CPU part", "model name"):
                parts[core] = _PARTS.get(value.lower(), value)
            elif value or key not in said:
                said[key] = value
        model = " ".join(filter(None, (said.get("model", "").strip(), said.get("chip", "").strip())))
        return cls(
            said.get("machine", ""),
            said.get("system", ""),
            model,
            _clusters(said, parts),
            {core: mhz for core in _cores(said, parts) if (mhz := _mhz(said.get(f"now {core}")))},
            _temperature(said),
            int(re.sub(r"\D", "", said.get("MemTotal", "")) or 0) // 1024,
        )

    def fastest(self) -> Cluster | None:
        """The cluster with the highest clock, where there are several."""
        return max(self.clusters, key=lambda one: one.max_mhz) if len(self.clusters) > 1 else None

    def processor(self, cores: tuple[int, ...]) -> str:
        """What the cores are, such as ``Cortex-A76``; all of the device where none are given."""
        chosen = [one for one in self.clusters if not cores or set(one.cores) & set(cores)]
        return " + ".join(dict.fromkeys(one.part for one in chosen if one.part)) or self.machine or "unknown"

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "now_mhz": {str(core): mhz for core, mhz in self.now_mhz.items()}}


def _cores(said: Mapping[str, str], parts: Mapping[int, str]) -> list[int]:
    named = {int(key.split()[1]) for key in said if re.fullmatch(r"max \d+", key)}
    return sorted(named | parts.keys())


def _clusters(said: Mapping[str, str], parts: Mapping[int, str]) -> tuple[Cluster, ...]:
    """Cores of one kind and one highest clock, in the order of their numbers."""
    found: dict[tuple[str, int, str], list[int]] = {}
    for core in _cores(said, parts):
        kind = (parts.get(core, ""), _mhz(said.get(f"max {core}")), said.get(f"governor {core}", ""))
        found.setdefault(kind, []).append(core)
    return tuple(Cluster(tuple(cores), *kind) for kind, cores in found.items())


def _mhz(text: str | None) -> int:
    return int(text) // 1000 if text and text.isdigit() else 0


def _temperature(said: Mapping[str, str]) -> float | None:
    zones = {key[5:]: value for key, value in said.items() if key.startswith("zone ") and value.lstrip("-").isdigit()}
    degrees = {zone: int(value) / (1000 if abs(int(value)) > 1000 else 1) for zone, value in zones.items()}
    plausible = {zone: one for zone, one in degrees.items() if _PLAUSIBLE_C[0] < one < _PLAUSIBLE_C[1]}
    of_cpu = [one for zone, one in plausible.items() if _OF_CPU.search(zone)]
    return max(of_cpu or plausible.values(), default=None)
