"""Folders are listed by name without opening a picture; links are followed, and what is left out is counted."""

import os

import pytest

from model.data.folders.listing import list_pictures, note_of
from model.errors import InputError


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def names(found):
    return [picture.name for picture in found.pictures]


def test_pictures_of_nested_folders_are_in_the_order_of_their_names(tmp_path):
    for name in ("b/2.JPG", "b/1.png", "a.webp", "b/c/d/0.tiff"):
        touch(tmp_path / name)
    assert names(list_pictures(tmp_path)) == ["a.webp", "b/1.png", "b/2.JPG", "b/c/d/0.tiff"]
    assert names(list_pictures(tmp_path, "b/c")) == ["b/c/d/0.tiff"]


def test_hidden_files_and_other_suffixes_are_left_out_and_counted(tmp_path):
    for name in ("a.jpg", ".b.jpg", "c.txt", "d.gif", "README", ".hidden/e.jpg"):
        touch(tmp_path / name)
    found = list_pictures(tmp_path)
    assert names(found) == ["a.jpg"]
    assert "4 files that are no pictures (.gif 1, .txt 1, hidden 1, no suffix 1)" in note_of([found])
    assert "8 files" in note_of([found, found])


def test_links_are_followed_and_those_that_leave_the_folder_are_counted(tmp_path):
    touch(tmp_path / "elsewhere/deep/a.jpg")
    touch(tmp_path / "data/b.jpg")
    (tmp_path / "data/folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/c.jpg").symlink_to(tmp_path / "elsewhere/deep/a.jpg")
    (tmp_path / "data/inside.jpg").symlink_to(tmp_path / "data/b.jpg")
    found = list_pictures(tmp_path / "data")
    assert names(found) == ["b.jpg", "c.jpg", "folder/deep/a.jpg", "inside.jpg"]
    assert note_of([found]) == "followed: 2 links out of the folder"
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert list_pictures(tmp_path / "link").links_out == 2, "the root may itself be a link"
    assert list_pictures(tmp_path / "data", "folder").links_out == 1


def test_a_link_that_leads_back_up_is_an_error_and_does_not_run_for_ever(tmp_path):
    touch(tmp_path / "a/b.jpg")
    (tmp_path / "a/again").symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"a/again: is a link to a folder that it is in"):
        list_pictures(tmp_path)


def test_broken_links_are_listed_as_the_pictures_that_they_should_be(tmp_path):
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    (tmp_path / "self.jpg").symlink_to(tmp_path / "self.jpg")
    assert names(list_pictures(tmp_path)) == ["gone.jpg", "self.jpg"]


def test_a_name_that_is_not_text_is_an_error_that_can_be_printed(tmp_path):
    touch(tmp_path / os.fsdecode(b"\xff\xfe.jpg"))
    with pytest.raises(InputError, match="has a name that is not text") as caught:
        list_pictures(tmp_path)
    str(caught.value).encode()


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"cannot be read .*Permission denied"):
        list_pictures(tmp_path)
