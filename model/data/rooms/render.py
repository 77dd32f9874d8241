"""The built-in data: rendered rooms with exact depth. Picture i does not depend on how many are rendered."""

import argparse
import multiprocessing
import os
import sys
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.data.frame import SPLITS, Frame
from model.data.rooms.camera import stand
from model.data.rooms.scene import Scene, make_scene
from model.data.rooms.shading import render

_Job = tuple[str, int, int, int, tuple[int, ...]]
"""Arguments of ``render_scene``."""
VIEWS_PER_SCENE = 4
SEED = 20
VERSION = 1  # raise it when the same arguments give other pictures
_WORTH_PROCESSES = 48  # starting workers costs about as much as rendering this many pictures


def render_frame(split: str, index: int, size: int = 224, seed: int = SEED) -> Frame:
    """Picture ``index`` of ``split``; a function of its arguments and of nothing else."""
    scene_number, view = divmod(index, VIEWS_PER_SCENE)
    return render_scene(split, scene_number, size, seed, (view,))[0]


def render_scene(
    split: str,
    scene_number: int,
    size: int,
    seed: int = SEED,
    views: tuple[int, ...] = tuple(range(VIEWS_PER_SCENE)),
) -> list[Frame]:
    """Chosen ``views`` of one scene."""
    scene = draw_scene(split, scene_number, seed)
    return [render_view(scene, split, scene_number, view, size, seed)[0] for view in views]


def draw_scene(split: str, scene_number: int, seed: int = SEED) -> Scene:
    """The room that all views of one scene show."""
    return make_scene(np.random.default_rng([seed, SPLITS.index(split), scene_number]))


def render_view(
    scene: Scene, split: str, scene_number: int, view: int, size: int, seed: int = SEED
) -> tuple[Frame, NDArray[np.int32]]:
    """One view of a drawn scene, and what each of its pixels sees (size x size, coded as ``cast`` codes it)."""
    rng = np.random.default_rng([seed, SPLITS.index(split), scene_number, view + 1])
    image, depth_m, seen = render(scene, stand(rng, scene), size, rng)
    return Frame(image, depth_m, f"{split}/{scene_number}", f"rooms/{split}/{scene_number}/{view}"), seen


def render_split(split: str, count: int, size: int = 224, seed: int = SEED, first: int = 0) -> Generator[Frame]:
    """Pictures ``first`` to ``count`` of a split in order, on all the cores of this process when that pays."""
    jobs: list[_Job] = []
    for start in range(first - first % VIEWS_PER_SCENE, count, VIEWS_PER_SCENE):
        views = range(max(first - start, 0), min(count - start, VIEWS_PER_SCENE))
        jobs.append((split, start // VIEWS_PER_SCENE, size, seed, tuple(views)))
    done = 0
    workers = min(len(os.sched_getaffinity(0)), len(jobs))
    if workers > 1 and count - first >= _WORTH_PROCESSES and _can_spawn():
        try:
            for frames in _spawned(jobs, workers):
                done += 1
                yield from frames
        except BrokenProcessPool:  # a main module that cannot be imported again: render the rest here
            pass
    for job in jobs[done:]:
        yield from render_scene(*job)


def _spawned(jobs: list[_Job], workers: int) -> Iterator[list[Frame]]:
    before = {name: os.environ.get(name) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")}
    os.environ.update(dict.fromkeys(before, "1"))
    try:
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
        try:
            yield from pool.map(render_scene, *zip(*jobs, strict=True))
        finally:
            pool.shutdown(cancel_futures=True)
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _can_spawn() -> bool:
    """A spawned worker imports the main module again, which needs a file; daemons may have no children."""
    main_file = getattr(sys.modules["__main__"], "__file__", None)
    return main_file is not None and Path(main_file).is_file() and not multiprocessing.current_process().daemon


def contact_sheet(path: Path, columns: int = 6, rows: int = 4, size: int = 224, split: str = "test") -> None:
    """Save pictures of different scenes, each above its depth (dark is near, yellow is 6 m and more)."""
    import matplotlib
    from PIL import Image

    colours = matplotlib.colormaps["inferno"]
    sheet = np.full((rows * 2 * (size + 6), columns * (size + 6), 3), 255, np.uint8)
    for place in range(rows * columns):
        frame = render_frame(split, place * VIEWS_PER_SCENE + place % VIEWS_PER_SCENE, size)
        depth = (colours(np.clip(frame.depth_m / 6, 0, 1))[..., :3] * 255).astype(np.uint8)
        top, left = place // columns * 2 * (size + 6), place % columns * (size + 6)
        sheet[top : top + size, left : left + size] = frame.image.transpose(1, 2, 0)
        sheet[top + size : top + 2 * size, left : left + size] = depth.repeat(4, 0).repeat(4, 1)
    Image.fromarray(sheet).save(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw rooms of the built-in data with their depth.")
    parser.add_argument("--contact-sheet", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--split", choices=SPLITS, default="test")
    options = parser.parse_args()
    contact_sheet(options.contact_sheet, split=options.split)
