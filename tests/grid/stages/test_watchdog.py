"""A process that makes no progress is ended, with the stacks of its threads; one that makes some is left alone."""

import subprocess
import sys
import time

import pytest

from grid.stages.watchdog import hung_log, watched
from tests.grid.tiny import ROOT

HANG = """
import re, sys, time
from pathlib import Path
from grid.stages.watchdog import watched

def sleeps_for_ever():
    time.sleep(60)

def never_lets_go_of_the_interpreter():
    re.match(r"(a+)+$", "a" * 40 + "b")

with watched(lambda info: None, 0.5, Path(sys.argv[1])) as report:
    for _ in range(4):
        time.sleep(0.3)
        report({})
    {hang}()
"""


@pytest.mark.parametrize("hang", ["sleeps_for_ever", "never_lets_go_of_the_interpreter"])
def test_a_process_that_hangs_ends_and_says_where_it_was(tmp_path, hang):
    log = tmp_path / "logs" / "hung.log"
    began = time.monotonic()
    code = HANG.replace("{hang}", hang)
    done = subprocess.run([sys.executable, "-c", code, str(log)], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 1
    assert time.monotonic() - began > 4 * 0.3, "not while it reported"
    assert f"in {hang}" in log.read_text()


def test_what_ends_in_time_leaves_no_log(tmp_path):
    log, seen = tmp_path / "hung.log", []
    with watched(seen.append, 30.0, log) as report:
        report({"step": 1})
        assert log.exists()
    assert seen == [{"step": 1}]
    assert not log.exists()


def test_an_exception_disarms_it_and_its_log_is_empty(tmp_path):
    log = tmp_path / "hung.log"
    with pytest.raises(RuntimeError), watched(lambda info: None, 0.2, log):
        raise RuntimeError
    time.sleep(0.4)
    assert log.read_text() == ""


def test_without_patience_nothing_is_armed(tmp_path):
    with watched(print, None, hung_log(tmp_path, "train", "ab")) as report:
        assert report is print
    assert list(tmp_path.iterdir()) == []
