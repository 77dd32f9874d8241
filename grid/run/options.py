"""The command line of the runner: its options, what a resumed run needs of them, and the command that repeats it."""

import argparse
import math
import re
import shlex
from pathlib import Path
from typing import Any

from grid.results.recommend import DEFAULT
from grid.run.saved_command import read_arguments
from grid.secrets import MASK, masked
from grid.space.search_space import is_name
from grid.storage.remote import run_folder
from grid.tracking.uri import UI_PORT
from model.errors import InputError

DESCRIPTION = "Quantization grid runner: which recipe gives my network the best accuracy, size and latency?"
STORE_NAMES = (
    "stages",
    "scratch",
    "locks",
    "quarantine",
    "packs",
    "networks",
    "checkpoints",
    "cores",
    "logs",
    "mlflow-artifacts",
    "mlflow.db",
)

_EXPORT = ("export", "engine", "out")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; with ``--resume`` what is not given comes from that run's own command."""
    parser = argparse.ArgumentParser(prog="python runner.py", description=DESCRIPTION)
    parser.add_argument("--grid", default="full", metavar="NAME|FILE", help="search space (default: full)")
    parser.add_argument("--data", default="rooms", metavar="rooms|PATH", help="built-in rooms, or NYUv2 on disk")
    parser.add_argument("--skip-bad", action="store_true", help="count and skip broken pictures instead of failing")
    parser.add_argument("--checkpoint", metavar="FILE", help="float network to start from; 'none' trains one")
    parser.add_argument("--network", metavar="FILE", help="a network of your own, a Python file: see docs/own.md")
    parser.add_argument("--storage", default="results", metavar="DIR|URI", help="of all results (default: results)")
    parser.add_argument("--run-name", metavar="NAME", help="folder and MLflow run (default: grid and time)")
    parser.add_argument("--resume", metavar="NAME", help="go on with this run; finished stages are kept")
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow store (default: SQLite in the storage)")
    parser.add_argument("--address", metavar="auto|HOST:PORT", help="connect to a running Ray cluster")
    parser.add_argument("--cpus-per-trial", type=int, default=1, metavar="N", help="CPUs and torch threads of a trial")
    parser.add_argument(
        "--gpus-per-trial", type=float, default=1.0, metavar="X", help="of a training trial, if any GPU"
    )
    parser.add_argument(
        "--retries", type=int, default=2, metavar="N", help="of a stage whose worker died, hung or ran out of memory"
    )
    parser.add_argument(
        "--stall-minutes",
        type=float,
        default=30.0,
        metavar="X",
        help="a stage without progress for so long has hung, and is ended (default: 30; 0: never)",
    )
    parser.add_argument("--seeds", metavar="0,1,2", help="run every cell with each of these seeds")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting (repeatable)"
    )
    parser.add_argument(
        "--analyze", action="store_true", help="also find the layers that lose the accuracy (= --set analyze=true)"
    )
    parser.add_argument(
        "--target",
        default=DEFAULT,
        metavar="TEXT",
        help='which cell to recommend, such as "ssim>=0.80, size_mb<=1.7, minimize latency"',
    )
    parser.add_argument("--register", metavar="NAME", help="register the recommended int8 model in MLflow")
    parser.add_argument("--report", metavar="RUN", help="make the report of a run again (with another --target)")
    parser.add_argument("--sync", metavar="RUN", help="write to MLflow what it lacks of a run")
    parser.add_argument(
        "--ui",
        nargs="?",
        type=int,
        const=UI_PORT,
        metavar="PORT",
        help=f"open MLflow on 127.0.0.1 (default: {UI_PORT})",
    )
    parser.add_argument("--export", metavar="RUN/CELL", help="write a cell's network as a file for --engine into --out")
    parser.add_argument(
        "--engine", default="xnnpack", metavar="NAME", help="of the file: xnnpack (default) or onnxruntime"
    )
    parser.add_argument("--out", default="exported", metavar="DIR", help="where the file goes (default: exported)")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    first = parser.parse_args(arguments)
    for name in ("resume", "report", "sync", "export", "run_name", "register"):
        if vars(first)[name] == "":
            raise InputError(f"--{name.replace('_', '-')}", "'' is no name", "a name")
    for name in ("gpus_per_trial", "stall_minutes"):
        if not math.isfinite(vars(first)[name]):
            raise InputError(f"--{name.replace('_', '-')}", f"{vars(first)[name]} is out of range", "a finite number")
    if re.search(r"[/:]", first.register or ""):
        raise InputError("--register", f"{first.register!r} is no name of an MLflow model", "one without / and :")
    flag, run = ("--resume", first.resume) if first.resume else ("--sync", first.sync)
    if not run:
        return first
    kept = read_arguments(known_run(flag, run, first.storage) / "run.json", vars(parser.parse_args([])))
    parser.set_defaults(**(kept if first.resume else {"tracking_uri": kept.get("tracking_uri")}))
    asked = parser.parse_args(arguments)
    if MASK in (asked.tracking_uri or ""):
        problem = f"{run} writes to {asked.tracking_uri}, whose secrets are not kept"
        raise InputError("--tracking-uri", problem, "the same with its secrets")
    return asked


def known_run(flag: str, name: str, storage: str) -> Path:
    """The folder of a run, as it is in the storage now; raises InputError that names the runs that are there."""
    folder = run_folder(storage, checked_run_name(name))
    if not folder.is_dir():
        runs = sorted(path.parent.name for path in folder.parent.glob("*/run.json"))
        expected = f"one of {', '.join(runs)}" if runs else "a run, and there is none yet"
        raise InputError(flag, f"{name!r} is no run in {masked(storage)}", expected)
    return folder


def saved(asked: argparse.Namespace, run_name: str) -> dict[str, Any]:
    """What a resumed run needs of this command; no secrets (a tracking URI that holds some is asked for again)."""
    left_out = ("resume", "report", "sync", "ui", "dry_run", "run_name", "storage", *_EXPORT)
    arguments = {key: value for key, value in vars(asked).items() if key not in left_out}
    arguments["tracking_uri"] = asked.tracking_uri and masked(asked.tracking_uri)
    named = {"data": asked.data == "rooms", "checkpoint": asked.checkpoint == "none", "grid": is_name(asked.grid)}
    for key in ("data", "checkpoint", "grid", "network"):
        if arguments[key] is not None and not named.get(key):
            arguments[key] = str(Path(arguments[key]).absolute())
    return {"run_name": run_name, "arguments": arguments}


_NO_GRID = ("tracking_uri", "resume", "dry_run", "run_name", "register", "retries", "stall_minutes", *_EXPORT)


def repeating_command(asked: argparse.Namespace) -> str:
    """The command line that gives this grid again, without the tracking URI."""
    parts = ["python", "runner.py"]
    for key, value in vars(asked).items():
        flag = "--" + key.replace("_", "-")
        if key in _NO_GRID or value in (None, False):
            continue
        for one in value if isinstance(value, list) else [value]:
            text = masked(str(one)) if key == "storage" else str(one)
            parts += [flag] if one is True else [flag, text]
    return shlex.join(parts)


def read_seeds(text: str) -> list[int]:
    """The seeds in ``0,1,2``."""
    if not re.fullmatch(r"[0-9]{1,10}(,[0-9]{1,10})*", text):
        raise InputError("--seeds", f"{text!r} is no list of seeds", "whole numbers with commas, like 0,1,2")
    return [int(part) for part in text.split(",")]


def checked_run_name(name: str) -> str:
    """The name, if it can be a folder of the storage beside those of the store."""
    if not re.fullmatch(r"[\w.+=-]{1,100}", name) or name.startswith(".") or len(name.encode()) > 200:
        raise InputError("--run-name", f"{name!r} cannot be a folder", "letters, digits, and _ . + = -")
    if name in STORE_NAMES:
        raise InputError("--run-name", f"{name!r} is a part of the storage", f"none of {', '.join(STORE_NAMES)}")
    return name
