"""The device's end of adb, for the board: python -m tests.devices.adbd FOLDER.

It speaks the protocol of AOSP's packages/modules/adb (protocol.txt, SERVICES.TXT, SYNC.TXT, shell_protocol.h) to a real
adb: `shell` with and without exit status, `exec-out`, `exec-in`, `push`, `pull`.  With the fault `unauthorized` it asks
for a signature and takes none, with `offline` it never answers.  `/data/local/tmp` in commands and paths is the board's
home.  A connection is a process of its own, so that it can be cut.
"""

import os
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

CNXN, AUTH, OPEN, OKAY, CLSE, WRTE = (
    int.from_bytes(name, "little") for name in b"CNXN AUTH OPEN OKAY CLSE WRTE".split()
)
VERSION, MOST = 0x01000000, 256 * 1024
BANNER = b"device::ro.product.name=board;ro.product.model=Emulated;ro.product.device=board;features=shell_v2,cmd\0"
TOKEN, PUBLIC_KEY = 1, 3
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
"""Packets of the shell protocol."""
CHUNK = 64 * 1024
LOCAL_TMP = "/data/local/tmp"


@dataclass
class Stream:
    """One service on a connection; bytes from the host come as blocks, an empty one is the end."""

    link: "Link"
    here: int
    there: int
    blocks: "queue.SimpleQueue[bytes]" = field(default_factory=queue.SimpleQueue)
    ready: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    rest: bytes = b""
    closed: bool = False

    def write(self, data: bytes) -> None:
        """Send, each packet when the last one is acknowledged; BrokenPipeError when the host has gone."""
        for begin in range(0, len(data), CHUNK):
            self.link.send(WRTE, self.here, self.there, data[begin : begin + CHUNK])
            self.ready.acquire()
            if self.closed:
                raise BrokenPipeError

    def some(self) -> bytes:
        """What has come, at least one byte; empty at the end."""
        block, self.rest = self.rest or self.blocks.get(), b""
        return block

    def read(self, size: int) -> bytes:
        """So many bytes; EOFError at the end."""
        while len(self.rest) < size:
            block = self.blocks.get()
            if not block:
                raise EOFError
            self.rest += block
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken

    def end(self) -> None:
        """No more from the host."""
        self.closed = True
        self.blocks.put(b"")
        self.ready.release()


class Link:
    """One connection of an adb server."""

    def __init__(self, connection: socket.socket, folder: Path):
        self.connection, self.folder = connection, folder
        self.streams: dict[int, Stream] = {}
        self.lock = threading.Lock()

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        head = struct.pack("<6I", command, first, second, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF)
        with self.lock:
            self.connection.sendall(head + data)

    def serve(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                command, first, second, size, _, _ = struct.unpack("<6I", self.exactly(24))
                self.take(command, first, second, self.exactly(size))
        for stream in list(self.streams.values()):
            stream.end()

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.connection.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def take(self, command: int, first: int, second: int, data: bytes) -> None:
        stream = self.streams.get(second)
        if command in (CNXN, AUTH):
            if (self.folder / "faults/unauthorized").exists():
                if first != PUBLIC_KEY:  # which waits for somebody to press a button on the screen
                    self.send(AUTH, TOKEN, 0, os.urandom(20))
            elif not (self.folder / "faults/offline").exists():
                self.send(CNXN, VERSION, MOST, BANNER)
        elif command == OPEN:
            here = max(self.streams, default=0) + 1
            self.streams[here] = stream = Stream(self, here, first)
            threading.Thread(target=self.open, args=(stream, data.rstrip(b"\0").decode()), daemon=True).start()
        elif stream and command == WRTE:
            if data:
                stream.blocks.put(data)
            self.send(OKAY, stream.here, stream.there)
        elif stream and command == OKAY:
            stream.ready.release()
        elif stream and command == CLSE:
            stream.end()

    def open(self, stream: Stream, service: str) -> None:
        name, _, command = service.replace(LOCAL_TMP, str(self.folder / "home")).partition(":")
        kind, *options = name.split(",")
        with suppress(EOFError, OSError):
            if kind not in ("shell", "exec", "sync"):
                self.send(CLSE, 0, stream.there)
                return
            self.send(OKAY, stream.here, stream.there)
            if kind == "sync":
                sync(stream, self.folder)
            elif kind == "shell" and "v2" in options:
                shell(stream, started(self.folder, command, subprocess.PIPE))
            else:
                raw(stream, started(self.folder, command, subprocess.STDOUT))
        with suppress(OSError):
            self.send(CLSE, stream.here, stream.there)


def started(folder: Path, command: str, stderr: int) -> "subprocess.Popen[bytes]":
    """A command of the board, interpreted by its shell."""
    return subprocess.Popen(
        [str(folder / "login")],
        env={**os.environ, "SSH_ORIGINAL_COMMAND": command},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
    )


def shell(stream: Stream, process: "subprocess.Popen[bytes]") -> None:
    """The shell protocol: output, errors and exit status apart.  The command is killed when the host goes."""
    one_at_a_time = threading.Lock()

    def pump(kind: int, pipe) -> None:
        with suppress(BrokenPipeError):
            while data := pipe.read1(CHUNK):
                with one_at_a_time:
                    stream.write(struct.pack("<BI", kind, len(data)) + data)

    def feed() -> None:
        with suppress(EOFError):
            while True:
                kind, size = struct.unpack("<BI", stream.read(5))
                data = stream.read(size)
                with suppress(OSError, ValueError):
                    if kind == STDIN:
                        process.stdin.write(data)
                        process.stdin.flush()
                    elif kind == CLOSE_STDIN:
                        process.stdin.close()
        process.kill()

    pumps = [threading.Thread(target=pump, args=one) for one in ((STDOUT, process.stdout), (STDERR, process.stderr))]
    threading.Thread(target=feed, daemon=True).start()
    for one in pumps:
        one.start()
    for one in pumps:
        one.join()
    status = process.wait()
    stream.write(struct.pack("<BIB", EXIT, 1, status if status >= 0 else 128 - status))


def raw(stream: Stream, process: "subprocess.Popen[bytes]") -> None:
    """exec-out and exec-in: output and errors together, and no exit status."""

    def feed() -> None:
        with suppress(OSError, ValueError):
            while data := stream.some():
                process.stdin.write(data)
                process.stdin.flush()
        with suppress(OSError):
            process.stdin.close()

    threading.Thread(target=feed, daemon=True).start()
    while data := process.stdout.read1(CHUNK):
        stream.write(data)
    process.wait()


def sync(stream: Stream, folder: Path) -> None:
    """The file service behind push and pull."""
    while True:
        name, size = struct.unpack("<4sI", stream.read(8))
        argument = stream.read(size).decode().replace(LOCAL_TMP, str(folder / "home"))
        match name:
            case b"STAT":
                try:
                    stat = os.lstat(argument)
                    found = stat.st_mode, stat.st_size, int(stat.st_mtime)
                except OSError:
                    found = 0, 0, 0
                stream.write(struct.pack("<4s3I", b"STAT", *found))
            case b"SEND":
                path, _, mode = argument.rpartition(",")
                if failure := received(stream, Path(path), int(mode)):
                    stream.write(struct.pack("<4sI", b"FAIL", len(failure)) + failure)
                else:
                    stream.write(struct.pack("<4sI", b"OKAY", 0))
            case b"RECV":
                try:
                    with open(argument, "rb") as file:
                        while data := file.read(CHUNK):
                            stream.write(struct.pack("<4sI", b"DATA", len(data)) + data)
                    stream.write(struct.pack("<4sI", b"DONE", 0))
                except FileNotFoundError as error:
                    failure = f"open failed: {error.strerror}".encode()
                    stream.write(struct.pack("<4sI", b"FAIL", len(failure)) + failure)
            case _:
                return


def received(stream: Stream, path: Path, mode: int) -> bytes:
    """Write a file as it comes; what went wrong, as adbd words it.  What comes after that is read and thrown away."""
    data = blocks(stream)
    step = "couldn't create file"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with open(path, "wb", buffering=0) as file:
            step = "write failed"
            for block in data:
                while block:
                    block = block[file.write(block) :]  # short where the disk is nearly full
        path.chmod(mode & 0o777)
    except OSError as error:
        path.unlink(missing_ok=True)
        for _ in data:
            pass
        return f"{step}: {error.strerror}".encode()
    return b""


def blocks(stream: Stream) -> Iterator[bytes]:
    while (head := struct.unpack("<4sI", stream.read(8)))[0] == b"DATA":
        yield stream.read(head[1])


def listen(folder: Path) -> None:
    port = int((folder / "ports").read_text().split()[1])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended connections leave nothing behind
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            connection, _ = server.accept()
            with connection:
                if os.fork() == 0:
                    server.close()
                    Path("/proc/self/comm").write_text("adbd")
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    Link(connection, folder).serve()
                    os._exit(0)


if __name__ == "__main__":
    listen(Path(sys.argv[1]))
