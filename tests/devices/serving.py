"""The running board: keeps sshd and adbd going and applies the faults whose files stand in FOLDER/faults.

    no-python     python3 is not found (bin/login sees to it)
    disk-full     the board's disk is full; the file's text: bytes that are left
    hang          no command goes on: those that run are stopped, new ones do not begin
    freeze        nothing goes on: sshd and adbd neither, though the kernel still accepts connections
    die           connections end as soon as they are seen; the file's text: seconds that each lives
    power         as `die`, and every command of the board is killed with them
    host-key      sshd has another host key
    refuse        neither sshd nor adbd listens; the connections of adbd end (sshd's live on), as when a cable is pulled
    unauthorized  adbd does not know the host's key
    offline       adbd does not answer the host's greeting

What is applied stands in FOLDER/applied.  This process runs in a mount namespace, where one is to be had: the board's
home is a file system of DISK_BYTES there.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.devices import facts
from tests.devices.parts import ROOT, SSHD

DISK_BYTES = 96 * 2**20
EVERY_S = 0.02
ADBD = "tests.devices.adbd"
ADB_STATES = {"refuse": "attached\n\n", "unauthorized": "\tunauthorized", "offline": "\toffline"}
"""What `adb devices` says with a fault; after a change of these adb must connect again."""
SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER: whatever loses its parent on the board stays below this process."""


@dataclass
class Servers:
    """sshd and adbd of one board, and since when each of their connections is there."""

    folder: Path
    running: dict[tuple[str, ...], subprocess.Popen[bytes]] = field(default_factory=dict)
    seen: dict[int, float] = field(default_factory=dict)

    def want(self, commands: list[tuple[str, ...]]) -> None:
        """Start and stop servers until these run."""
        for command in set(self.running) - set(commands):
            server = self.running.pop(command)
            server.kill()
            server.wait()
        for command in commands:
            if command not in self.running or self.running[command].poll() is not None:
                with (self.folder / "servers.log").open("a") as log:
                    self.running[command] = subprocess.Popen(
                        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                    )

    def connections(self, of: str = "") -> list[int]:
        """Processes of sshd and adbd, each for one connection; those of one of the two."""
        return [pid for pid, kind in self.kinds().items() if kind.startswith(of or ("sshd", "adbd"))]

    def commands(self) -> list[int]:
        """Processes that the board's user started."""
        return [pid for pid, kind in self.kinds().items() if kind == "command"]

    def kinds(self) -> dict[int, str]:
        """Everything that runs on the board but the two servers: sshd, adbd or command."""
        listening = {server.pid for server in self.running.values()}
        return {
            pid: name[:4] if name.startswith(("sshd", "adbd")) else "command"
            for pid, name in processes().items()
            if pid not in listening
        }

    def cut(self, after_s: float) -> None:
        """End connections of this age."""
        now = time.monotonic()
        self.seen = {pid: self.seen.get(pid, now) for pid in self.connections()}
        send(signal.SIGKILL, [pid for pid, since in self.seen.items() if now - since >= after_s])


def serve(folder: Path, parent: int) -> None:
    """Serve until SIGTERM, or until the process `parent` is gone (0: none)."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    os.sched_setaffinity(0, {core for cluster in facts.cores() for core in cluster})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    servers, before = Servers(folder), None
    try:
        while not parent or Path(f"/proc/{parent}").exists():
            faults = {file.name: text(file) for file in (folder / "faults").iterdir()}
            servers.want(wanted(folder, faults))
            if faults or faults != before:  # looking through /proc takes milliseconds
                apply(servers, faults)
            if faults != before:
                if set(ADB_STATES) & (set(faults) ^ set(before or ())):
                    send(signal.SIGKILL, servers.connections("adbd"))
                (folder / "applied.part").write_text("\n".join(sorted(faults)))
                (folder / "applied.part").rename(folder / "applied")
                before = faults
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:  # those that lost their parents
                    pass
            time.sleep(EVERY_S)
    finally:
        send(signal.SIGKILL, list(processes()))
        subprocess.run([folder / "adb", "kill-server"], capture_output=True, check=False)


def wanted(folder: Path, faults: dict[str, str]) -> list[tuple[str, ...]]:
    """The servers' commands."""
    if "refuse" in faults:
        return []
    key = "other_host_key" if "host-key" in faults else "host_key"
    prefix = (folder / "as_user").read_text().split()
    return [
        (*prefix, str(SSHD), "-D", "-e", "-f", str(folder / "sshd_config"), "-h", str(folder / key)),
        (*prefix, sys.executable, "-m", ADBD, str(folder)),
    ]


def apply(servers: Servers, faults: dict[str, str]) -> None:
    """Bring the board into the state that these faults ask for."""
    folder = servers.folder
    stopped = "freeze" in faults
    send(signal.SIGSTOP if stopped or "hang" in faults else signal.SIGCONT, servers.commands())
    listening = [server.pid for server in servers.running.values()]
    send(signal.SIGSTOP if stopped else signal.SIGCONT, [*listening, *servers.connections()])
    if "die" in faults or "power" in faults:
        servers.cut(float(faults.get("die") or 0))
    if "power" in faults:
        send(signal.SIGKILL, servers.commands())
    fill(folder / "home", int(faults["disk-full"] or 0) if "disk-full" in faults else None)


def fill(home: Path, left_bytes: int | None) -> None:
    """Fill the board's disk but for so many bytes, also what is freed meanwhile; None: give the room back."""
    filler = home / ".filler"
    if left_bytes is None:
        filler.unlink(missing_ok=True)
    elif not os.path.ismount(home):
        raise RuntimeError(f"{home} is no file system of its own; filling it would fill this machine's disk")
    else:
        disk = os.statvfs(home)
        more = disk.f_bavail * disk.f_frsize - left_bytes
        if more > 0:
            with filler.open("ab") as file, suppress(OSError):  # another one was faster: it is full
                os.posix_fallocate(file.fileno(), file.tell(), more)


def processes() -> dict[int, str]:
    """Everything that runs on the board, by name: all descendants of this process."""
    names, parents = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, _, rest = stat.read_text().partition(" (")
            name, _, fields = rest.rpartition(") ")
            if not fields.startswith("Z"):
                names[int(pid)], parents[int(pid)] = name, int(fields.split()[1])
    here = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in here} - here:
        here |= more
    return {pid: names[pid] for pid in here - {os.getpid()}}


def send(number: signal.Signals, pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
