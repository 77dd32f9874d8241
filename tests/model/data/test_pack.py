"""The pack: written once, read exactly, refused when it is none."""

import pickle

import h5py
import numpy as np
import pytest
import torch

from model.data.pack import Pack, PackSpec, prepare_pack
from model.data.rooms import render as rooms
from model.errors import InputError
from tests.model.data.pack_files import sources

SPEC = PackSpec(input_size=32, rooms_train=6, rooms_val=2, rooms_test=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("packs")


@pytest.fixture(scope="module")
def path(folder):
    return prepare_pack("rooms", folder, SPEC)


@pytest.fixture(scope="module")
def pack(path):
    return Pack(path)


def test_a_pack_holds_the_asked_pictures_at_the_asked_sizes(pack):
    assert [pack.size(split) for split in ("train", "val", "test")] == [6, 2, 5]
    assert (pack.origin, pack.input_size, pack.skipped) == ("rooms", 32, 0)
    images, depth = pack.images("train"), pack.targets("train")
    assert images.shape == (6, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert depth.shape == (6, 1, 8, 8)
    assert depth.dtype == torch.float32
    assert pack.scenes("train").tolist() == [0, 0, 0, 0, 1, 1]
    assert sources(pack, "test")[4] == "rooms/test/1/0"


def test_the_file_has_the_documented_layout(path):
    with h5py.File(path) as file:
        assert file.attrs["format"] == "depth-pack-1"
        assert file.attrs["output_size"] == 8
        assert len(file.attrs["fingerprint"]) == 64
        types = {name: file["val"][name].dtype for name in ("image", "depth", "scene")}
        assert types == {"image": np.uint8, "depth": np.uint16, "scene": np.int32}


def test_pictures_and_depth_come_back_as_they_were_rendered(pack):
    for index in range(5):
        frame = rooms.render_frame("test", index, 32)
        assert np.array_equal(pack.images("test", [index])[0].numpy(), frame.image)
        metres = pack.targets("test", [index])[0, 0].numpy() * 10
        np.testing.assert_allclose(metres, frame.depth_m, atol=0.00051)


def test_no_scene_is_in_two_splits(pack):
    scenes = [set(pack.scenes(split).tolist()) for split in ("train", "val", "test")]
    assert not scenes[0] & scenes[1]
    assert not scenes[0] & scenes[2]
    assert not scenes[1] & scenes[2]


def test_indices_are_served_in_their_order_and_may_repeat(pack):
    every = pack.images("train")
    assert torch.equal(pack.images("train", [4, 0, 4]), every[[4, 0, 4]])
    assert torch.equal(pack.targets("train", [3, 1]), pack.targets("train")[[3, 1]])
    assert pack.images("train", []).shape == (0, 3, 32, 32)


@pytest.mark.parametrize("index", [6, -1])
def test_an_index_outside_the_split_is_refused(pack, index):
    with pytest.raises(IndexError, match=r"0\.\.5"):
        pack.images("train", [index])


def test_the_test_split_does_not_depend_on_the_size_of_the_others(pack, tmp_path):
    other = Pack(prepare_pack("rooms", tmp_path, PackSpec(32, rooms_train=1, rooms_val=1, rooms_test=5)))
    assert torch.equal(other.images("test"), pack.images("test"))
    assert torch.equal(other.targets("test"), pack.targets("test"))


def test_the_same_data_has_the_same_fingerprint_and_other_data_another(pack, tmp_path):
    again = Pack(prepare_pack("rooms", tmp_path, SPEC))
    fewer = Pack(prepare_pack("rooms", tmp_path, PackSpec(32, rooms_train=5, rooms_val=2, rooms_test=5)))
    assert again.fingerprint == pack.fingerprint
    assert fewer.fingerprint != pack.fingerprint
    assert again.path != fewer.path


def test_a_pack_that_exists_is_used_again(path, folder):
    written, calls = path.stat().st_mtime_ns, []
    assert prepare_pack("rooms", folder, SPEC, lambda *call: calls.append(call)) == path
    assert path.stat().st_mtime_ns == written
    assert not calls


def test_what_has_no_meaning_for_rooms_makes_no_second_pack(path, folder):
    other = PackSpec(32, 6, 2, 5, val_fraction=0.3, skip_bad=True)
    assert prepare_pack("rooms", folder, other) == path


def test_a_damaged_pack_is_made_again(tmp_path):
    spec = PackSpec(32, 1, 1, 1)
    path = prepare_pack("rooms", tmp_path, spec)
    expected = Pack(path).fingerprint
    path.write_bytes(path.read_bytes()[:900])
    assert Pack(prepare_pack("rooms", tmp_path, spec)).fingerprint == expected


def test_progress_counts_every_picture_up_to_the_total(tmp_path):
    calls = []
    prepare_pack("rooms", tmp_path, PackSpec(32, 2, 1, 1), lambda *call: calls.append(call))
    assert [call[:2] for call in calls] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert "train" in calls[0][2]
    assert "test" in calls[-1][2]


def test_a_pack_crosses_processes_because_it_holds_no_open_file(pack):
    again = pickle.loads(pickle.dumps(pack))
    assert torch.equal(again.images("val"), pack.images("val"))


def test_an_unknown_split_is_named(pack):
    with pytest.raises(InputError, match="'validation' is unknown; expected one of train, val, test"):
        pack.size("validation")


def test_a_missing_file_and_a_file_that_is_no_pack_are_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.h5"):
        Pack(tmp_path / "gone.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(InputError, match=r"text\.h5.*depth-pack-1"):
        Pack(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["format"] = "depth-pack-0"
    with pytest.raises(InputError, match="'depth-pack-0'"):
        Pack(tmp_path / "other.h5")


@pytest.mark.parametrize(
    ("field", "value"), [("input_size", 100), ("input_size", 4096), ("rooms_val", 0), ("val_fraction", 1.5)]
)
def test_a_wrong_setting_names_itself_and_its_value(field, value):
    with pytest.raises(InputError, match=rf"data\.{field}: {value}"):
        PackSpec(**{field: value})


def test_a_pack_that_another_machine_has_made_is_fetched_and_not_rendered_again(path, tmp_path, monkeypatch):
    """Its processor may have rendered other bits: what was computed there is found by its fingerprint alone."""

    def fetch(wanted):
        wanted.parent.mkdir(parents=True)
        wanted.write_bytes(path.read_bytes())
        with h5py.File(wanted, "r+") as file:
            file.attrs["fingerprint"] = "of another processor"

    monkeypatch.setattr(rooms, "render_split", None)  # nothing is rendered
    assert Pack(prepare_pack("rooms", tmp_path / "packs", SPEC, fetch=fetch)).fingerprint == "of another processor"


def test_a_pack_that_nobody_has_is_made(path, tmp_path):
    wanted = []
    made = prepare_pack("rooms", tmp_path, SPEC, fetch=wanted.append)
    assert wanted == [made]
    assert Pack(made).fingerprint == Pack(path).fingerprint
