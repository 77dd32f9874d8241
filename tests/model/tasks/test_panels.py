"""Pictures of the built-in tasks show what is right and what is wrong; those of other code are checked."""

import numpy as np
import pytest
import torch

from model.images import normalize
from model.tasks import classification, restoration, segmentation
from model.tasks.drawing import RIGHT, WRONG, class_colours
from model.tasks.load import task_of
from model.tasks.panels import SIDE, fitted, panels_of

IMAGES = torch.full((2, 3, 32, 32), 100, dtype=torch.uint8)
CLASSES = ("cat", "dog", "cow")


def drawn(module, outputs, targets, classes=CLASSES):
    return panels_of(task_of(module.__name__, "", module), IMAGES, outputs, targets, classes)


def of_show(show):
    """A task that is classification in all but its pictures."""
    module = type(classification)("mine")
    module.__dict__.update(__file__="mine.py", loss=classification.loss, metrics=classification.metrics, show=show)
    return task_of("mine", "", module)


def test_the_frame_of_a_class_tells_whether_it_is_right():
    panel = drawn(classification, torch.tensor([[5.0, 0, 0], [5.0, 0, 0]]), torch.tensor([0, 2]))["found class"]
    assert [tuple(one[0, 0].tolist()) for one in panel] == [RIGHT, WRONG]
    truth = drawn(classification, None, torch.tensor([0, 2]))["true class"]
    assert (truth[0, :100] == truth[1, :100]).all()
    assert (truth[0] != truth[1]).any(), "the names of the classes differ"


def test_wrong_pixels_are_marked_and_those_that_count_for_nothing_are_black():
    truth = torch.zeros(2, 32, 32, dtype=torch.uint8)
    truth[:, :, 16:], truth[:, 24:] = 1, segmentation.IGNORED
    outputs = torch.zeros(2, 3, 32, 32)
    outputs[:, 0] = 1.0
    panels = drawn(segmentation, outputs, truth)
    wrong = panels["wrong pixels"][0]
    assert wrong[0, 0].tolist() == [100, 100, 100]
    assert wrong[0, -1].tolist() == [int(0.25 * 100 + 0.75 * level) for level in WRONG]
    assert wrong[-1, -1].tolist() == [0, 0, 0]
    given = drawn(segmentation, None, truth)["true classes"][0]
    assert given[0, 0].tolist() == np.round(0.35 * 100 + 0.65 * class_colours(3)[0]).tolist()
    assert given[-1, -1].tolist() == [100, 100, 100]


def test_restored_images_are_in_levels_and_their_error_is_amplified():
    clean = torch.full((2, 3, 32, 32), 90, dtype=torch.uint8)
    panels = drawn(restoration, normalize(clean + 3), clean, ())
    assert set(panels["restored"].ravel().tolist()) == {93}
    assert set(panels["error x 4"].ravel().tolist()) == {12}


def test_classes_have_colours_that_differ():
    colours = class_colours(20).astype(int)
    apart = np.abs(colours[:, None] - colours[None]).sum(2) + 1000 * np.eye(20, dtype=int)
    assert apart.min() > 40


def test_panels_have_one_size_and_keep_their_proportions():
    assert fitted(np.zeros((1, 32, 64, 3), np.uint8)).shape == (1, SIDE // 2, SIDE, 3)
    assert fitted(np.zeros((1, 400, 200, 3), np.uint8)).shape == (1, SIDE, SIDE // 2, 3)
    assert set(fitted(np.array([[[3, 7]]], np.uint8), smooth=False).ravel().tolist()) == {3, 7}


@pytest.mark.parametrize(
    "given",
    [np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8, 3)), np.zeros((1, 8, 8, 3), np.uint8)],
    ids=["no colours", "no levels", "another number"],
)
def test_what_is_no_pictures_is_refused_by_its_name(given):
    with pytest.raises(ValueError, match="the panel 'mine' of show"):
        panels_of(of_show(lambda inputs, outputs, targets: {"mine": given}), IMAGES, None, None)
    with pytest.raises(TypeError, match="show gives a ndarray"):
        panels_of(of_show(lambda inputs, outputs, targets: given), IMAGES, None, None)


def test_a_task_without_show_has_no_pictures():
    assert panels_of(of_show(None), IMAGES, None, None) == {}
