"""An S3 server on this machine for tests, and a door before it that can be shut, cut or slow."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def s3_server(port: int | None = None, **environment: str) -> Iterator[tuple[int, subprocess.Popen]]:
    """A server in a process of its own, which answers; yields its port and process."""
    port = port or free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=os.environ | environment, **quiet)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server never answered"
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            time.sleep(0.05)
        yield port, process
    finally:
        process.kill()
        process.wait(30)


def s3_uri(port: int, path: str) -> str:
    """A URI that makes its bucket."""
    return f"s3://{path}?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1&allow_bucket_creation=true"


class Door:
    """Passes connections on to a port. ``cut_after``: bytes of a client after which all is broken off, once.

    ``shut``: nobody gets in. ``delay_s``: before each piece that is passed on. ``unanswered``: a request with such
    bytes in it reaches the server, and its answer nobody, once for each.
    """

    def __init__(self, port: int) -> None:
        self.target, self.delay_s, self.shut = port, 0.0, False
        self.cut_after: int | None = None
        self.unanswered: list[bytes] = []
        self.passed = 0
        self.open: set[socket.socket] = set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.shut = True
        self.listener.close()

    def cut(self) -> int:
        """Break off all connections that there are now, and let new ones in; returns how many there were."""
        ends = list(self.open)
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        return len(ends) // 2

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = None if self.shut else socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                server = None  # nobody listens behind the door
            if server is None:
                client.close()
                continue
            self.open |= {client, server}
            lost = threading.Event()
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(source, sink, source is client, lost), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counted: bool, lost: threading.Event) -> None:
        try:
            self._pass_on(source, sink, counted, lost)
        finally:
            self.open -= {source, sink}

    def _pass_on(self, source: socket.socket, sink: socket.socket, counted: bool, lost: threading.Event) -> None:
        with contextlib.suppress(OSError), source, sink:
            while piece := source.recv(1 << 16):
                found = next((mark for mark in self.unanswered if mark in piece), None) if counted else None
                if found is not None:
                    self.unanswered.remove(found)
                    lost.set()
                if not counted and lost.is_set():
                    for end in (source, sink):
                        end.shutdown(socket.SHUT_RDWR)
                    return
                if self.delay_s:
                    time.sleep(self.delay_s)
                if counted:
                    self.passed += len(piece)
                    if self.cut_after is not None and self.passed > self.cut_after:
                        self.shut = True
                if self.shut:
                    for end in (source, sink):
                        end.shutdown(socket.SHUT_RDWR)
                    return
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
