"""A PostgreSQL of its own on this machine, in a folder of its own, that can be killed and started again."""

import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.grid.storage.s3_server import free_port

USER, DATABASE = "grid", "mlflow"


def programs() -> Path | None:
    """The folder of initdb and postgres, of the newest version where there are several; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    named = shutil.which("initdb")
    return found[-1].parent if found else Path(named).parent if named else None


class Postgres:
    """Listens on one free port of 127.0.0.1 and asks for a password, which ``password_file`` has in libpq's form.

    The servers of PostgreSQL refuse to be root, and are the user ``postgres`` then: ``folder`` must be one that this
    user reaches.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.process = folder, free_port(), None
        self.account = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
        self.data, self.log, asked = folder / "data", folder / "postgres.txt", folder / "asked"
        self.password = secrets.token_hex(16)
        folder.mkdir(mode=0o755)
        asked.write_text(self.password)
        self.password_file = folder / "pgpass"
        self.password_file.touch(mode=0o600)
        self.password_file.write_text(f"127.0.0.1:*:*:{USER}:{self.password}\n")
        if self.account:
            shutil.chown(folder, "postgres")
            shutil.chown(asked, "postgres")
        self._run("initdb", "-D", str(self.data), "-U", USER, "-A", "scram-sha-256", f"--pwfile={asked}", "-N")
        asked.unlink()

    def start(self) -> None:
        """Start it, and recover what a kill left; it answers then, and has the database."""
        command = [str(programs() / "postgres"), "-D", str(self.data), "-p", str(self.port)]
        for setting in ("listen_addresses=127.0.0.1", "unix_socket_directories="):
            command += ["-c", setting]
        end = time.monotonic() + 60
        while True:  # processes of a killed one may need a moment to end, and it does not start before
            with self.log.open("a") as output:
                self.process = subprocess.Popen(
                    command, cwd=self.folder, stdout=output, stderr=output, start_new_session=True, **self.account
                )
            while self.process.poll() is None:
                if self._asks("select 1", "postgres") == 0:
                    if self._asks("select 1", DATABASE):
                        assert self._asks(f"create database {DATABASE}", "postgres") == 0
                    return
                time.sleep(0.1)
            assert time.monotonic() < end, self.log.read_text()[-2000:]
            time.sleep(0.2)

    def kill(self) -> None:
        """Kill the process that all others of it watch: they end by themselves, and nothing is written down."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def dump(self) -> str:
        """All that is in the database, as text."""
        done = self._client("pg_dump", DATABASE)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _asks(self, question: str, database: str) -> int:
        return self._client("psql", database, "-qAt", "-c", question).returncode

    def _client(self, program: str, database: str, *more: str) -> subprocess.CompletedProcess[str]:
        command = [
            str(programs() / program),
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-U",
            USER,
            "-w",
            *more,
            database,
        ]
        environment = os.environ | {"PGPASSFILE": str(self.password_file)}
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(programs() / program), *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, **self.account)
        assert done.returncode == 0, done.stderr
