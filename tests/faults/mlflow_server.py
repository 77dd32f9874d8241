"""An MLflow server on this machine that can be killed, stopped for a while and started again with its database."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
STARTS_IN_S = 120


class Server:
    """Keeps its runs and artifacts in ``folder`` and listens on one free port of 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.process = folder, None
        folder.mkdir()
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self.port = unused.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        command += ["--artifacts-destination", (self.folder / "artifacts").as_uri()]
        self.process = subprocess.Popen(
            command,
            env=os.environ | QUIET,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        end = time.monotonic() + STARTS_IN_S
        while True:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
                return
            except OSError:
                assert self.process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.2)

    def kill(self, how: int = signal.SIGKILL) -> None:
        """Signal all of its processes; SIGSTOP makes it one that takes requests and never answers."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, how)
        if how == signal.SIGKILL:
            self.process.wait()
