"""An MLflow server on this machine that can be killed, stopped for a while and started again with its database."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from tests.grid.storage.s3_server import free_port

QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
STARTS_IN_S = 120


class Server:
    """Listens on one free port of 127.0.0.1; what it says is in ``folder``.

    It keeps its runs in the database ``store`` and files in ``artifacts``, both in ``folder`` unless they are named.
    """

    def __init__(
        self,
        folder: Path,
        store: str | None = None,
        artifacts: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.log, self.process = folder, folder / "server.txt", None
        folder.mkdir()
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.artifacts = artifacts or (folder / "artifacts").as_uri()
        # Not on the command line, which everybody on the machine can read.
        kept = {"MLFLOW_BACKEND_STORE_URI": store or f"sqlite:///{folder}/server.db"}
        self.environment = os.environ | QUIET | kept | dict(environment or {})

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1"]
        command += ["--artifacts-destination", self.artifacts]
        with self.log.open("a") as output:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=output, stderr=output, start_new_session=True
            )
        end = time.monotonic() + STARTS_IN_S
        while True:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
                return
            except OSError:
                assert self.process.poll() is None, self.log.read_text()[-2000:]
                assert time.monotonic() < end
                time.sleep(0.2)

    def kill(self, how: int = signal.SIGKILL) -> None:
        """Signal all of its processes; SIGSTOP makes it one that takes requests and never answers."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, how)
        if how == signal.SIGKILL:
            self.process.wait()
