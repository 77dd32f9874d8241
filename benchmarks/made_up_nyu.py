"""A made-up data set of NYUv2's size in the layout of its Kaggle copy: rendered rooms, cropped, mirrored, with noise.

    python -m benchmarks.made_up_nyu --out nyu_data

It stands in for the real files where their number and size count and their content does not: packing, an epoch, the
report. 50,688 colour JPEGs with 8-bit depth in 282 recordings for training, 654 PNGs with 16-bit depth for the test.
Four pictures are rendered for each recording; every file is another crop of one of them with other noise.
"""

import argparse
import csv
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.line import say
from model.data.frame import Frame
from model.data.rooms.render import VIEWS_PER_SCENE, render_scene
from model.images import MAX_DEPTH_M

TRAIN, TEST = 50_688, 654  # of the Kaggle copy
RECORDINGS = 282
KINDS = (
    "bathroom",
    "bedroom",
    "bookstore",
    "classroom",
    "dining_room",
    "home_office",
    "kitchen",
    "living_room",
    "study",
)
RENDERED = 256  # side of the pictures that crops are taken from
NOISE = 9  # standard deviation, of 255
LEAST_CROP = 160  # width of the smallest crop


@dataclass(frozen=True)
class Recording:
    """One folder of the training list, or a few pictures of the test list: its files are numbered from ``first``."""

    root: Path
    folder: str
    number: int
    first: int
    count: int
    width: int
    is_test: bool


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.made_up_nyu", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write; nyu2_train.csv goes into its data/")
    parser.add_argument("--train", type=int, default=TRAIN, help="training pictures")
    parser.add_argument("--test", type=int, default=TEST, help="test pictures")
    parser.add_argument("--width", type=int, default=640, help="of the pictures, 4:3")
    options = parser.parse_args()
    started = time.monotonic()
    size_bytes = write(options.out, options.train, options.test, options.width)
    files = options.train + options.test
    say("made_up_nyu_seconds", time.monotonic() - started, "s", f"{files} pictures with depth")
    say("made_up_nyu_gb", size_bytes / 1e9, "GB", f"{files} pictures with depth, {options.width} pixels wide")


def write(root: Path, train: int, test: int, width: int) -> int:
    """Write ``train`` and ``test`` pairs of files and their lists below ``root``, on all cores; their size in bytes."""
    root.mkdir(parents=True, exist_ok=True)
    lists: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    jobs = [*_recordings(root, train, width), *_tests(root, test, width)]
    size_bytes = done = 0
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # read by the processes that are spawned
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        for job, (names, written) in zip(jobs, pool.map(_write_recording, jobs), strict=True):
            lists["test" if job.is_test else "train"] += names
            size_bytes, done = size_bytes + written, done + job.count
            print(f"{done} of {train + test} pictures", flush=True)
    for split, rows in lists.items():
        with open(root / "data" / f"nyu2_{split}.csv", "w", newline="") as file:
            csv.writer(file).writerows(rows)
    return size_bytes


def _recordings(root: Path, count: int, width: int) -> Iterator[Recording]:
    """Folders of unequal length, named as the real ones; of every second place there are parts a and b."""
    folders = min(RECORDINGS, max(count // 8, 3))
    shares = np.random.default_rng(0).uniform(0.3, 1.7, folders)
    ends = np.rint(np.cumsum(shares) / shares.sum() * count).astype(int).tolist()
    for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        place, part = number // 3 * 2 + (number % 3 > 0), ("", "a", "b")[number % 3]
        folder = f"data/nyu2_train/{KINDS[place % len(KINDS)]}_{place:04d}{part}_out"
        yield Recording(root, folder, number, 1, end - start, width, False)


def _tests(root: Path, count: int, width: int) -> Iterator[Recording]:
    for number, first in enumerate(range(0, count, VIEWS_PER_SCENE)):
        yield Recording(root, "data/nyu2_test", number, first, min(VIEWS_PER_SCENE, count - first), width, True)


def _write_recording(job: Recording) -> tuple[list[tuple[str, str]], int]:
    """Write the files of one recording; their names, and their size in bytes."""
    (job.root / job.folder).mkdir(parents=True, exist_ok=True)
    frames = render_scene("test" if job.is_test else "train", job.number, RENDERED)
    rng = np.random.default_rng([job.is_test, job.number])
    noise = rng.normal(0, NOISE, (2 * RENDERED, 2 * RENDERED, 3)).astype(np.float32)
    names, size_bytes = [], 0
    for number in range(job.first, job.first + job.count):
        colour, depth_m = _crop(frames[number % len(frames)], noise, job.width, rng)
        if job.is_test:
            pair = f"{job.folder}/{number:05d}_colors.png", f"{job.folder}/{number:05d}_depth.png"
            depth = np.rint(depth_m * 1000).astype(np.uint16)
        else:
            pair = f"{job.folder}/{number}.jpg", f"{job.folder}/{number}.png"
            depth = np.rint(depth_m * (255 / MAX_DEPTH_M)).astype(np.uint8)
        colour.save(job.root / pair[0], quality=80, compress_level=1)  # whichever its format has
        Image.fromarray(depth).save(job.root / pair[1], compress_level=4)
        names.append(pair)
        size_bytes += sum((job.root / name).stat().st_size for name in pair)
    return names, size_bytes


def _crop(
    frame: Frame, noise: NDArray[np.float32], width: int, rng: np.random.Generator
) -> tuple[Image.Image, NDArray[np.float32]]:
    """A part of a picture, and its depth in metres, 4:3: mirrored or not, darker or brighter, with other noise."""
    across = 16 * int(rng.integers(LEAST_CROP // 16, RENDERED // 16 + 1))
    down = across * 3 // 4
    top, left = int(rng.integers(0, RENDERED - down + 1)), int(rng.integers(0, RENDERED - across + 1))
    below, right = rng.integers(0, RENDERED, 2)
    light = rng.uniform(0.8, 1.2) * frame.image[:, top : top + down, left : left + across].transpose(1, 2, 0)
    noisy = light + noise[below : below + down, right : right + across]
    colour = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    size, coarse = (width, width * 3 // 4), len(frame.depth_m) / RENDERED
    box = (left * coarse, top * coarse, (left + across) * coarse, (top + down) * coarse)
    depth = Image.fromarray(frame.depth_m).resize(size, Image.Resampling.BILINEAR, box)
    colour = colour.resize(size, Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        colour, depth = (one.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for one in (colour, depth))
    return colour, np.clip(np.asarray(depth), 0.05, MAX_DEPTH_M)


if __name__ == "__main__":
    main()
