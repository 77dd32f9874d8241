"""Packing beside what it cannot beat, its decoder on the same cores and files; its memory; and two kills on the way.

Without options it makes a small data set of NYUv2's kind. ``--data nyu_data --packs FOLDER`` takes one that is there,
and leaves its pack in FOLDER.
"""

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from benchmarks import made_up_nyu
from benchmarks.line import say
from grid.scheduling.cores import own_cores
from model.data import nyu
from model.data.frame import SPLITS
from model.data.nyu_frames import FORMATS, Entry
from model.data.pack import Pack, PackSpec, prepare_pack

TRAIN, TEST = 3_900, 100
ROUNDS = 3
SPEC = PackSpec(val_fraction=0.15)  # as the grid "published" has it
TOLD = 100  # pictures between two lines of a packer
AHEAD = 64


@dataclass(frozen=True)
class Packed:
    """What a packer told: seconds to its first new picture and from there on, its memory, where it began and ended."""

    before_s: float
    packing_s: float
    peak_mb: float
    start_mb: float
    first: int
    last: int


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packing", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="a folder in the layout of NYUv2's Kaggle copy")
    parser.add_argument("--packs", type=Path, help="where to leave its pack")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each is measured, in turns")
    parser.add_argument("--pack", nargs=2, metavar=("DATA", "PACKS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)  # as its packers have: a thread for each core decodes
    if options.pack:
        pack(*options.pack)
        return
    if options.packs:
        options.packs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.packs) as name:
        data = options.data or Path(name) / "nyu_data"
        if not options.data:
            with contextlib.redirect_stdout(sys.stderr):
                made_up_nyu.write(data, TRAIN, TEST, 640)
        path = measure(data, Path(name), options.rounds)
        if options.packs:
            os.replace(path, options.packs / path.name)


def measure(data: Path, scratch: Path, rounds: int) -> Path:
    """Print all figures; the pack that was made undisturbed."""
    started = time.monotonic()
    listing = nyu.list_frames(data, SPEC.val_fraction, skip_bad=False)
    listing_s, entries = time.monotonic() - started, [entry for split in SPLITS for entry in listing.frames[split]]
    for entry in entries:  # from the disk into the system's cache, for all alike
        entry.image.read_bytes(), entry.depth.read_bytes()
    decoder, frames, runs, paths = [], [], [], list[Path]()
    for number in range(rounds):
        decoder.append(_rate(lambda: _decoded(entries)))
        frames.append(_rate(lambda: (f for split in SPLITS for f in nyu.read_frames(listing, split, SPEC.input_size))))
        for old in paths:
            old.unlink()
        runs.append(_finished(_packer(data, scratch / str(number))))
        paths = [next((scratch / str(number)).glob("*.h5"))]
    rates = [run.last / run.packing_s for run in runs]
    of = f"{len(entries)} pictures, {len(own_cores())} cores, {rounds} rounds"
    say("packing_decoder", statistics.median(decoder), "pictures/s", f"JPEG and PNG to pixels, in threads; {of}")
    say("packing_frames", statistics.median(frames), "pictures/s", "and shrunk to 224 and 56, nothing kept")
    say("packing", statistics.median(rates), "pictures/s", "and in a pack on the disk")
    say("packing_x_frames", 100 * _ratio(rates, frames), "%", "packing / decoding and shrinking; goal >= 90")
    say("packing_x_decoder", 100 * _ratio(rates, decoder), "%", "packing / decoding alone")
    say("packing_listing_s", listing_s, "s", "lists read, files found, splits drawn")
    peak, start = max(run.peak_mb for run in runs), runs[0].start_mb
    say("packing_peak_mb", peak, "MB", f"largest resident size; {start:.0f} with its libraries; goal < 2000")
    _kill_twice(data, scratch / "killed", paths[0], runs[-1])
    return paths[0]


def _kill_twice(data: Path, packs: Path, undisturbed: Path, run: Packed) -> None:
    started = time.monotonic()
    reached = [_killed(_packer(data, packs), int(share * run.last)) for share in (1 / 3, 2 / 3)]
    last = _finished(_packer(data, packs))
    seconds = time.monotonic() - started
    path = next(packs.glob("*.h5"))
    is_same = Pack(path).fingerprint == Pack(undisturbed).fingerprint and list(packs.iterdir()) == [path]
    say(
        "packing_killed_is_same",
        float(is_same),
        "",
        "1: killed twice, the same fingerprint, and nothing left beside it",
    )
    say("packing_killed_again", reached[1] - last.first + 1, "pictures", "packed again after the second kill")
    say("packing_killed_check_s", last.before_s, "s", f"to list, and to check {last.first - 1} pictures")
    say(
        "packing_killed_s", seconds, "s", f"three processes from start to end; {run.before_s + run.packing_s:.1f} s one"
    )
    path.unlink()


def pack(data: str, packs: str) -> None:
    """Pack, and tell now and then how far it is; at the end the figures of this process."""
    started, began, first, start_mb = time.monotonic(), 0.0, 0, _peak_mb()

    def told(done: int, total: int, text: str) -> None:
        nonlocal began, first
        if not first and text.startswith("packing"):
            began, first = time.monotonic(), done
        if done % TOLD == 0:
            print(f"{done} {text}", flush=True)

    path = prepare_pack(data, Path(packs), SPEC, told)
    ended, last = time.monotonic(), sum(Pack(path).size(split) for split in SPLITS)
    print(json.dumps([began - started, ended - began, _peak_mb(), start_mb, first, last]), flush=True)


def _packer(data: Path, packs: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchmarks.packing", "--pack", str(data), str(packs)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def _finished(process: "subprocess.Popen[str]") -> Packed:
    output, _ = process.communicate()
    return Packed(*json.loads(output.splitlines()[-1]))


def _killed(process: "subprocess.Popen[str]", at: int) -> int:
    """Kill a packer when it has packed ``at`` pictures; how many it had told of."""
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            done, text = line.split(" ", 1)
            if int(done) >= at and text.startswith("packing"):
                process.kill()
                return int(done)
    raise RuntimeError(f"The packer ended before picture {at}.")


def _peak_mb() -> float:
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1000


def _decoded(entries: list[Entry]) -> Iterator[None]:
    """Both files of each entry as pixels in memory, in the order and with the threads of ``nyu.read_frames``."""

    def load(entry: Entry) -> None:
        with Image.open(entry.image, formats=FORMATS) as colour, Image.open(entry.depth, formats=FORMATS) as depth:
            colour.load(), depth.load()

    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(len(own_cores())) as pool:
        for entry in entries:
            waiting.append(pool.submit(load, entry))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _rate(frames: Callable[[], Iterator[object]]) -> float:
    started = time.monotonic()
    count = sum(1 for _ in frames())
    return count / (time.monotonic() - started)


def _ratio(ones: list[float], others: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


if __name__ == "__main__":
    main()
