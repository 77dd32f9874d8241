"""The wire to a device: commands with input and output, and files, over the system's own ``ssh`` and ``adb``.

Commands are run by the device's shell. They are fixed texts of this package; paths in them are quoted.
"""

import contextlib
import os
import queue
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from grid.devices.address import ADB, SSH, Device
from model.errors import last_line

CONNECT_S = 15
"""How long a connection may take, and how long a device may be silent on one before it is given up."""
_SSH = (
    "-T",
    *("-o", "BatchMode=yes"),  # nobody is there to type a password
    *("-o", "StrictHostKeyChecking=yes"),
    *("-o", f"ConnectTimeout={CONNECT_S}"),
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
    *("-o", "LogLevel=ERROR"),
)
SSH_CONFIG = "QUANTIZATION_GRID_SSH_CONFIG"
"""A variable that names a configuration for ssh in place of the user's own."""
_SSH_FAILED = 255
_LOST_ADB = ("not found", "offline", "no devices", "closed", "cannot connect", "unauthorized")
_END = "::end"
"""What a phone says, with the status, behind all that a command has written."""
_FULL = ("no space left on device", "disk quota exceeded")


class DeviceError(RuntimeError):
    """What went wrong with a device, in one line that says what to do; ``status``: of a command that failed there."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class DeviceLost(DeviceError):
    """The device cannot be reached, or has gone."""


class Transport:
    """The wire to one device; every call is a connection of its own."""

    def __init__(self, device: Device) -> None:
        self.device = device
        tool = {SSH: "ssh", ADB: "adb"}.get(device.kind)
        if tool and shutil.which(tool) is None:
            package = {"ssh": "openssh-client", "adb": "adb"}[str(tool)]
            raise DeviceError(f"{device.name}: there is no {tool} on this machine; apt-get install {package}")

    def run(self, command: str, content: bytes | Path = b"", timeout_s: float = 60.0) -> bytes:
        """What a command writes; ``content`` is its input. Raises DeviceError."""
        lines: list[bytes] = []
        self.follow(command, lines.append, content, timeout_s)
        return b"".join(lines)

    def follow(
        self, command: str, heard: Callable[[bytes], None], content: bytes | Path = b"", silence_s: float = 60.0
    ) -> None:
        """Run a command and pass on each line that it writes; raises DeviceError, also after ``silence_s`` of none."""
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as complaints:
            if isinstance(content, bytes):
                given.write(content)
                given.seek(0)
            with contextlib.ExitStack() as stack:
                source = given if isinstance(content, bytes) else stack.enter_context(content.open("rb"))
                process = subprocess.Popen(
                    self._argv(command),
                    stdin=source,
                    stdout=subprocess.PIPE,
                    stderr=complaints,
                    start_new_session=True,
                )
                try:
                    status = self._pass_on(process, heard, silence_s)
                finally:
                    _end(process)
            complaints.seek(0)
            self._judge(status, complaints.read().decode(errors="replace"))

    def put(self, file: Path, path: str, timeout_s: float = 600.0) -> None:
        """Copy a file to ``path`` in the device's folder, whole or not at all."""
        part = shlex.quote(f"{path}.part")
        self.run(f"{self.at_home} && cat > {part} && mv {part} {shlex.quote(path)}", file, timeout_s)

    def get(self, path: str, timeout_s: float = 600.0) -> bytes:
        """The content of a file in the device's folder."""
        return self.run(f"{self.at_home} && cat {shlex.quote(path)}", timeout_s=timeout_s)

    @property
    def at_home(self) -> str:
        """The beginning of a command that runs in the device's folder."""
        folder = shlex.quote(self.device.folder)
        return f"mkdir -p {folder} && cd {folder}"

    def _argv(self, command: str) -> list[str]:
        device = self.device
        if device.kind == SSH:
            config = ["-F", os.environ[SSH_CONFIG]] if os.environ.get(SSH_CONFIG) else []
            port = ["-p", str(device.port)] if device.port else []
            return ["ssh", *config, *_SSH, *port, "--", device.host, command]
        if device.kind == ADB:  # which returns 0 where the device goes in the middle
            return ["adb", "-s", device.host, "shell", "-T", f"({command}); printf '\\n{_END} %s\\n' $?"]
        return ["sh", "-c", command]

    def _pass_on(self, process: "subprocess.Popen[bytes]", heard: Callable[[bytes], None], silence_s: float) -> int:
        """The status of a process whose lines are ``heard``."""
        lines: queue.Queue[bytes | None] = queue.Queue()

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        held, status = b"", 0
        ends = self.device.kind != ADB
        while True:
            try:
                line = lines.get(timeout=silence_s)
            except queue.Empty:
                raise DeviceLost(f"{self.device.name}: said nothing for {silence_s:g} s and was given up") from None
            if line is None:
                break
            if self.device.kind != ADB:
                heard(line)
            elif line.startswith(f"{_END} ".encode()):
                ends = True
                if held != b"\n":
                    heard(held[:-1])
                status = int(line.split()[1])
            else:
                if held:
                    heard(held)
                held = line
        if not ends and process.wait() == 0:
            raise DeviceLost(f"{self.device.name}: adb lost it in the middle of a command")
        try:
            process.wait(timeout=silence_s)
        except subprocess.TimeoutExpired:
            raise DeviceLost(f"{self.device.name}: did not end within {silence_s:g} s and was given up") from None
        return status or process.returncode

    def _judge(self, status: int, complaints: str) -> None:
        """Raise what a status other than 0 means."""
        if status == 0:
            return
        name, text = self.device.name, last_line(complaints)
        if self.device.kind == SSH and status == _SSH_FAILED:
            raise self._ssh_failure(complaints, text)
        if self.device.kind == ADB and (own := _complaint_of_adb(complaints)):
            hint = "Allow this computer on its screen" if "unauthorized" in own else "`adb devices` lists those there"
            raise DeviceLost(f"{name}: adb does not reach it ({own}). {hint}.")
        if full := self.disk_full(complaints):
            raise full
        raise DeviceError(f"{name}: a command ended with status {status}" + (f" ({text})" if text else ""), status)

    def disk_full(self, complaints: str) -> DeviceError | None:
        """The error that says so where complaints are about a full disk."""
        if not any(one in complaints.lower() for one in _FULL):
            return None
        text, folder = last_line(complaints), self.device.folder
        return DeviceError(f"{self.device.name}: its disk is full ({text}). Make room, or remove {folder} there.")

    def _ssh_failure(self, complaints: str, text: str) -> DeviceError:
        name, device = self.device.name, self.device
        lower = complaints.lower()
        port = f"-p {device.port} " if device.port else ""
        if "host identification has changed" in lower:
            host = device.host.rpartition("@")[2]
            hint = f"If that is right: ssh-keygen -R '{f'[{host}]:{device.port}' if device.port else host}'"
            return DeviceError(f"{name}: its host key is not the one that ssh knows; nothing was sent. {hint}")
        if "host key verification failed" in lower or "no matching host key" in lower:
            return DeviceError(f"{name}: ssh does not know its host key. Log in once by hand: ssh {port}{device.host}")
        if "permission denied" in lower:
            return DeviceError(f"{name}: ssh is not let in ({text}). A key helps: ssh-copy-id {port}{device.host}")
        return DeviceLost(f"{name}: ssh does not reach it ({text or 'the connection ended'}).")


def _complaint_of_adb(text: str) -> str:
    """The line in which adb itself says that there is no device; hints of several lines may follow it."""
    lines = (line.strip().rstrip(".") for line in text.splitlines())
    of_adb = (line for line in lines if line.startswith(("error:", "adb:")))
    return next((line[:200] for line in of_adb if any(one in line.lower() for one in _LOST_ADB)), "")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and what it started; nothing where it has ended."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
