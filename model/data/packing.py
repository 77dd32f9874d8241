"""Packing: the frames of a source, in order, into a half pack, which a kill does not undo."""

import contextlib
import hashlib
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.data import half_pack
from model.data.frame import SPLITS, Frame
from model.data.half_pack import HalfPack, Mark
from model.errors import InputError
from model.images import MAX_DEPTH_M
from model.progress import duration

PackProgress = Callable[[int, int, str], None]
"""(pictures done, pictures in all, what is being done)"""
MARK_S = 2.0
"""The time between two marks: about what a kill costs."""
_KEPT_S = 7 * 86_400
"""How long half a pack is kept that nobody goes on with."""


@dataclass(frozen=True)
class Source:
    """Where the pictures come from: what they are called, what they are known by, and the frames of each split.

    ``frames`` gives those of a split from one on. ``skip_bad`` leaves out broken ones, and ``skipped`` is how many the
    listing lacks already.
    """

    origin: str
    name: str
    detail: Mapping[str, object]
    identity: list[object]
    counts: dict[str, int]
    frames: Callable[[str, int], Generator[Frame | InputError]]
    note: str = ""
    skipped: int = 0
    skip_bad: bool = False


@dataclass
class _Content:
    """What a pack holds so far: scene and source of every picture (None of a bad one), and the fingerprint."""

    named: dict[str, list[tuple[str, str] | None]] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    scenes: dict[str, int] = field(default_factory=dict)
    marked: dict[str, int] = field(default_factory=dict)
    sha256: Any = field(default_factory=hashlib.sha256)

    @property
    def done(self) -> int:
        return sum(map(len, self.named.values()))

    @property
    def skipped(self) -> int:
        return self.done - sum(self.kept.values())

    def begin(self, split: str) -> None:
        self.named[split], self.kept[split] = [], 0
        self.sha256.update(split.encode())

    def add(self, split: str, image: NDArray[np.uint8], depth_mm: NDArray[np.uint16], scene: str, source: str) -> None:
        number = np.array(self.scenes.setdefault(scene, len(self.scenes)), np.int32)
        for part in (image, depth_mm, number):
            self.sha256.update(np.ascontiguousarray(part).data)
        self.named[split].append((scene, source))
        self.kept[split] += 1

    def mark(self) -> Mark:
        """What came since the last mark, and the fingerprint of all."""
        since = {split: named[self.marked.get(split, 0) :] for split, named in self.named.items()}
        self.marked = {split: len(named) for split, named in self.named.items()}
        return {"done": self.done, "named": since, "sha256": self.sha256.hexdigest()}

    def numbered(self) -> dict[str, list[tuple[int, str]]]:
        """The scene's number and the source of every picture that was kept."""
        return {
            split: [(self.scenes[one[0]], one[1]) for one in named if one is not None]
            for split, named in self.named.items()
        }


def write_pack(
    path: Path,
    source: Source,
    size: int,
    attributes: Mapping[str, object],
    progress: PackProgress | None,
    is_pack: Callable[[Path], bool],
) -> None:
    """Write the pack ``path`` with pictures of ``size`` x ``size``, or what an earlier try lacks of it.

    Where another process writes it, this one waits. Raises InputError for a disk that is too small, a broken frame that
    is not to be skipped, and a split without any.
    """
    total = sum(source.counts.values())
    show = progress or (lambda done, total, text: None)
    half_pack.sweep(path, _KEPT_S)
    with half_pack.only_writer(path, _waiting(show, total)) as marks:
        if is_pack(path):  # by now
            return
        _require_room(path, total, size)
        header = {"half pack": half_pack.VERSION, "name": path.name, "size": size, "counts": source.counts}
        old = half_pack.old_half(path, marks, header)
        content = old and _content(*old, size, lambda done: show(done, total, "checking what is packed"))
        if old and not content:
            old[0].close()
        half = old[0] if old and content else half_pack.new_half(path, marks, header, source.counts, size)
        content = content or _Content()
        try:
            _pack(half, content, source, show)
            fingerprint = {"fingerprint": content.sha256.hexdigest(), "skipped": content.skipped + source.skipped}
            half.finish(content.numbered(), {**attributes, **fingerprint})
        except InputError:  # the source must change, and will then be another one
            half_pack.discard(path, marks)
            raise
        finally:
            half.close()


def _waiting(show: PackProgress, total: int) -> Callable[[int], None]:
    seen = -1

    def told(done: int) -> None:
        nonlocal seen
        if done != seen:
            seen = done
            show(done, total, "waiting for another process that packs the same")

    return told


def _require_room(path: Path, total: int, size: int) -> None:
    wanted = total * (3 * size**2 + 2 * (size // 4) ** 2) - half_pack.written_bytes(path)
    free = shutil.disk_usage(path.parent).free
    if wanted > free:
        needs = f"{wanted / 1e9:.1f} GB for {total} pictures of {size} x {size}"
        raise InputError(str(path.parent), f"has {free / 1e9:.1f} GB free", needs, "Free some, or take another folder.")


def _content(half: HalfPack, marks: list[Mark], size: int, show: Callable[[int], None]) -> _Content | None:
    """What half a pack holds by its marks, read again; None where it is not what was written."""
    content = _Content()
    image, depth_mm = np.empty((3, size, size), np.uint8), np.empty((size // 4, size // 4), np.uint16)
    try:
        for split in SPLITS:
            named = [one for mark in marks for one in mark["named"].get(split, [])]
            if named:
                content.begin(split)
            for one in named:
                if one is None:
                    content.named[split].append(None)
                else:
                    half.get(split, content.kept[split], image, depth_mm)
                    content.add(split, image, depth_mm, *one)
                show(content.done)
        content.marked = {split: len(named) for split, named in content.named.items()}
        is_same = not marks or content.sha256.hexdigest() == marks[-1]["sha256"]
    except (EOFError, OSError, LookupError, TypeError, AttributeError):
        return None
    return content if is_same else None


def _pack(half: HalfPack, content: _Content, source: Source, show: PackProgress) -> None:
    """Put all frames that are not in the half pack yet."""
    total, pace = sum(source.counts.values()), _Pace(content.done)
    marked, last = time.monotonic(), Future[None]()
    last.set_result(None)
    with ThreadPoolExecutor(1) as disk:  # writes marks, for which packing does not wait
        for split in SPLITS:
            if split not in content.named:
                content.begin(split)
            # Closed here and now: its threads, left to the garbage collector, once waited for each other for ever.
            with contextlib.closing(source.frames(split, len(content.named[split]))) as frames:
                for frame in frames:
                    _put(half, content, split, frame, source.skip_bad)
                    if last.done() and time.monotonic() - marked > MARK_S:
                        last.result()
                        marked, last = time.monotonic(), disk.submit(half.mark, content.mark())
                    bad = f", {content.skipped} bad ones skipped" if content.skipped else ""
                    note = f" ({source.note})" if source.note else ""
                    show(content.done, total, f"packing {split} pictures{pace.text(content.done, total)}{bad}{note}")
            if not content.kept[split]:
                raise InputError(f"{split} split", "holds no usable frame", "at least one", "Check the data folder.")
        last.result()


def _put(half: HalfPack, content: _Content, split: str, frame: Frame | InputError, skip_bad: bool) -> None:
    if not isinstance(frame, InputError):
        depth_mm = np.rint(np.clip(frame.depth_m, 0, MAX_DEPTH_M) * 1000).astype(np.uint16)
        half.put(split, content.kept[split], frame.image, depth_mm)
        content.add(split, frame.image, depth_mm, frame.scene, frame.source)
    elif skip_bad:
        content.named[split].append(None)
    else:
        raise frame


class _Pace:
    """Pictures a second and the time left, from those since the start of this process."""

    def __init__(self, first: int) -> None:
        self._first, self._started, self._told, self._text = first, time.monotonic(), 0.0, ""

    def text(self, done: int, total: int) -> str:
        now = time.monotonic()
        if now - max(self._told, self._started) > 1:
            rate = (done - self._first) / (now - self._started)
            self._told, self._text = now, f", {rate:.0f} a second, {duration((total - done) / rate)} left"
        return self._text
