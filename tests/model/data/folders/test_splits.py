"""A split is drawn by the names alone: a new file moves no other, and each class has about its share."""

import pytest

from model.data.folders.dataset import Item
from model.data.folders.listing import PictureFile
from model.data.folders.splits import WHOLE, Draw, into_splits
from model.errors import InputError

DRAW = Draw(0.1, 0.2, 0)


def items(names):
    return [Item((PictureFile(name, 1, 1),)) for name in names]


def drawn(tmp_path, names, draw=DRAW):
    splits, _ = into_splits(tmp_path, {WHOLE: items(names)}, draw)
    return {item.name: split for split, of_split in splits.items() for item in of_split}


def test_a_new_or_removed_file_moves_no_other_one(tmp_path):
    before = drawn(tmp_path, [f"cat/{n}.jpg" for n in range(100)])
    more = drawn(tmp_path, [f"{kind}/{n}.jpg" for kind in ("ant", "cat") for n in range(150)])
    fewer = drawn(tmp_path, [f"cat/{n}.jpg" for n in range(0, 100, 2)])
    assert before == {name: more[name] for name in before}
    assert fewer == {name: before[name] for name in fewer}


def test_every_class_has_about_its_share_in_every_split(tmp_path):
    of = drawn(tmp_path, [f"{kind}/{n}.jpg" for kind in ("ant", "bee", "cat") for n in range(1000)])
    for kind in ("ant", "bee", "cat"):
        splits = [split for name, split in of.items() if name.startswith(kind)]
        assert 70 <= splits.count("val") <= 130
        assert 160 <= splits.count("test") <= 240
        assert len(splits) == 1000, "each file is in one split"


def test_another_seed_draws_others(tmp_path):
    names = [f"{n}.jpg" for n in range(100)]
    assert drawn(tmp_path, names) != drawn(tmp_path, names, Draw(0.1, 0.2, 1))


def test_what_is_missing_of_the_folders_is_drawn_out_of_train_and_noted(tmp_path):
    train, own = items(f"train/{n}.jpg" for n in range(100)), items(["own/1.jpg"])
    as_they_are, silent = into_splits(tmp_path, {"train": train, "val": own, "test": own}, DRAW)
    assert (as_they_are["train"], as_they_are["val"], silent) == (tuple(train), tuple(own), "")
    for missing, present in (("test", "val"), ("val", "test")):
        splits, note = into_splits(tmp_path, {"train": train, present: own}, DRAW)
        assert splits["test"] == tuple(own)
        assert f"no folder {missing}" in note
        assert "val is drawn out of train" in note
        assert sorted(splits["train"] + splits["val"], key=train.index) == train


def test_an_empty_split_is_an_error(tmp_path):
    with pytest.raises(InputError, match="has no picture for val of 2 in all"):
        into_splits(tmp_path, {"train": items(["b"]), "test": items(["a"])}, Draw(0.01, 0.1, 0))


@pytest.mark.parametrize(("val", "test"), [(0, 0.1), (0.1, 1), (0.5, 0.5), (float("nan"), 0.1)])
def test_shares_that_leave_a_split_empty_are_refused(val, test):
    with pytest.raises(InputError, match=r"data.(val|test)_fraction"):
        Draw(val, test, 0)
