"""A device without Python: LiteRT's own command line benchmark, ``benchmark_model``, runs the networks there.

Its flags and what it prints are those of google-ai-edge/LiteRT, tflite/tools/benchmark. It tells the mean of a process
for one network, so that networks take turns process by process.
"""

import random
import re
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grid.devices.address import Device
from grid.devices.board import SILENCE_S, Board, File
from grid.devices.transport import DeviceError
from model.errors import last_line
from model.files import file_sha256
from model.progress import Progress, ignore_progress

ENGINE = "litert"
"""What it runs."""
TURNS = 2
"""Processes of each network in a load."""
_TIMES = re.compile(r"Init: ([\d.e+]+), First inference: ([\d.e+]+),.*Inference \(avg\): ([\d.e+]+)")
_MEMORY = re.compile(r"Memory footprint delta.*overall=([\d.e+-]+)")
_NOTHING = "it printed nothing"
_INPUT = "image"
"""The name that the engine litert gives to the input of its files."""


class CommandLineBoard(Board):
    """One device without Python; ``device.benchmark`` is its ``benchmark_model``."""

    def runtimes(self) -> dict[str, Any]:
        """LiteRT alone; raises DeviceError where the benchmark is not there."""
        path = shlex.quote(self.device.benchmark)
        there = self.wire.run(f"{self.wire.at_home} && if [ -x {path} ]; then echo there; fi").strip()
        if there != b"there":
            problem = f"{self.device.name}: there is no {self.device.benchmark} that runs"
            raise DeviceError(f"{problem}. Copy LiteRT's benchmark_model there, and make it executable with chmod +x")
        return {"runtimes": {ENGINE: f"by {Path(self.device.benchmark).name}"}}

    def time(
        self, files: list[File], example: Path, cores: tuple[int, ...], threads: int, plan: dict[str, Any]
    ) -> tuple[np.ndarray, float]:
        """Mean seconds of each file in each turn [turns, files], and until the first forward of the first process."""
        image = self._inputs(example)[0]
        seconds = plan["seconds"] / TURNS / len(files)
        flags = {
            "warmup_runs": plan["warmup"],
            "num_runs": plan["fewest"],
            "min_secs": f"{seconds:g}",
            "max_secs": f"{max(2 * seconds, SILENCE_S / 2):g}",
        }
        order, ready_s = random.Random(plan["number"]), 0.0
        turns = np.zeros((TURNS, len(files)))
        for turn in turns:
            for place in order.sample(range(len(files)), len(files)):
                said = self._run(files[place], image, cores, threads, flags)
                found = _TIMES.search(said)
                if found is None:
                    last = last_line(said) or _NOTHING
                    raise DeviceError(f"{self.device.name}: its benchmark told no times ({last})")
                init_us, first_us, mean_us = map(float, found.groups())
                turn[place] = 1e-6 * mean_us
                ready_s = ready_s or 1e-6 * (init_us + first_us)
                self.progress({"rounds": float(np.count_nonzero(turns))})
        return turns, ready_s

    def outputs(
        self, file: File, inputs: Path, cores: tuple[int, ...], threads: int, shapes: Sequence[Sequence[int]] = ()
    ) -> tuple[list[np.ndarray], float]:
        """As ``Board``; ``shapes`` are those of the outputs for one input, as the benchmark does not tell them."""
        out = f"outputs-{file_sha256(file.path)[:16]}.raw"
        flags = {"warmup_runs": 0, "num_runs": 1, "min_secs": 0, "output_filepath": out}
        found: list[list[np.ndarray]] = []
        memory_mb = 0.0
        for image in self._inputs(inputs):
            said = self._run(file, image, cores, threads, flags)
            memory = _MEMORY.search(said)
            memory_mb = max(memory_mb, float(memory.group(1)) if memory else 0.0)
            found.append(self._split(self.wire.get(out), shapes))
            self.progress({"images": float(len(found))})
        self.wire.run(f"{self.wire.at_home} && rm -f {shlex.quote(out)}")
        return [np.stack(one) for one in zip(*found, strict=True)], memory_mb

    def _split(self, content: bytes, shapes: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """The outputs of one input, which lie one behind the other."""
        sizes = [int(np.prod(shape)) for shape in shapes]
        if len(content) != 4 * sum(sizes):
            raise DeviceError(f"{self.device.name}: {len(content)} bytes of outputs came back, not {4 * sum(sizes)}")
        values = np.split(np.frombuffer(content, np.float32), np.cumsum(sizes)[:-1])
        return [part.reshape(tuple(shape)) for part, shape in zip(values, shapes, strict=True)]

    def _inputs(self, inputs: Path) -> list[tuple[str, str]]:
        """Each of the inputs [N, C, H, W] as a file there, channels last, and its shape in the words of a flag."""
        found: list[tuple[str, str]] = []
        with tempfile.TemporaryDirectory() as folder:
            for image in np.load(inputs, mmap_mode="r"):
                raw = np.ascontiguousarray(image.transpose(1, 2, 0), np.float32)
                file = Path(folder) / f"image{len(found)}.raw"
                file.write_bytes(raw.tobytes())
                found.append((self.push(file), ",".join(map(str, (1, *raw.shape)))))
        return found

    def _run(
        self, file: File, image: tuple[str, str], cores: tuple[int, ...], threads: int, flags: dict[str, Any]
    ) -> str:
        """What the benchmark prints for one network in a process of its own; raises DeviceError with its last words."""
        path, shape = image
        every = {
            "graph": self.push(file.path),
            "num_threads": threads,
            "use_xnnpack": "true",
            "input_layer": _INPUT,
            "input_layer_shape": shape,
            "input_layer_value_files": f"{_INPUT}:{path}",
            "warmup_min_secs": 0,
            **flags,
        }
        mask = sum(1 << core for core in cores)
        pinned = f"taskset {mask:x} " if mask else ""
        words = " ".join(shlex.quote(f"--{name}={value}") for name, value in every.items())
        command = f"{self.wire.at_home} && {pinned}{shlex.quote(self.device.benchmark)} {words} 2>&1"
        lines: list[bytes] = []
        try:
            self.wire.follow(command, lines.append, silence_s=SILENCE_S)
        except DeviceError as error:
            if not error.status:
                raise
            said = last_line(b"".join(lines).decode(errors="replace")) or _NOTHING
            raise DeviceError(f"{self.device.name}: its benchmark failed ({said})", error.status) from None
        return b"".join(lines).decode(errors="replace")


def board_of(device: Device, progress: Progress = ignore_progress) -> Board:
    """The device at work, by Python or by LiteRT's command line benchmark."""
    return CommandLineBoard(device, progress) if device.benchmark else Board(device, progress)
