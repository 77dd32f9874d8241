"""Kill -9 whatever a grid is made of, at random moments; go on with --resume; compare with an undisturbed run."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.grid.tiny import ROOT, World, space_file, written

AXES = "{method: [ptq, ptq+qat], fuse_bn: [true], rounding: [false]}"
VICTIMS = ("driver", "trial worker", "profiler", "any worker", "raylet", "writer")
"""``writer``: whichever process is writing a stage, caught while its folder is unfinished."""
MARK = "GRID_FAULTS"
TIMED = ("latency", "seconds", "profiler", "train_s", "mlflow_run_id", "artifact", "analysis")
PATIENCE_S = 240
MOST_A_ROUND = 8


@dataclass
class Toll:
    """What was killed, and what was lost of it (each a line; none is what is promised)."""

    seed: int
    kills: Counter = field(default_factory=Counter)
    rounds: int = 0
    losses: list[str] = field(default_factory=list)

    def text(self) -> str:
        """One line, and one more for each loss."""
        killed = ", ".join(f"{count} x {name}" for name, count in sorted(self.kills.items()))
        first = f"seed {self.seed}: {self.kills.total()} kills ({killed}) in {self.rounds} rounds"
        return "\n".join([f"{first}, {len(self.losses)} losses", *self.losses])


def run(world: World, folder: Path, kills: int, seed: int, say=print) -> Toll:
    """Kill ``kills`` times in as many rounds as it takes; every round starts from an empty store."""
    draw, toll = random.Random(seed), Toll(seed)
    calm = _Grid(world, folder / "calm")
    calm.start()
    calm.wait()
    expected = calm.results()
    while toll.kills.total() < kills:
        grid = _Grid(world, folder / f"round-{toll.rounds}")
        toll.rounds += 1
        most = min(toll.kills.total() + MOST_A_ROUND, kills)
        while not grid.is_finished() and toll.kills.total() < most:
            before = written(grid.storage)
            grid.start()
            deadly = False
            while not deadly and toll.kills.total() < most:
                victim, moment = draw.choice(VICTIMS), draw.uniform(0.5, 15.0)
                if not grid.strike(victim, moment, draw):
                    break  # the run has ended
                toll.kills[victim] += 1
                say(f"round {toll.rounds}: {victim} after {moment:.1f} s", flush=True)
                deadly = victim == "driver"
            if deadly:
                grid.end()
            else:
                grid.wait()  # the run itself must get over it
            toll.losses += _twice(before, written(grid.storage))
        for _ in range(3):
            if grid.is_finished():
                break
            grid.start()
            grid.wait()
        toll.losses += [f"round {toll.rounds}: {line}" for line in grid.differences(expected)]
        if not toll.losses:
            shutil.rmtree(grid.folder)
    return toll


def _twice(before: dict[str, int], after: dict[str, int]) -> list[str]:
    return [f"{stage} was finished, and ran again" for stage, time in before.items() if after.get(stage) != time]


class _Grid:
    """A tiny grid in a folder of its own, and the processes that belong to it."""

    def __init__(self, world: World, folder: Path) -> None:
        self.folder, self.storage = folder, folder / "storage"
        folder.mkdir(parents=True)
        space_file(folder / "tiny.yaml", AXES)
        shutil.copy(world.checkpoint, folder / "tiny.safetensors")
        shutil.copytree(world.pack.parent, self.storage / "packs")
        self.mark = uuid.uuid4().hex
        self.driver: subprocess.Popen
        self.status: int | None = None

    def start(self) -> None:
        """Start the run, or go on with it."""
        self.status = None
        command = [sys.executable, str(ROOT / "runner.py"), "--storage", "storage"]
        if (self.storage / "runs" / "first" / "run.json").is_file():
            command += ["--resume", "first"]
        else:
            command += ["--grid", "tiny.yaml", "--checkpoint", "tiny.safetensors", "--run-name", "first"]
        with (self.folder / "output.txt").open("a") as output:
            self.driver = subprocess.Popen(
                command, cwd=self.folder, env={**os.environ, MARK: self.mark}, stdout=output, stderr=output
            )

    def strike(self, victim: str, moment: float, draw: random.Random) -> bool:
        """Kill the victim after ``moment`` seconds, or as soon as there is one; False if the run ended before."""
        started = time.monotonic()
        while self.driver.poll() is None:
            if time.monotonic() - started >= moment:
                found = self._processes(victim)
                if found:
                    os.kill(draw.choice(found), signal.SIGKILL)
                    return True
            time.sleep(0.005 if victim == "writer" else 0.05)
        return False

    def _processes(self, victim: str) -> list[int]:
        if victim == "driver":
            return [self.driver.pid]
        if victim == "writer" and not list((self.storage / "stages").glob(".*")):
            return []
        titles = {
            "trial worker": ("ray::ImplicitFunc",),
            "profiler": ("ray::profiler", "ray::Profiler"),
            "raylet": ("raylet",),
        }.get(victim, ("ray::",))
        return [pid for pid, title in _marked(self.mark) if any(mark in title for mark in titles)]

    def wait(self) -> None:
        """Until the run ends by itself."""
        try:
            self.status = self.driver.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.status = None
        self.end()

    def end(self) -> None:
        """End all that is left of the run."""
        for _ in range(3):
            for pid, _ in _marked(self.mark):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.2)
        self.status = self.driver.wait() if self.status is None else self.status

    def is_finished(self) -> bool:
        """Whether a run of it ended with status 0."""
        return self.status == 0

    def results(self) -> list[dict[str, str]]:
        """The rows of results.csv without what is timed or depends on the folder."""
        with (self.storage / "runs" / "first" / "results.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        return [{key: value for key, value in row.items() if not key.startswith(TIMED)} for row in rows]

    def differences(self, expected: list[dict[str, str]]) -> list[str]:
        """What is not as in an undisturbed run."""
        if not self.is_finished():
            output = (self.folder / "output.txt").read_text()[-600:]
            return [f"did not finish (status {self.status}): {output}"]
        found = []
        for row, wanted in zip(self.results(), expected, strict=True):
            found += [
                f"{row['cell']} {key}: {row[key]}, not {wanted[key]}" for key in wanted if row[key] != wanted[key]
            ]
        found += self._mlflow()
        return found

    def _mlflow(self) -> list[str]:
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{self.storage / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("quantization-grid")
        runs = client.search_runs([experiment.experiment_id], max_results=1000)
        cells = Counter(run.data.tags["grid.cell"] for run in runs if "grid.cell" in run.data.tags)
        states = {run.info.run_name: run.info.status for run in runs}
        expected = json.loads((self.storage / "runs" / "first" / "plan.json").read_text())["cells"]
        lines = [f"MLflow has {count} runs of cell {cell}" for cell, count in cells.items() if count != 1]
        lines += [f"MLflow: {name} is {status}" for name, status in states.items() if status != "FINISHED"]
        if len(cells) != len(expected):
            lines.append(f"MLflow has {len(cells)} of {len(expected)} cells")
        return lines


def _marked(mark: str) -> list[tuple[int, str]]:
    """Processes that carry the mark in their environment, with their titles."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append((int(folder.name), title))
        except OSError:
            continue
    return found
