"""MLflow's pages end with the command that opened them: no process stays, and the port is closed."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.grid.tiny import ROOT
from tests.security.processes import family

SERVER = """
import socket, subprocess, sys, time
if sys.argv[2:]:
    subprocess.Popen([sys.executable, __file__, sys.argv[1]])
    time.sleep(600)
with socket.create_server(("127.0.0.1", int(sys.argv[1]))):
    time.sleep(600)
"""
"""A process whose child listens, as MLflow's server is one."""
SERVE = "import os, sys; from grid.run.mlflow_pages import serve; sys.exit(serve(sys.argv[1:], dict(os.environ)))"


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


def is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return bool(condition())


ALIKE = [pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGINT, signal.SIGHUP)]


@pytest.mark.parametrize("number", [signal.SIGTERM, *ALIKE])
def test_a_signal_ends_the_server_and_its_children(tmp_path, number):
    port, file = free_port(), tmp_path / "server.py"
    file.write_text(SERVER)
    command = [sys.executable, "-c", SERVE, sys.executable, str(file), str(port), "parent"]
    driver = subprocess.Popen(command, cwd=ROOT)
    try:
        assert wait_until(lambda: is_open(port), 60)
        processes = family(driver.pid)
        assert len(processes) == 3
        driver.send_signal(number)
        assert driver.wait(30) == 0
        assert wait_until(lambda: not any(Path(f"/proc/{one}").exists() for one in processes), 10)
        assert not is_open(port)
    finally:
        driver.kill()


def test_a_server_that_fails_gives_its_exit_status():
    command = [sys.executable, "-c", SERVE, sys.executable, "-c", "raise SystemExit(7)"]
    assert subprocess.run(command, cwd=ROOT, timeout=60, check=False).returncode == 7


def test_the_pages_of_a_storage_are_served_until_sigterm_and_then_the_port_is_closed(database, tmp_path):
    """``database``: a store with an experiment; MLflow's own server has processes of its own."""
    port = free_port()
    command = [sys.executable, str(ROOT / "runner.py"), "--ui", str(port), "--tracking-uri", database]
    with (tmp_path / "output.txt").open("w") as output:
        driver = subprocess.Popen(
            [*command, "--storage", str(tmp_path)], cwd=tmp_path, stdout=output, stderr=output, env=os.environ
        )
        try:
            assert wait_until(lambda: is_open(port) or driver.poll() is not None, 120)
            assert driver.poll() is None, (tmp_path / "output.txt").read_text()
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as page:
                assert b"MLflow" in page.read()
            processes = family(driver.pid)
            assert len(processes) > 1
            driver.terminate()
            assert driver.wait(30) == 0
            assert not is_open(port)
            assert wait_until(lambda: not any(Path(f"/proc/{one}").exists() for one in processes), 10)
        finally:
            driver.kill()
