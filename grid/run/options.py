"""The command line: its options, what a resumed run needs of them, and the command that repeats it."""

import argparse
import dataclasses
import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grid.devices.address import labels, read_devices
from grid.run.saved_command import FILE, read_arguments
from grid.secrets import MASK, masked
from grid.space.search_space import is_name
from grid.storage.runs import known_run
from grid.tracking.uri import UI_PORT
from model.errors import InputError
from model.network.spec import LIBRARIES
from model.tasks.names import BUILT_IN
from quant.engines.catalog import PACKAGES

DESCRIPTION = "Quantization grid runner: which recipe gives my network the best accuracy, size and latency?"
GRID = "grid"
ACTIONS = ("report", "sync", "export", "inspect_network", "ui")
"""What can be done instead of running a grid; each is a flag."""
_ALONE = (*ACTIONS, "resume")
_ONLY_GRIDS = {"dry_run": ACTIONS, "run_name": _ALONE}
"""Flags that are about running a grid, with those that they do not go with."""
_OF_ONE_COMMAND = (*ACTIONS, "input_size", "engine", "out", "resume", "dry_run", "run_name")
_NOT_SAVED = (*_OF_ONE_COMMAND, "storage")
_NOT_REPEATED = (*_OF_ONE_COMMAND, "tracking_uri", "register", "retries", "stall_minutes")
_LISTS = ("set", "margin", "device")
"""Flags that may be given several times."""
_NOT_EMPTY = ("resume", "report", "sync", "export", "inspect_network", "run_name", "register")


@dataclass(frozen=True)
class Options:
    """All that the command line says, by the names of its flags."""

    grid: str
    task: str
    data: str
    skip_bad: bool
    checkpoint: str | None
    network: str | None
    storage: str
    run_name: str | None
    resume: str | None
    tracking_uri: str | None
    address: str | None
    device: tuple[str, ...]
    cpus_per_trial: int
    gpus_per_trial: float
    retries: int
    stall_minutes: float
    seeds: str | None
    set: tuple[str, ...]
    analyze: bool
    target: str
    margin: tuple[str, ...]
    register: str | None
    report: str | None
    sync: str | None
    ui: int | None
    export: str | None
    inspect_network: str | None
    input_size: int
    engine: str
    out: str
    dry_run: bool

    @property
    def action(self) -> str:
        """``grid``, or which of ``ACTIONS`` is done instead."""
        return next((name for name in ACTIONS if getattr(self, name) is not None), GRID)

    @property
    def overrides(self) -> tuple[str, ...]:
        """Settings as ``KEY=VALUE``: those of ``--set``, and those that have flags of their own."""
        devices = labels(self.device, read_devices(self.device))
        named = [f"device=[{', '.join(devices)}]"] if devices else []
        return (*named, *self.set, *(["analyze=true"] if self.analyze else []))


def parse(arguments: list[str]) -> Options:
    """Read the command line; with ``--resume`` what is not given comes from that run's own command.

    Raises InputError, and SystemExit for what argparse refuses.
    """
    parser = _parser()
    options = _checked(parser.parse_args(arguments))
    flag, run = ("--resume", options.resume) if options.resume else ("--sync", options.sync)
    if not run:
        return options
    kept = read_arguments(known_run(flag, run, options.storage) / FILE, vars(_checked(parser.parse_args([]))))
    parser.set_defaults(**(kept if options.resume else {"tracking_uri": kept.get("tracking_uri")}))
    options = _checked(parser.parse_args(arguments))
    if MASK in (options.tracking_uri or ""):
        problem = f"{run} writes to {options.tracking_uri}, whose secrets are not kept"
        raise InputError("--tracking-uri", problem, "the same with its secrets")
    return options


def _checked(parsed: argparse.Namespace) -> Options:
    values = vars(parsed)
    for name in _NOT_EMPTY:
        if values[name] == "":
            raise InputError(_flag(name), "is not a name", "a name", value="''")
    _require_one_action(values)
    for name in ("gpus_per_trial", "stall_minutes"):
        if not math.isfinite(values[name]):
            raise InputError(_flag(name), "is out of range", "a finite number", value=str(values[name]))
    if not 8 <= values["input_size"] <= 4096:
        raise InputError("--input-size", "is out of range", "8 to 4096 pixels", value=str(values["input_size"]))
    if re.search(r"[/:]", values["register"] or ""):
        problem = "cannot be the name of an MLflow model"
        raise InputError("--register", problem, "one without / and :", value=repr(values["register"]))
    return Options(**{**values, **{name: tuple(values[name]) for name in _LISTS}})


def _require_one_action(values: Mapping[str, Any]) -> None:
    """Raise InputError that names two flags of which only one can be done."""
    given = [name for name in _ALONE if values[name] is not None]
    for name, others in _ONLY_GRIDS.items():
        if values[name]:
            given += [name for one in given if one in others]
    if len(given) > 1:
        raise InputError(f"{_flag(given[0])} and {_flag(given[1])}", "cannot be done at once", "one of them")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python runner.py", description=DESCRIPTION)
    add = parser.add_argument
    add("--grid", default="full", metavar="NAME|FILE", help="search space (default: full)")
    text = f"what is learned: {', '.join(BUILT_IN)}, or a Python file (default: depth; see docs/tasks.md)"
    add("--task", default=BUILT_IN[0], metavar="NAME|FILE", help=text)
    add("--data", default="rooms", metavar="rooms|PATH", help="built-in rooms, or data of the task on disk")
    add("--skip-bad", action="store_true", help="count and skip broken pictures instead of failing")
    add("--checkpoint", metavar="FILE", help="float network to start from; 'none' trains one")
    text = "a Python file (docs/own.md), or timm/NAME or torchvision/NAME"
    add("--network", metavar="FILE|NAME", help=text)
    add("--storage", default="results", metavar="DIR|URI", help="of all results (default: results)")
    add("--run-name", metavar="NAME", help="MLflow run, and folder runs/NAME in the storage (default: grid and time)")
    add("--resume", metavar="NAME", help="continue this run; finished stages are kept")
    add("--tracking-uri", metavar="URI", help="MLflow store (default: SQLite in the storage)")
    add("--address", metavar="auto|HOST:PORT", help="connect to a running Ray cluster")
    text = "where latency is measured: local (default), [NAME=]ssh://user@host, adb:SERIAL or a file (docs/devices.md)"
    add("--device", action="append", default=[], metavar="ADDRESS|FILE", help=text)
    add("--cpus-per-trial", type=int, default=1, metavar="N", help="CPUs and torch threads of a trial")
    add("--gpus-per-trial", type=float, default=1.0, metavar="X", help="of a training trial, if any GPU")
    text = "of a stage whose worker died, hung or ran out of memory"
    add("--retries", type=int, default=2, metavar="N", help=text)
    text = "a stage without progress for this long has hung, and is ended (default: 30; 0: never)"
    add("--stall-minutes", type=float, default=30.0, metavar="X", help=text)
    add("--seeds", metavar="0,1,2", help="run every cell with each of these seeds")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting (repeatable)")
    text = "also find the layers that lose the accuracy (= --set analyze=true)"
    add("--analyze", action="store_true", help=text)
    text = 'which cell to recommend, such as "ssim>=float-0.005, size_mb<=1.7, minimize latency"'
    add("--target", default="", metavar="TEXT", help=text)
    text = "differences that do not matter, such as ssim=0.001 or latency=3%% (repeatable, or with commas)"
    add("--margin", action="append", default=[], metavar="METRIC=X", help=text)
    add("--register", metavar="NAME", help="register the recommended int8 model in MLflow")
    add("--report", metavar="RUN", help="make the report of a run again (with another --target or --margin)")
    add("--sync", metavar="RUN", help="write to MLflow what it lacks of a run")
    text = f"open MLflow on 127.0.0.1 (default: {UI_PORT})"
    add("--ui", nargs="?", type=int, const=UI_PORT, metavar="PORT", help=text)
    add("--export", metavar="RUN/CELL", help="write a cell's network as a file for --engine into --out")
    text = f"of the file: {', '.join(PACKAGES)}, or all at once (default: xnnpack)"
    add("--engine", default="xnnpack", metavar="NAME|all", help=text)
    add("--out", default="exported", metavar="DIR", help="where the file goes (default: exported)")
    text = "say what of a network would run in int8: a Python file, torchvision/NAME or timm/NAME"
    add("--inspect-network", metavar="WHAT", help=text)
    add("--input-size", type=int, default=224, metavar="N", help="of --inspect-network, in pixels (default: 224)")
    add("--dry-run", action="store_true", help="print the plan and stop")
    return parser


def saved(options: Options, run_name: str) -> dict[str, Any]:
    """What a resumed run needs of this command; no secrets (a tracking URI that holds some is asked for again)."""
    arguments = {key: value for key, value in _as_dict(options).items() if key not in _NOT_SAVED}
    arguments["tracking_uri"] = options.tracking_uri and masked(options.tracking_uri)
    named = {
        "data": options.data == "rooms",
        "checkpoint": options.checkpoint == "none",
        "grid": is_name(options.grid),
        "task": options.task in BUILT_IN,
        "network": (options.network or "").startswith(LIBRARIES),
    }
    for key in ("data", "checkpoint", "grid", "network", "task"):
        if arguments[key] is not None and not named.get(key):
            arguments[key] = str(Path(arguments[key]).absolute())
    return {"run_name": run_name, "arguments": arguments}


def repeating_command(options: Options) -> str:
    """The command line that gives this grid again, without the tracking URI."""
    parts = ["python", "runner.py"]
    for key, value in _as_dict(options).items():
        flag = "--" + key.replace("_", "-")
        if key in _NOT_REPEATED or value in (None, False):
            continue
        for one in value if isinstance(value, list) else [value]:
            text = masked(str(one)) if key == "storage" else str(one)
            parts += [flag] if one is True else [flag, text]
    return shlex.join(parts)


def _as_dict(options: Options) -> dict[str, Any]:
    values = dataclasses.asdict(options)
    return values | {name: list(values[name]) for name in _LISTS}


def read_seeds(text: str) -> list[int]:
    """The seeds in ``0,1,2``; raises InputError."""
    if not re.fullmatch(r"[0-9]{1,10}(,[0-9]{1,10})*", text):
        raise InputError("--seeds", "is not a list of seeds", "whole numbers with commas, like 0,1,2", value=repr(text))
    return [int(part) for part in text.split(",")]
