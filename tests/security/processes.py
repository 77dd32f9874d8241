"""What the processes of a run show to others: the addresses on which they listen, and their command lines."""

import contextlib
import socket
import struct
from pathlib import Path

LISTENS = "0A"


def family(root: int) -> set[int]:
    """A process and all that descend from it."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = {root}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def command_line(process: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def listening(processes: set[int]) -> dict[tuple[str, int], int]:
    """The TCP addresses and ports on which these processes listen, with the process of each."""
    owners = {}
    for process in processes:
        with contextlib.suppress(OSError):
            for descriptor in Path(f"/proc/{process}/fd").iterdir():
                with contextlib.suppress(OSError):
                    owners[str(descriptor.readlink())] = process
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, place, _, state, *rest = line.split()
            owner = owners.get(f"socket:[{rest[5]}]")
            if state == LISTENS and owner is not None:
                address, _, port = place.partition(":")
                found[_readable(address), int(port, 16)] = owner
    return found


def _readable(address: str) -> str:
    """``0100007F`` -> ``127.0.0.1``: words of four bytes, each in the machine's order."""
    words = (address[start : start + 8] for start in range(0, len(address), 8))
    packed = b"".join(struct.pack("=I", int(word, 16)) for word in words)
    text = socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)
    return text.removeprefix("::ffff:")
