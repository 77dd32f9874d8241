"""Fixtures of the tests of the command line; one grid is killed, resumed and run again for all of them."""

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.grid.tiny import ROOT, World, world, written
from tests.runner.desk import SET, Desk, Story, desk, marked_environment, no_cluster, quietly, wait_for_stages


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> World:
    return world(tmp_path_factory)


@pytest.fixture
def at(tiny, tmp_path) -> Desk:
    return desk(tiny, tmp_path)


@pytest.fixture(scope="session")
def marked() -> Iterator[dict[str, str]]:
    with marked_environment() as environment:
        yield environment


@pytest.fixture(scope="session")
def story(tiny, marked, tmp_path_factory) -> Story:
    at = desk(tiny, tmp_path_factory.mktemp("desk"))
    command = [sys.executable, str(ROOT / "runner.py")]
    # From the folder of the files, by relative names, as people do.
    first = ["--grid", "tiny.yaml", "--checkpoint", "tiny.safetensors", "--storage", "storage", "--run-name", "first"]
    with (at.folder / "killed.txt").open("w") as output:
        driver = subprocess.Popen([*command, *first, *SET], cwd=at.folder, env=marked, stdout=output, stderr=output)
        try:
            wait_for_stages(at, driver, 5)
        finally:
            driver.kill()
            driver.wait()
    killed = written(at.storage)
    resume = subprocess.run(
        [*command, "--resume", "first", "--storage", "storage"],
        cwd=at.folder, env=marked, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    resumed = written(at.storage)
    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grid.scheduling.tune.cluster", no_cluster)
        status, text = quietly(at.arguments(*SET, run_name="again"))
    seconds = time.monotonic() - started
    return Story(at, killed, resumed, resume, status, text, seconds, written(at.storage))
