"""An MLflow server on PostgreSQL with its files in an S3 server, and a door before each of the three."""

import importlib.util
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

from tests.faults.mlflow_server import Server
from tests.faults.servers.objects import ObjectServer
from tests.faults.servers.postgres import DATABASE, USER, Postgres, programs
from tests.grid.storage.s3_server import Door

INSTALLED = Path(sys.prefix) / "servers"
"""Where ``make faults`` puts what the servers need and the product does not."""
BUCKET = "mlflow"


def missing() -> str:
    """What is not installed of what this needs; "" where nothing is."""
    lacks = []
    if programs() is None:
        lacks.append("PostgreSQL (apt-get install postgresql)")
    has_psycopg = (INSTALLED / "psycopg").is_dir() or importlib.util.find_spec("psycopg") is not None
    if weed() is None or not has_psycopg:
        lacks.append(f"the packages of requirements-faults.txt in {INSTALLED} (make faults installs them)")
    return f"not installed: {', '.join(lacks)}" if lacks else ""


def weed() -> Path | None:
    """The program of SeaweedFS."""
    found = shutil.which("weed", path=f"{INSTALLED}/bin") or shutil.which("weed")
    return Path(found) if found else None


class RealServers:
    """All three, as a context; ``uri`` is the tracking URI, through its door."""

    def __init__(self, folder: Path) -> None:
        program = weed()
        assert program is not None
        self.scratch = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))  # the user postgres has to reach it
        self.scratch.chmod(0o755)
        self.postgres = Postgres(self.scratch / "cluster")
        self.objects = ObjectServer(folder / "objects", program)
        self.doors = {"postgres": Door(self.postgres.port), "objects": Door(self.objects.port)}
        self.mlflow = Server(
            folder / "mlflow",
            f"postgresql://{USER}@127.0.0.1:{self.doors['postgres'].port}/{DATABASE}",
            f"s3://{BUCKET}/files",
            {
                "PGPASSFILE": str(self.postgres.password_file),
                "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{self.doors['objects'].port}",
                "PYTHONPATH": str(INSTALLED),
                **self.objects.environment,
            },
        )
        self.doors["mlflow"] = Door(self.mlflow.port)
        self.uri = f"http://127.0.0.1:{self.doors['mlflow'].port}"

    def __enter__(self) -> Self:
        try:
            self.postgres.start()
            self.objects.start()
            self.objects.client().create_bucket(Bucket=BUCKET)
            self.mlflow.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        for door in self.doors.values():
            door.close()
        if self.mlflow.process is not None:
            self.mlflow.kill(signal.SIGKILL)
        for server in (self.objects, self.postgres):
            if server.process is not None:
                server.kill()
        self.objects.tidy()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def restart(self, name: str, away_s: float = 0.0) -> None:
        """Kill one of them and start it again after a while."""
        server = getattr(self, name)
        server.kill()
        time.sleep(away_s)
        server.start()

    def secrets(self) -> tuple[str, str]:
        """The password of the database, and the secret key of the S3 server."""
        return self.postgres.password, self.objects.environment["AWS_SECRET_ACCESS_KEY"]

    def shown(self, secret: str) -> list[str]:
        """Where a secret can be read that should not be there: command lines, what the servers said, the database."""
        lines = [path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if secret in _text(path)]
        logs = (self.postgres.log, self.objects.log, self.mlflow.log)
        database = ["the database"] if secret in self.postgres.dump() else []
        return [*lines, *(str(log) for log in logs if secret in _text(log)), *database]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""  # a process that has ended
