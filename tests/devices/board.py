"""An emulated Arm board with sshd and adbd on this machine: python -m tests.devices.board up FOLDER, and down FOLDER.

Debian's arm64 Python runs in qemu, `uname` too; the other commands of the board's PATH are this machine's (a shell of
Debian, not of Android). What /proc and /sys say of an Arm board lies below QUANTIZATION_GRID_SYSROOT.  Times measured on it
mean nothing; outputs do.  tests/devices/serving.py lists the faults.
"""

import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.devices import facts, parts, serving

NATIVE = (
    "[ awk basename bash cat chmod cksum cmp cp cut date dd df dirname du echo env expr false find flock free getconf grep "
    "gzip head hostname id kill ln ls md5sum mkdir mktemp mv nice nohup nproc ps pwd readlink renice rm rmdir sed seq "
    "setsid sh sha256sum sleep sort stat sync tail tar taskset tee test timeout touch tr true uniq uptime wc which xargs"
).split()
LOCAL_TMP = "/data/local/tmp"
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
        """The board with this fault; it is applied when the block begins, and gone after it."""
        file = self.folder / "faults" / name
        file.write_text(text)
        try:
            self.settle()
            yield
        finally:
            file.unlink()
            self.settle()

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

    def settle(self) -> None:
        """Wait until the faults are applied, and those that should listen do."""
        end, faults = time.monotonic() + WAIT_S, {file.name for file in (self.folder / "faults").iterdir()}
        applied = self.folder / "applied"
        while not applied.exists() or set(applied.read_text().split()) != faults:
            after(end, f"faults {faults} are not applied; {self.folder}/servers.log")
        for port in (self.ssh_port, self.adb_port):
            while ("refuse" in faults) == accepts(port):
                after(end, f"port {port}; {self.folder}/servers.log")


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
    facts.write(folder / "sysroot")
    write_commands(folder, place)
    write_ssh(folder)
    say(f"start: {folder}")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with (folder / "servers.log").open("a") as log:
        server = subprocess.Popen(
            [*namespace(folder), sys.executable, "-m", "tests.devices.serving", str(folder), str(parent)],
            cwd=parts.ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    (folder / "pid").write_text(str(server.pid))
    board = started(folder)
    board.settle()
    say(f"ssh -F {board.ssh_config} board    {board.url}    {board.adb} -s {board.serial} shell")
    return board


def down(folder: Path) -> None:
    """Stop the board, its connections and its commands."""
    with suppress(FileNotFoundError):
        board = started(folder.resolve())
        subprocess.run([board.adb, "kill-server"], capture_output=True, check=False)
        os.kill(board.server, signal.SIGTERM)
        end = time.monotonic() + WAIT_S
        while serves(board.server, board.folder):
            with suppress(ChildProcessError):
                os.waitpid(board.server, os.WNOHANG)
            after(end, f"process {board.server} does not end")
        (board.folder / "applied").unlink()


def started(folder: Path) -> Board:
    """The board that runs in this folder; raises FileNotFoundError."""
    server = int((folder / "pid").read_text())
    if not serves(server, folder):
        raise FileNotFoundError(f"no board runs in {folder}")
    ssh, adb = (folder / "ports").read_text().split()
    return Board(folder, int(ssh), int(adb), server)


def serves(server: int, folder: Path) -> bool:
    with suppress(OSError):
        return str(folder).encode() in Path(f"/proc/{server}/cmdline").read_bytes()
    return False


def namespace(folder: Path) -> list[str]:
    """The command under which the home is a small file system of its own; nothing where this machine forbids that.

    sshd must not run as a user namespace's root: it would try to become another user.
    """
    user, group = os.getuid(), os.getgid()
    mount = f'mount -t tmpfs -o size={serving.DISK_BYTES},mode=700 board "$0/home" && exec "$@"'
    for unshare, back in (
        (["unshare", "--mount"], ""),
        (["unshare", "--mount", "--map-root-user"], f"unshare --user --map-user={user} --map-group={group}"),
    ):
        command = [*unshare, "sh", "-c", mount, str(folder)]
        if subprocess.run([*command, *back.split(), "true"], capture_output=True, check=False).returncode == 0:
            (folder / "as_user").write_text(back)
            return command
    (folder / "as_user").write_text("")
    return []


def write_commands(folder: Path, place: Path) -> None:
    """The board's PATH, what sshd and adbd run, and the host's adb."""
    for name in NATIVE:
        link = folder / "bin" / name
        link.unlink(missing_ok=True)
        link.symlink_to(Path("/usr/bin") / name)
    emulated = f'exec "{place}/qemu/usr/bin/qemu-aarch64" -cpu cortex-a76 -0 "$0" -L "{place}/root" "{place}/root%s" "$@"'
    script(folder / "bin/uname", emulated % "/bin/uname")
    script(folder / "python/python3", emulated % "/usr/bin/python3.11")
    script(
        folder / "login",
        f"""board="{folder}"
while [ -e "$board/faults/hang" ]; do sleep 0.05; done
path="$board/bin:$board/python"
if [ -e "$board/faults/no-python" ]; then path="$board/bin"; fi
cd "$board/home"
set -- "$(id -un)" "$SSH_ORIGINAL_COMMAND"
exec env -i HOME="$board/home" USER="$1" LOGNAME="$1" SHELL=/bin/sh LANG=C.UTF-8 PATH="$path" \\
    QUANTIZATION_GRID_SYSROOT="$board/sysroot" /bin/sh ${{2:+-c "$2"}}""",
    )
    libraries = ":".join(sorted({str(file.parent) for file in (place / "adb/usr/lib").rglob("lib*.so*")}))
    ssh_port, adb_port, server_port = free_ports(3)
    (folder / "ports").write_text(f"{ssh_port} {adb_port}")
    script(
        folder / "adb",
        f"""export LD_LIBRARY_PATH="{libraries}" ANDROID_ADB_SERVER_PORT={server_port} HOME="{folder}"
adb="{place}/adb/usr/lib/android-sdk/platform-tools/adb"
case "$1" in
kill-server) ;;
*) "$adb" connect 127.0.0.1:{adb_port} >/dev/null 2>&1 ;;  # a phone on a cable needs no connect
esac
exec "$adb" "$@\"""",
    )


def write_ssh(folder: Path) -> None:
    """Keys and configuration of both ends."""
    for name in ("host_key", "other_host_key", "client_key"):
        if not (folder / name).exists():
            parts.ran(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)])
    port = int((folder / "ports").read_text().split()[0])
    key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}")
    (folder / "authorized_keys").write_text((folder / "client_key.pub").read_text())
    (folder / "ssh_config").write_text(f"""Host board
  HostName 127.0.0.1
  Port {port}
Host board 127.0.0.1
  User {pwd.getpwuid(os.getuid()).pw_name}
  IdentityFile "{folder}/client_key"
  IdentitiesOnly yes
  UserKnownHostsFile "{folder}/known_hosts"
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
""")
    (folder / "sshd_config").write_text(f"""ListenAddress 127.0.0.1
Port {port}
AuthorizedKeysFile "{folder}/authorized_keys"
AuthenticationMethods publickey
PermitRootLogin prohibit-password
PermitUserEnvironment no
UsePAM no
StrictModes no
PidFile none
MaxStartups 100
ForceCommand "{folder}/login"
Subsystem sftp /usr/lib/openssh/sftp-server
""")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd's empty folder, which its service makes


def script(file: Path, text: str) -> None:
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


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


def after(end: float, why: str) -> None:
    """Wait a little; raise TimeoutError at the end."""
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
