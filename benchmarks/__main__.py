"""All benchmarks, each in a process of its own: JSON lines, then all of them as a Markdown table.

``devices``, ``engines``, ``lite0``, ``packing``, all of ``thousands``, ``verdicts`` and ``zoo`` run by their names
only: they want packages or pictures of their own, or many minutes. ``made_up_nyu`` writes data, and measures nothing.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

NAMES = ("engine_latency", "latency_noise", "qat_step", "evaluation", "data", "sharing", "scheduling")


def main(names: list[str]) -> int:
    """Run the named benchmarks (none: all); the exit status is 1 if one of them fails."""
    table, failed = [], []
    for name in names or NAMES:
        started = time.monotonic()
        command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{name}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            for line in running.stdout:
                print(line, end="", flush=True)
                if line.startswith("{"):
                    table.append(_row(name, json.loads(line)))
        seconds = time.monotonic() - started
        table.append(f"| {name} | all of it | {seconds:.0f} s | |")
        if running.returncode:
            failed.append(name)
            table.append(f"| {name} | **failed** | exit status {running.returncode} | |")
    print(f"\n{_machine()}\n\n| benchmark | figure | value | against |\n|:--|:--|--:|:--|\n" + "\n".join(table))
    return 1 if failed else 0


def _row(benchmark: str, line: dict[str, object]) -> str:
    return f"| {benchmark} | {line['name']} | {line['value']} {line['unit']} | {line['against']} |"


def _machine() -> str:
    from grid.scheduling.cores import own_cores
    from grid.stages.measure import cpu_model

    load = Path("/proc/loadavg")
    busy = f", load {load.read_text().split()[0]} at the end" if load.is_file() else ""
    return f"{cpu_model()}, {len(own_cores())} cores{busy}."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
