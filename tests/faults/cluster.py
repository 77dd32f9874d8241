"""A Ray cluster of several nodes on this machine, each with its own folder, that share nothing but S3 and MLflow."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from grid.storage.uri import CACHE
from tests.grid.storage.s3_server import free_port

RAY = Path(sys.executable).parent / "ray"
STARTS_IN_S = 120
PARTS = {
    "head": ["--num-cpus=0"],
    "cpu": ["--num-cpus=1"],
    "gpu": ["--num-cpus=1", "--num-gpus=1"],  # says so, though torch finds none
    "profiler": ["--num-cpus=0", '--resources={"profiler": 1}'],
}


@dataclass
class Cluster:
    """Nodes by name; a node's name begins with its part (``cpu-2``)."""

    folder: Path
    port: int = field(default_factory=free_port)
    nodes: dict[str, subprocess.Popen] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def environment(self, name: str) -> dict[str, str]:
        """Of a machine of its own, as far as files go."""
        quick = {"RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "3000"}
        credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        loopback = {
            "RAY_AUTH_MODE": "token",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
            "RAY_worker_niceness": "0",
            "OMP_NUM_THREADS": "1",
        }
        return {**os.environ, **quick, **credentials, **loopback, CACHE: str(self.folder / name)}

    def add(self, name: str) -> None:
        """Start a node and wait until it says that it runs."""
        place = ["--head", f"--port={self.port}", "--include-dashboard=false"] if name == "head" else []
        place = place or [f"--address={self.address}"]
        command = [
            str(RAY),
            "start",
            *place,
            *PARTS[name.partition("-")[0]],
            f"--temp-dir=/tmp/r{self.port}-{name}",
            "--block",
        ]
        log = self.folder / f"{name}.txt"
        with log.open("w") as output:
            self.nodes[name] = subprocess.Popen(
                command, env=self.environment(name), stdout=output, stderr=output, start_new_session=True
            )
        end = time.monotonic() + STARTS_IN_S
        while "Ray runtime started" not in log.read_text():
            assert self.nodes[name].poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < end, log.read_text()[-2000:]
            time.sleep(0.2)

    def lose(self, name: str) -> None:
        """Kill -9 all processes of a node at once, as when its machine loses power."""
        node = self.nodes.pop(name)
        mark = f"{CACHE}={self.folder / name}\0".encode()
        for _ in range(3):
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    if mark in (folder / "environ").read_bytes() and int(folder.name) != os.getpid():
                        os.kill(int(folder.name), signal.SIGKILL)
                except OSError:
                    continue
            time.sleep(0.1)
        node.wait()

    def stop(self) -> None:
        for name in list(self.nodes):
            self.lose(name)

    def stages(self, name: str) -> set[str]:
        """Ids of the stages that a node has in its own folder: computed there, or fetched."""
        records = (self.folder / name).glob("*/stages/*/result.json")
        return {file.parent.name for file in records if re.fullmatch(r"[0-9a-f]+", file.parent.name)}
