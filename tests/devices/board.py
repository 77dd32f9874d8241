"""An emulated Arm board with sshd and adbd on this machine: python -m tests.devices.board up FOLDER, and down FOLDER.

Debian's arm64 Python runs in qemu, `uname` too; the other commands of the board's PATH are this machine's, over adb as
well (Debian's, not Android's).  What /proc and /sys say of an Arm board lies below QUANTIZATION_GRID_SYSROOT.  Times
measured on it mean nothing; outputs do.  tests/devices/serving.py lists the faults.
"""

import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.devices import facts, files, parts, serving

WAIT_S = 20.0


@dataclass(frozen=True)
class Board:
    """A running board, seen from its host."""

    folder: Path
    ssh_port: int
    adb_port: int
    server: int
    """Process of tests/devices/serving.py."""

    @property
    def user(self) -> str:
        return pwd.getpwuid(os.getuid()).pw_name

    @property
    def url(self) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.ssh_port}"

    @property
    def ssh_config(self) -> Path:
        """For `ssh -F`: key, known hosts, StrictHostKeyChecking=yes; the host `board`, or 127.0.0.1 with its port."""
        return self.folder / "ssh_config"

    @property
    def adb(self) -> Path:
        """Debian's adb 29 with a server of its own."""
        return self.folder / "adb"

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self.adb_port}"

    @property
    def home(self) -> Path:
        """The board's home, which is `FOLDER/home` there and `/data/local/tmp` over adb."""
        return Path(f"/proc/{self.server}/root{self.folder}/home")

    @property
    def has_small_disk(self) -> bool:
        """Whether its home is a file system of its own, which the fault disk-full needs."""
        return self.home.stat().st_dev != self.folder.stat().st_dev

    def ssh(self, command: str, stdin: bytes = b"", timeout_s: float = 60, options: tuple[str, ...] = ()):
        """What a command on the board gives."""
        line = ["ssh", "-F", str(self.ssh_config), "-o", "BatchMode=yes", *options, "board", command]
        return subprocess.run(line, input=stdin, capture_output=True, timeout=timeout_s, check=False)

    def run_adb(self, *arguments: str, stdin: bytes = b"", timeout_s: float = 60):
        """What adb gives, with this board's serial."""
        line = [str(self.adb), "-s", self.serial, *arguments]
        return subprocess.run(line, input=stdin, capture_output=True, timeout=timeout_s, check=False)

    @contextmanager
    def fault(self, name: str, text: str = "") -> Iterator[None]:
        """The board with this fault; it is applied when the block begins, and gone after it.

        Raises `parts.Unavailable` for disk-full where the board has no disk of its own.
        """
        if name == "disk-full" and not self.has_small_disk:
            raise parts.Unavailable("this machine allows no mount namespace; the board's home is on its disk")
        file = self.folder / "faults" / name
        written = self.folder / f"{name}.part"
        written.write_text(text)
        written.rename(file)  # there whole or not at all
        try:
            self.settle(name)
            yield
        finally:
            file.unlink()
            self.settle(name)

    @contextmanager
    def fact(self, name: str, text: str) -> Iterator[None]:
        """The board with this text in a file of /proc or /sys, by its path on a real board."""
        file = self.folder / "sysroot" / name.lstrip("/")
        before = file.read_text()
        file.write_text(text)
        try:
            yield
        finally:
            file.write_text(before)

    def settle(self, changed: str = "") -> None:
        """Wait until the faults are applied, those that should listen do, and adb knows of its device what there is."""
        faults = {file.name for file in (self.folder / "faults").iterdir()}
        applied, log = self.folder / "applied", f"see {self.folder}/servers.log"
        until(lambda: applied.exists() and set(applied.read_text().split()) == faults, f"faults {faults}: {log}")
        for port in (self.ssh_port, self.adb_port):
            until(lambda port=port: accepts(port) != ("refuse" in faults), f"port {port}: {log}")
        if changed in serving.ADB_STATES:
            subprocess.run([self.adb, "disconnect", self.serial], capture_output=True, check=False)
            state = next((name for fault, name in serving.ADB_STATES.items() if fault in faults), "\tdevice")
            until(lambda: state.encode() in self.run_adb("devices").stdout, f"adb does not say {state}: {log}")


def up(folder: Path, say: parts.Say = print, parent: int = 0) -> Board:
    """Set the board up in `folder`, which is made, and start it; it ends with `down`, or with the process `parent`.

    Raises `parts.Unavailable`.
    """
    folder = folder.resolve()
    with suppress(FileNotFoundError):
        return started(folder)
    place = parts.parts(say)
    for name in ("bin", "python", "home", "faults"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "applied").unlink(missing_ok=True)
    facts.write(folder / "sysroot")
    ssh_port, adb_port, adb_server_port = free_ports(3)
    (folder / "ports").write_text(f"{ssh_port} {adb_port}")
    files.commands(folder, place)
    files.adb(folder, place, adb_port, adb_server_port)
    files.ssh(folder, ssh_port)
    say(f"start: {folder}")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with (folder / "servers.log").open("a") as log:
        server = subprocess.Popen(
            [*files.namespace(folder), sys.executable, "-m", "tests.devices.serving", str(folder), str(parent)],
            cwd=parts.ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    (folder / "pid").write_text(str(server.pid))
    board = described(folder)
    board.settle()
    say(f"ssh -F {board.ssh_config} board    {board.url}    {board.adb} -s {board.serial} shell")
    return board


def down(folder: Path) -> None:
    """Stop the board, its connections and its commands."""
    with suppress(FileNotFoundError):
        board = started(folder.resolve())
        os.kill(board.server, signal.SIGTERM)
        until(lambda: not serves(board.server, board.folder), f"process {board.server} does not end")


def started(folder: Path) -> Board:
    """The board that runs in this folder; raises FileNotFoundError."""
    board = described(folder)
    if not serves(board.server, folder):
        raise FileNotFoundError(f"no board runs in {folder}")
    return board


def described(folder: Path) -> Board:
    ssh, adb = (folder / "ports").read_text().split()
    return Board(folder, int(ssh), int(adb), int((folder / "pid").read_text()))


def serves(server: int, folder: Path) -> bool:
    with suppress(OSError):
        return str(folder).encode() in Path(f"/proc/{server}/cmdline").read_bytes()
    return False


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def accepts(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def until(happened: Callable[[], bool], why: str = "it did not happen") -> None:
    """Wait; raises TimeoutError."""
    end = time.monotonic() + WAIT_S
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(why)
        time.sleep(0.02)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["up", folder]:
            up(Path(folder))
        case ["down", folder]:
            down(Path(folder))
        case _:
            sys.exit("python -m tests.devices.board up|down FOLDER")
