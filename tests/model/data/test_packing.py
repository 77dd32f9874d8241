"""Packing in order, in bounded memory, with the same outcome after an interruption."""

import dataclasses
import hashlib
import os
import shutil
import time

import numpy as np
import pytest

from model.data import nyu, packing
from model.data.pack import Pack, PackSpec, prepare_pack
from model.data.rooms import render as rooms
from model.errors import InputError
from tests.model.data.nyu_files import SPEC, kaggle
from tests.model.data.pack_files import content, marked, sources


def interrupted(data, packs, spec, at):
    def stop(done, total, text):
        if done == at:
            time.sleep(0.1)  # marks are written aside
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_pack(data, packs, spec, stop)


def test_rooms_are_gone_on_with_after_an_interruption_in_the_middle_of_a_scene(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "MARK_S", 0.0)
    spec, rendered, original = PackSpec(32, 6, 2, 1), [], rooms.render_scene
    expected = content(prepare_pack("rooms", tmp_path / "undisturbed", spec))
    interrupted("rooms", tmp_path / "packs", spec, 4)
    done = marked(tmp_path / "packs")
    monkeypatch.setattr(rooms, "render_scene", lambda *job: rendered.extend(job[4]) or original(*job))
    assert content(prepare_pack("rooms", tmp_path / "packs", spec)) == expected
    assert len(rendered) == 9 - done


@pytest.mark.parametrize("first", [0, 1, 4, 6, 7])
def test_rooms_from_one_on_are_the_rest_of_all_rooms(first):
    every = [frame.source for frame in rooms.render_split("val", 7, 32)]
    assert [frame.source for frame in rooms.render_split("val", 7, 32, first=first)] == every[first:]


def test_skipped_frames_are_counted_once_across_an_interruption(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "MARK_S", 0.0)
    root = kaggle(tmp_path / "kaggle")
    for number in (2, 5):
        for scene in ("kitchen_0001_out", "office_0002a_out"):
            (root / f"data/nyu2_train/{scene}/{number}.png.jpg").write_bytes(b"no picture")
    spec = PackSpec(input_size=32, skip_bad=True)
    expected = Pack(prepare_pack(str(root), tmp_path / "undisturbed", spec))
    interrupted(str(root), tmp_path / "packs", spec, 8)
    pack = Pack(prepare_pack(str(root), tmp_path / "packs", spec))
    assert pack.skipped == expected.skipped == 4
    assert pack.fingerprint == expected.fingerprint
    assert [sources(pack, split) for split in ("train", "val")] == [
        sources(expected, split) for split in ("train", "val")
    ]


def test_a_broken_frame_leaves_no_half_pack_as_its_repair_makes_another_pack(tmp_path):
    root = kaggle(tmp_path / "kaggle")
    (root / "data/nyu2_test/00001_colors.png").write_bytes(b"no picture")
    with pytest.raises(InputError):
        prepare_pack(str(root), tmp_path / "packs", SPEC)
    assert not list((tmp_path / "packs").iterdir())


def test_the_fingerprint_is_that_of_pictures_depths_and_scenes_in_their_order(data, tmp_path):
    pack, digest = Pack(prepare_pack(str(data), tmp_path, SPEC)), hashlib.sha256()
    for split in ("train", "val", "test"):
        digest.update(split.encode())
        for image, depth, scene in zip(
            pack.images(split).numpy(), pack.targets(split)[:, 0].numpy(), pack.scenes(split).tolist(), strict=True
        ):
            digest.update(image.tobytes())
            digest.update(np.rint(depth * 10_000).astype("<u2").tobytes())
            digest.update(np.int32(scene).tobytes())
    assert digest.hexdigest() == pack.fingerprint


def test_a_disk_without_room_is_named_before_anything_is_decoded(data, tmp_path, monkeypatch, read):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 9000, 9000))
    with pytest.raises(InputError, match=r"packs: has 0\.0 GB free; expected 0\.0 GB for 17 pictures of 3 x 32 x 32"):
        prepare_pack(str(data), tmp_path / "packs", SPEC)
    assert not read


def test_half_packs_of_others_are_kept_for_a_week(data, tmp_path):
    old, new = tmp_path / ".other.h5.half", tmp_path / ".another.h5.marks"
    for file, days in ((old, 8), (new, 6)):
        file.touch()
        os.utime(file, (time.time() - days * 86_400,) * 2)
    prepare_pack(str(data), tmp_path, SPEC)
    assert not old.exists()
    assert new.exists()


def test_the_time_left_is_told_from_the_pace_of_this_process(monkeypatch):
    now = iter([100.0, 100.5, 110.0, 110.5])
    monkeypatch.setattr(packing.time, "monotonic", lambda: next(now))
    pace = packing._Pace(1000)
    assert pace.text(1100, 5000) == ""
    assert pace.text(3000, 5000) == ", 200 a second, 10 s left"
    assert pace.text(3100, 5000) == ", 200 a second, 10 s left"


def take_one_of_many(data, size):
    listing = nyu.list_frames(data, 0.1, False)
    many = dataclasses.replace(listing, frames={"train": listing.frames["train"] * 100})
    frames = nyu.read_frames(many, "train", size)
    next(frames)
    frames.close()


def test_frames_are_decoded_only_a_little_ahead_of_their_reader(data, read):
    take_one_of_many(data, 32)
    assert len(read) <= 16 * len(os.sched_getaffinity(0)) + 1


def test_large_frames_that_wait_for_their_turn_take_a_set_amount_of_memory(data, read):
    take_one_of_many(data, 2048)
    threads = len(os.sched_getaffinity(0))
    assert len(read) <= max(16, 2 * threads) + 1  # of 17 MB
