"""What an Arm Ethos-U NPU would take for a ``.tflite`` file: an estimate by its compiler, without the hardware.

The compiler is ethos-u-vela (https://pypi.org/project/ethos-u-vela), with its own default of clock and memories for
each accelerator. It runs in an environment of its own, as a command.
"""

import csv
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from model.errors import last_line
from quant.engines.catalog import VELA, missing_npu

_TIMEOUT_S = 600.0
_ON_NPU = re.compile(r"^NPU operators = \d+ \(([\d.]+)%\)", re.MULTILINE)


@dataclass(frozen=True)
class Estimate:
    """Milliseconds of a forward, the share of operators that the NPU takes, and the SRAM and flash it needs in MB."""

    ms: float
    share: float
    sram_mb: float
    flash_mb: float


def estimate(path: Path, accelerator: str) -> Estimate:
    """The compiler's own estimate for a file; raises RuntimeError with its last words where it fails."""
    reason = missing_npu(accelerator)
    if reason:
        raise RuntimeError(reason)
    with tempfile.TemporaryDirectory() as folder:
        command = [str(VELA), str(path), "--accelerator-config", accelerator, "--output-dir", folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        said = done.stdout + done.stderr
        tables = list(Path(folder).glob("*_summary_*.csv"))
        share = _ON_NPU.search(said)
        if done.returncode or not tables or share is None:
            last = last_line(said, 300) or "it said nothing"
            raise RuntimeError(f"vela failed with status {done.returncode}: {last}")
        with tables[0].open(newline="") as file:
            row = next(csv.DictReader(file))
    kib = 1024 / 1e6
    flash = float(row["on_chip_flash_memory_used"]) + float(row["off_chip_flash_memory_used"])
    flash += float(row["dram_memory_used"])  # where the accelerator's default has DRAM in place of flash
    sram_mb = kib * float(row["sram_memory_used"])
    on_npu = round(float(share.group(1)) / 100, 4)
    return Estimate(1e3 * float(row["inference_time"]), on_npu, sram_mb, kib * flash)
