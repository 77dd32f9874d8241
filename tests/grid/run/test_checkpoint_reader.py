"""The process that reads the checkpoint for the driver."""

import contextlib
import os
import subprocess
import sys
import time

import pytest

from tests.grid.tiny import ROOT

READS_FOR_EVER = """
import os, time
from types import SimpleNamespace
from grid.run import job

def read(*arguments):
    print(os.getpid(), flush=True)
    time.sleep(60)

job.load_checkpoint = read
job._checkpoint(SimpleNamespace(checkpoint="any.safetensors", data="rooms", task="depth"), job.NetworkSpec())
"""


@pytest.mark.slow
def test_it_ends_with_a_driver_that_is_killed():
    driver = subprocess.Popen([sys.executable, "-c", READS_FOR_EVER], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    reader = int(driver.stdout.readline())
    assert reader != driver.pid
    os.kill(reader, 0)
    driver.kill()
    driver.wait()
    end = time.monotonic() + 5
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.kill(reader, 0)
            time.sleep(0.02)
        os.kill(reader, 9)
        raise AssertionError("it is still there")
