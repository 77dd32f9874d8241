"""A device at work: it is probed, gets files by their SHA-256, and runs networks with the file that runs there."""

import io
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from grid.devices.address import Device
from grid.devices.facts import PROBE, Facts
from grid.devices.transport import DeviceError, Transport
from grid.paths import DEVICE_SCRIPT
from model.files import file_sha256
from model.progress import Progress, ignore_progress

SILENCE_S = 180.0
"""A runner that says nothing for so long has hung: it speaks after each forward, and while it loads two files."""
_NO_PYTHON = (127, 126)


@dataclass(frozen=True)
class File:
    """A network's file of the host, the engine that runs it on a device, and the libraries that the device lacks."""

    path: Path
    engine: str
    libraries: tuple[Path, ...] = ()


class Board:
    """One device; ``sent`` counts the bytes that were sent to it."""

    def __init__(self, device: Device, progress: Progress = ignore_progress) -> None:
        self.device, self.progress = device, progress
        self.wire = Transport(device)
        self.there: dict[Path, str] = {}
        self.sent = 0

    def probe(self) -> Facts:
        """What the device says of itself now."""
        return Facts.read(self.wire.run(PROBE, timeout_s=60.0).decode(errors="replace"))

    def runtimes(self) -> dict[str, Any]:
        """Python and the runtimes that it has there, by name and version; raises DeviceError without Python."""
        return self.ask({"do": "probe"})

    def push(self, file: Path) -> str:
        """The path of a file there, named after its SHA-256; what is there and whole is not sent again."""
        if file not in self.there:
            sha256 = file_sha256(file)
            path = f"{sha256}{file.suffix}"
            if self._hash(path) != sha256:
                self.wire.put(file, path)
                self.sent += file.stat().st_size
                if self._hash(path) != sha256:
                    raise DeviceError(f"{self.device.name}: {file.name} arrived there with other bytes; try again")
            self.there[file] = path
        return self.there[file]

    def time(
        self, files: list[File], example: Path, cores: tuple[int, ...], threads: int, plan: dict[str, Any]
    ) -> tuple[np.ndarray, float]:
        """Seconds of each file in each round [rounds, files] of one fresh process, and until its first forward."""
        request = {"do": "time", "files": [self._file(one) for one in files], "example": self.push(example)}
        answer = self.ask({**request, "cores": list(cores), "threads": threads, **plan})
        return np.array(answer["times"]), float(answer["ready_s"])

    def outputs(
        self, file: File, inputs: Path, cores: tuple[int, ...], threads: int, shapes: Sequence[Sequence[int]] = ()
    ) -> tuple[list[np.ndarray], float]:
        """What a network gives for inputs [N, C, H, W] (.npy), in the file's order, and the memory in MB it takes.

        ``shapes`` are those of its outputs for one input, for devices that do not tell them.
        """
        out = f"outputs-{file_sha256(file.path)[:16]}-{file_sha256(inputs)[:16]}.npz"
        request = {"do": "outputs", "file": self._file(file), "inputs": self.push(inputs), "out": out}
        answer = self.ask({**request, "cores": list(cores), "threads": threads})
        with np.load(io.BytesIO(self.wire.get(out))) as found:  # allow_pickle is off
            outputs = [found[f"output_{place}"] for place in range(len(found.files))]
        self.wire.run(f"{self.wire.at_home} && rm -f {shlex.quote(out)}")
        return outputs, float(answer["memory_mb"])

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer of the runner there; raises DeviceError with what it complains about."""
        script, python = self.push(DEVICE_SCRIPT), shlex.quote(self.device.python)
        answers: list[dict[str, Any]] = []
        command = f"{self.wire.at_home} && exec {python} -u {shlex.quote(script)}"
        try:
            self.wire.follow(command, self._heard(answers), json.dumps(request).encode(), SILENCE_S)
        except DeviceError as error:
            if answers and "error" in answers[-1]:
                raise self._complaint(answers[-1], request) from None
            if error.status in _NO_PYTHON:
                problem = f"{self.device.name}: there is no {self.device.python} that runs"
                raise DeviceError(f"{problem}. Install Python there, or name it: ...?python=PATH") from None
            raise
        if not answers or "answer" not in answers[-1]:
            raise DeviceError(f"{self.device.name}: its runner ended without an answer")
        found: dict[str, Any] = answers[-1]["answer"]
        return found

    def _heard(self, answers: list[dict[str, Any]]) -> Callable[[bytes], None]:
        def heard(line: bytes) -> None:
            try:
                content = json.loads(line)
            except ValueError:
                return  # a library of the runtime speaks
            if not isinstance(content, dict):
                return
            self.progress({str(name): float(figure) for name, figure in content.get("beat", {}).items()})
            if "answer" in content or "error" in content:
                answers.append(content)

        return heard

    def _complaint(self, answer: dict[str, Any], request: dict[str, Any]) -> DeviceError:
        text, name = str(answer["error"]), self.device.name
        if full := self.wire.disk_full(text):
            return full
        if "No module named" in text or "has no attribute 'Interpreter'" in text:
            engines = {one["engine"] for one in request.get("files", [request.get("file", {})]) if one.get("engine")}
            packages = "numpy" if "numpy" in text else " and ".join(sorted(engines)) or "numpy"
            return DeviceError(f"{name}: its {self.device.python} lacks a package of {packages} ({text})")
        return DeviceError(f"{name}: {text}")

    def _file(self, file: File) -> dict[str, Any]:
        libraries = [self.push(library) for library in file.libraries]
        return {"path": self.push(file.path), "engine": file.engine, "libraries": libraries}

    def _hash(self, path: str) -> str:
        """The SHA-256 of a file there; empty where it is not there."""
        quoted = shlex.quote(path)
        text = self.wire.run(f"{self.wire.at_home} && if [ -f {quoted} ]; then sha256sum {quoted}; fi")
        return text.decode(errors="replace").split(" ")[0].strip().lstrip("\\")
