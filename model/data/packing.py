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

from model.data import half_pack
from model.data.frame import SPLITS, Item, Layout, Parts, empty, item_bytes
from model.data.half_pack import HalfPack, Mark
from model.errors import InputError
from model.progress import duration

PackProgress = Callable[[int, int, str], None]
"""(pictures done, pictures in all, what is being done)"""
MARK_S = 2.0
"""The time between two marks: about what a kill costs."""
_KEPT_S = 7 * 86_400
"""How long half a pack is kept that nobody goes on with."""


@dataclass(frozen=True)
class Source:
    """Where the items come from: what they are called, what they are known by, and those of each split.

    ``items`` gives those of a split from one on, all in ``layout``. ``skip_bad`` leaves out broken ones, and
    ``skipped`` is how many the listing lacks already.
    """

    origin: str
    name: str
    detail: Mapping[str, object]
    identity: list[object]
    counts: dict[str, int]
    layout: Layout
    items: Callable[[str, int], Generator[Item | InputError]]
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

    def add(self, split: str, parts: Parts, scene: str, source: str) -> None:
        number = np.array(self.scenes.setdefault(scene, len(self.scenes)), np.int32)
        for part in (*parts.values(), number):
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
    attributes: Mapping[str, object],
    progress: PackProgress | None,
    is_pack: Callable[[Path], bool],
) -> None:
    """Write the pack ``path``, or what an earlier try lacks of it.

    Where another process writes it, this one waits. Raises InputError for a disk that is too small, a broken item that
    is not to be skipped, and a split without any.
    """
    total = sum(source.counts.values())
    show = progress or (lambda done, total, text: None)
    half_pack.sweep(path, _KEPT_S)
    with half_pack.only_writer(path, _waiting(show, total)) as marks:
        if is_pack(path):  # by now
            return
        _require_room(path, total, source.layout)
        layout = {name: [dtype, list(shape)] for name, (dtype, shape) in source.layout.items()}
        header = {"half pack": half_pack.VERSION, "name": path.name, "layout": layout, "counts": source.counts}
        old = half_pack.old_half(path, marks, header)
        content = old and _content(*old, source.layout, lambda done: show(done, total, "checking what is packed"))
        if old and not content:
            old[0].close()
        half = old[0] if old and content else half_pack.new_half(path, marks, header, source.counts, source.layout)
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


def _require_room(path: Path, total: int, layout: Layout) -> None:
    wanted = total * item_bytes(layout) - half_pack.written_bytes(path)
    free = shutil.disk_usage(path.parent).free
    if wanted > free:
        shape = " x ".join(map(str, next(iter(layout.values()))[1]))
        needs = f"{wanted / 1e9:.1f} GB for {total} pictures of {shape}"
        raise InputError(str(path.parent), f"has {free / 1e9:.1f} GB free", needs, "Free some, or take another folder.")


def _content(half: HalfPack, marks: list[Mark], layout: Layout, show: Callable[[int], None]) -> _Content | None:
    """What half a pack holds by its marks, read again; None where it is not what was written."""
    content, parts = _Content(), empty(layout)
    try:
        for split in SPLITS:
            named = [one for mark in marks for one in mark["named"].get(split, [])]
            if named:
                content.begin(split)
            for one in named:
                if one is None:
                    content.named[split].append(None)
                else:
                    half.get(split, content.kept[split], parts)
                    content.add(split, parts, *one)
                show(content.done)
        content.marked = {split: len(named) for split, named in content.named.items()}
        is_same = not marks or content.sha256.hexdigest() == marks[-1]["sha256"]
    except (EOFError, OSError, LookupError, TypeError, AttributeError):
        return None
    return content if is_same else None


def _pack(half: HalfPack, content: _Content, source: Source, show: PackProgress) -> None:
    """Put all items that are not in the half pack yet."""
    total, pace = sum(source.counts.values()), _Pace(content.done)
    marked, last = time.monotonic(), Future[None]()
    last.set_result(None)
    with ThreadPoolExecutor(1) as disk:  # writes marks, for which packing does not wait
        for split in SPLITS:
            if split not in content.named:
                content.begin(split)
            # Closed here and now: its threads, left to the garbage collector, once waited for each other for ever.
            with contextlib.closing(source.items(split, len(content.named[split]))) as items:
                for item in items:
                    _put(half, content, split, item, source.skip_bad)
                    if last.done() and time.monotonic() - marked > MARK_S:
                        last.result()
                        marked, last = time.monotonic(), disk.submit(half.mark, content.mark())
                    bad = f", {content.skipped} bad ones skipped" if content.skipped else ""
                    note = f" ({source.note})" if source.note else ""
                    show(content.done, total, f"packing {split} pictures{pace.text(content.done, total)}{bad}{note}")
            if not content.kept[split]:
                raise InputError(f"{split} split", "holds no usable frame", "at least one", "Check the data folder.")
        last.result()


def _put(half: HalfPack, content: _Content, split: str, item: Item | InputError, skip_bad: bool) -> None:
    if not isinstance(item, InputError):
        half.put(split, content.kept[split], item.parts)
        content.add(split, item.parts, item.scene, item.source)
    elif skip_bad:
        content.named[split].append(None)
    else:
        raise item


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
