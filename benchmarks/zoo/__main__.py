"""Which common networks become int8 networks, how much of each, and what that costs: 36 of torchvision and timm.

``python -m benchmarks.zoo [NAME ...]`` (after ``make engines``); names are ``torchvision/...`` and ``timm/...``.
No weights can be downloaded here, and random ones amplify noise from layer to layer. So each network first learns the
depth of rendered rooms for TRAIN seconds; a large one takes few steps in that time. Calibrated on 16 of these rooms,
measured on 16 others, each network in a process of its own, on one core.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.line import say
from benchmarks.zoo.measure import STOCK, measure
from benchmarks.zoo.networks import NAMES, TRANSFORMERS, rooms
from quant.inspection.inspection import ENGINES

LEAST, LEAST_OF_TRANSFORMERS = 0.95, 0.80
"""Of its MACs in int8, for a network to be through."""
GOALS = {"qnnpack": 32, "onnxruntime": 30, "xnnpack": 30}
_COLUMNS = (
    *("network", "G MACs", "steps, error", "simulated, dB"),
    *(f"{engine}: MACs, weights; dB, to simulation" for engine in ENGINES),
    *(f"{tool}, dB" for tool in STOCK),
    "fuse / equalize / calibrate / round: s, GB",
)
HEAD = f"| {' | '.join(_COLUMNS)} |\n|:--|{'--:|' * (len(_COLUMNS) - 1)}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="torchvision/NAME or timm/NAME; none: all 36")
    parser.add_argument("--train", type=float, default=120.0, help="seconds of training a network (default: 120)")
    parser.add_argument("--pictures", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pictures:  # the process of one network
        (name,) = options.names
        print(json.dumps(measure(name, torch.load(options.pictures, weights_only=True), options.train)))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pictures.pt"
        torch.save(rooms(Path(folder)), file)
        table(options.names or NAMES, file, options.train)


def table(names: Sequence[str], pictures: Path, train_s: float) -> None:
    """Print a row for each network, reasons of refusals, and the goals' figures."""
    print(HEAD, flush=True)
    found, reasons = list[dict[str, Any]](), list[str]()
    for name in names:
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "benchmarks.zoo",
            name,
            "--pictures",
            str(pictures),
            "--train",
            str(train_s),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reasons.append(f"{name}: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
            print(f"| {name} | refused |", flush=True)
            continue
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(_row(found[-1]), flush=True)
        reasons += [
            f"{name} on {engine}: {one['refused']}" for engine, one in found[-1]["engines"].items() if one["refused"]
        ]
        reasons += [f"{name}, {tool}: {db}" for tool, db in found[-1]["stock_db"].items() if isinstance(db, str)]
    print("", *reasons, "", sep="\n")
    for engine, goal in GOALS.items():
        through = sum(_is_through(one, engine) for one in found)
        say(f"zoo through on {engine}", through, "networks", f"of {len(names)}; goal {goal} of {len(NAMES)}")
        taken = [one for one in found if not one["engines"][engine]["refused"]]
        if taken:
            apart = max(abs(one["simulated_db"] - one["engines"][engine]["sqnr_db"]) for one in taken)
            say(f"zoo {engine} and simulation", apart, "dB", "largest difference of SQNR; goal 1")


def _is_through(found: dict[str, Any], engine: str) -> bool:
    least = LEAST_OF_TRANSFORMERS if found["name"].rpartition("/")[2] in TRANSFORMERS else LEAST
    one = found["engines"][engine]
    return not one["refused"] and one["macs"] >= least


def _row(found: dict[str, Any]) -> str:
    """The network in the table of ``HEAD``."""
    cells = [
        found["name"],
        f"{found['macs'] / 1e9:.2f}",
        f"{found['steps']}, {found['error']:.2f}",
        f"{found['simulated_db']:.1f}",
    ]
    for one in found["engines"].values():
        shares = f"{100 * one['macs']:.1f}, {100 * one['weights']:.1f} %"
        cells.append("refused" if one["refused"] else f"{shares}; {one['sqnr_db']:.1f}, {one['apart_db']:.1f}")
    cells += ["failed" if isinstance(db, str) else f"{db:.1f}" for db in found["stock_db"].values()]
    cells.append(
        " / ".join(f"{found['seconds'][stage]:.0f}, {found['peak_gb'][stage]:.1f}" for stage in found["seconds"])
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
