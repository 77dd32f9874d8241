"""A folder a class: targets are indices into the sorted names, with split folders or without."""

import pickle
import shutil

import pytest
from torch.utils.data import DataLoader

from model.data.folders.classification import class_folders
from model.data.folders.pictures import read_picture
from model.errors import InputError
from tests.model.data.folders.picture_files import noise, save


def fill(folder, classes=("ant", "cat"), count=2):
    for number, name in enumerate(classes):
        for n in range(count):
            save(folder / name / f"{n}.png", noise(seed=10 * number + n))
    return folder


def with_splits(root, splits=("train", "val", "test")):
    for split in splits:
        fill(root / split, count=40 if split == "train" else 2)
    return root


def flat(root, count=40):
    return fill(root, count=count)


def test_split_folders_are_taken_as_they_are(tmp_path):
    splits = class_folders(with_splits(tmp_path), 32)
    assert list(splits) == ["train", "val", "test"]
    assert splits["val"].names == ("val/ant/0.png", "val/ant/1.png", "val/cat/0.png", "val/cat/1.png")
    assert [splits["val"][n][1] for n in range(4)] == [0, 0, 1, 1]
    assert splits["val"].groups == splits["val"].names
    assert all(split.classes == ("ant", "cat") for split in splits.values())
    assert len(splits["train"]) == 80
    assert splits["train"].note == ""


def test_an_item_is_its_picture_as_evaluation_sees_it(tmp_path):
    test = class_folders(with_splits(tmp_path), 32)["test"]
    expected = read_picture(tmp_path / "test/cat/1.png", 32, "shorter side").pixels
    assert (test[test.names.index("test/cat/1.png")][0] == expected).all()


def test_workers_of_a_loader_can_read_a_split(tmp_path):
    test = class_folders(with_splits(tmp_path), 32)["test"]
    assert (pickle.loads(pickle.dumps(test))[0][0] == test[0][0]).all()
    (pictures, labels), *_ = DataLoader(test, batch_size=4)
    assert (tuple(pictures.shape), labels.tolist()) == ((4, 3, 32, 32), [0, 0, 1, 1])


def test_without_a_test_folder_val_is_the_test_and_val_is_drawn_out_of_train(tmp_path):
    splits = class_folders(with_splits(tmp_path, ("train", "val")), 32)
    assert all(name.startswith("val/") for name in splits["test"].names)
    assert splits["val"].names
    assert all(name.startswith("train/") for name in splits["val"].names)
    assert not set(splits["val"].names) & set(splits["train"].names)
    assert "val is the test, and val is drawn out of train" in splits["test"].note


def test_without_split_folders_all_three_are_drawn_and_a_new_file_moves_none(tmp_path):
    before = class_folders(flat(tmp_path), 32, 0.2, 0.2)
    assert sum(map(len, before.values())) == 80
    for n in range(40, 45):
        save(tmp_path / f"ant/{n}.png")
    after = class_folders(tmp_path, 32, 0.2, 0.2)
    for split, old in before.items():
        assert set(old.names) == {name for name in after[split].names if int(name[4:-4]) < 40}
    assert "drawn" in after["train"].note


def test_folders_below_a_class_belong_to_it_and_loose_pictures_to_none(tmp_path):
    with_splits(tmp_path)
    save(tmp_path / "val/ant/day/two/9.png")
    save(tmp_path / "val/loose.png")
    (tmp_path / "val/ant/list.txt").write_text("9.png")
    val = class_folders(tmp_path, 32)["val"]
    assert val[val.names.index("val/ant/day/two/9.png")][1] == 0
    assert "val/loose.png" not in val.names
    assert "1 pictures in no class's folder" in val.note
    assert "(.txt 1)" in val.note


def test_a_class_may_be_missing_in_val_and_keeps_its_index(tmp_path):
    shutil.rmtree(with_splits(tmp_path) / "val/ant")
    val = class_folders(tmp_path, 32)["val"]
    assert val.classes == ("ant", "cat")
    assert [val[n][1] for n in range(len(val))] == [1, 1]


def test_a_class_that_train_lacks_is_named(tmp_path):
    save(with_splits(tmp_path) / "val/dog/0.png")
    with pytest.raises(InputError, match=r"val/dog: 'dog' is a class that train lacks; expected one of ant, cat"):
        class_folders(tmp_path, 32)


@pytest.mark.parametrize("empty", ["train/bee", "val/ant"])
def test_an_empty_class_is_named(tmp_path, empty):
    folder = with_splits(tmp_path) / empty
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.png"):
        path.rename(path.with_suffix(".gif"))
    with pytest.raises(InputError, match=rf"{empty}: holds no picture; expected files ending in .jpg"):
        class_folders(tmp_path, 32)


def test_a_class_of_which_the_draw_leaves_train_nothing_is_noted(tmp_path):
    names = [f"{n}.png" for n in range(30)]
    flat(tmp_path)
    test = {name.partition("/")[2] for name in class_folders(tmp_path, 32, 0.1, 0.5)["test"].names if "cat/" in name}
    for name in names:
        if name not in test:
            (tmp_path / "cat" / name).unlink()
    for n in range(30, 40):
        (tmp_path / f"cat/{n}.png").unlink()
    assert "train has no picture of cat" in class_folders(tmp_path, 32, 0.1, 0.5)["train"].note


@pytest.mark.parametrize(
    ("folders", "problem"),
    [
        ((), "has no folder of a class"),
        (("pets/ant", "pets/cat"), r"has one folder only \(pets\).* Is the data set one folder further down"),
        (("train/ant", "train/cat"), "has a folder train, but neither val nor test"),
        (("val/ant", "val/cat"), "has a folder val, but none called train"),
    ],
)
def test_folders_that_are_none_of_classes_are_refused_with_what_was_expected(tmp_path, folders, problem):
    for folder in folders:
        save(tmp_path / folder / "0.png")
    with pytest.raises(InputError, match=problem):
        class_folders(tmp_path, 32)


def test_data_that_is_missing_or_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for name, problem in (("gone", "does not exist"), ("file", "is not a folder"), ("x" * 300, "does not exist")):
        with pytest.raises(InputError, match=problem):
            class_folders(tmp_path / name, 32)


def test_folders_beside_the_splits_are_noted(tmp_path):
    (with_splits(tmp_path) / "valid").mkdir()
    assert "not read: valid" in class_folders(tmp_path, 32)["train"].note


def test_listing_opens_no_picture_and_only_the_broken_item_raises(tmp_path):
    (with_splits(tmp_path) / "test/ant/0.png").write_text("no picture")
    test = class_folders(tmp_path, 32)["test"]
    with pytest.raises(InputError, match=r"test/ant/0.png: is no JPEG or PNG"):
        test[0]
    assert test[1][1] == 0
