"""MLflow on PostgreSQL, files in an S3 server: whatever is killed or cut off, nothing is lost, nothing doubled."""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from grid.scheduling.tune import Dashboard
from tests.faults.servers.together import BUCKET, RealServers, missing
from tests.faults.tracked import Tracked
from tests.grid.tiny import ROOT, space_file, world
from tests.runner.desk import quietly, run_plan_here

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800), pytest.mark.skipif(bool(missing()), reason=missing())]
AXES = "{method: [ptq, ptq+qat], fuse_bn: [true], rounding: [false], granularity: [per_channel, per_tensor]}"
KINDS = ("kill driver", "kill mlflow", "kill postgres", "kill objects", "stop mlflow")
KINDS += ("cut mlflow", "cut postgres", "cut objects")
"""Killed servers are started again at once, a stopped one after a while in which drivers give up."""
AWAY_S = 40.0
MOST_A_ROUND, MOST_DRIVERS = 8, 60
LOST = [b"/runs/create ", b"/mlflow/logged-models ", b"/runs/outputs ", b"/runs/log-batch ", b"/runs/update "]
"""Requests that are done and whose answer is lost: the client asks for the same again."""
PATIENCE_S = 300


@dataclass(frozen=True)
class Site:
    """A storage in which all stages of a tiny grid are computed, and servers for many runs of it."""

    folder: Path
    servers: RealServers

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    def start(self, name: str) -> subprocess.Popen:
        """A driver of a run with this name, which goes on with what an earlier one left."""
        known = (self.storage / "runs" / name / "run.json").is_file()
        given = ["--resume", name, "--storage", str(self.storage)] if known else asked(self.folder, name)
        command = [sys.executable, str(ROOT / "runner.py"), *given, "--tracking-uri", self.servers.uri]
        with (self.folder / f"{name}.txt").open("a") as output:
            return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, env=os.environ)

    def said(self, name: str) -> str:
        """The end of what the drivers of a run said."""
        return (self.folder / f"{name}.txt").read_text()[-2000:]

    def differences(self, *names: str) -> list[str]:
        found = Tracked(MlflowClient(self.servers.mlflow.uri), self.servers.objects.client(), BUCKET, "files")
        return found.differences(self.storage, names)


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    here, folder = world(tmp_path_factory), tmp_path_factory.mktemp("desk")
    space_file(folder / "tiny.yaml", AXES)
    shutil.copy(here.checkpoint, folder / "tiny.safetensors")
    shutil.copytree(here.pack.parent, folder / "storage" / "packs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grid.scheduling.tune.run_plan", run_plan_here)
        patch.setattr(
            "grid.scheduling.tune.cluster", lambda resources, devices: contextlib.nullcontext(Dashboard("", None))
        )
        status, text = quietly(asked(folder, "alone"))
    assert status == 0, text
    return folder


@pytest.fixture
def site(desk, tmp_path) -> Iterator[Site]:
    with RealServers(tmp_path) as servers:
        yield Site(desk, servers)


def asked(folder: Path, name: str) -> list[str]:
    given = {"grid": "tiny.yaml", "checkpoint": "tiny.safetensors", "storage": "storage"}
    return [part for flag, file in given.items() for part in (f"--{flag}", str(folder / file))] + ["--run-name", name]


def test_what_is_asked_for_again_because_its_answer_was_lost_is_there_once_and_secrets_are_nowhere(site):
    lost = site.servers.doors["mlflow"].unanswered
    lost += LOST * 3
    driver = site.start("lost")
    driver.wait(PATIENCE_S)
    assert not lost, "all of them were asked for"
    if driver.returncode:
        assert site.start("lost").wait(PATIENCE_S) == 0, site.said("lost")
    assert site.differences("lost") == []
    assert "fuse_bn-per_channel-ptq" in site.servers.postgres.dump()
    for secret in site.servers.secrets():
        assert site.servers.shown(secret) == []
        files = [path for path in site.folder.rglob("*") if path.is_file()]
        assert [path for path in files if secret.encode() in path.read_bytes()] == []


def test_kills_and_cuts_while_two_drivers_write_lose_and_double_nothing(site):
    draw, names, statuses = random.Random(17), [], Counter()
    blows = list(KINDS) * 3
    draw.shuffle(blows)
    done: Counter[str] = Counter()
    while blows:
        pair = [f"round-{len(names) // 2}-{which}" for which in ("one", "two")]
        names += pair
        drivers = {name: site.start(name) for name in pair}
        left = max(len(blows) - MOST_A_ROUND, 0)
        while drivers:
            due = len(blows) > left and traffic(site.servers, drivers, draw.uniform(0.2, 3.0))
            if due and strike(site, blows[-1], drivers, draw):
                done[blows[-1]] += 1
                print(f"{pair[0][:-4]}: {blows.pop()}", flush=True)
            for name, driver in list(drivers.items()):
                if len(blows) == left:
                    driver.wait(PATIENCE_S)
                if driver.poll() is not None:
                    statuses[driver.returncode] += 1
                    del drivers[name]
                    if driver.returncode:  # what it could not write is written by the next one
                        assert statuses.total() < MOST_DRIVERS, site.said(name)
                        drivers[name] = site.start(name)
        assert site.differences(*names) == []
    assert done.total() == 3 * len(KINDS)
    print(f"{done.total()} blows ({dict(done)}) on {len(names)} runs; their drivers ended with {dict(statuses)}")


def traffic(servers: RealServers, drivers: dict[str, subprocess.Popen], more_s: float) -> bool:
    """Wait until a driver writes to MLflow and a while longer; False where none is left to write."""
    before = servers.doors["mlflow"].passed
    while servers.doors["mlflow"].passed == before:
        if all(driver.poll() is not None for driver in drivers.values()):
            return False
        time.sleep(0.02)
    time.sleep(more_s)
    return any(driver.poll() is None for driver in drivers.values())


def strike(site: Site, blow: str, drivers: dict[str, subprocess.Popen], draw: random.Random) -> bool:
    """Kill or cut off; False where nothing was there to be struck."""
    what, _, whom = blow.partition(" ")
    if what == "cut":
        return site.servers.doors[whom].cut() > 0
    if whom != "driver":
        site.servers.restart(whom, AWAY_S if what == "stop" else 0.0)
        return True
    alive = [driver for driver in drivers.values() if driver.poll() is None]
    if alive:
        draw.choice(alive).kill()
    return bool(alive)
