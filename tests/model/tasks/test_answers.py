"""What outputs of each task are made into for who asks the network."""

import pytest
import torch

from model.images import normalize
from model.tasks.answers import answer, has_postprocess


def test_depth_is_told_in_metres():
    assert answer("depth", torch.tensor([[[[0.25]]]])).tolist() == [[[[2.5]]]]


def test_classes_are_told_as_probabilities():
    assert answer("classification", torch.tensor([[0.0, 3.0]]).log()).tolist() == [[0.0, 1.0]]
    assert answer("classification", torch.tensor([[1.0, 3.0]]).log())[0].tolist() == pytest.approx([0.25, 0.75])


def test_pixels_are_told_as_the_class_of_the_largest_logit():
    logits = torch.tensor([[[[0.0, 5.0]], [[1.0, 2.0]], [[3.0, -1.0]]]])
    found = answer("segmentation", logits)
    assert found.tolist() == [[[2, 0]]]
    assert found.dtype == torch.uint8


def test_a_normalized_picture_is_told_as_the_picture_and_clipped_to_its_range():
    picture = torch.arange(48, dtype=torch.uint8).reshape(1, 3, 4, 4) * 5
    assert torch.equal(answer("restoration", normalize(picture)), picture)
    assert answer("restoration", torch.full((1, 3, 1, 1), 99.0)).tolist() == [[[[255]], [[255]], [[255]]]]


def test_outputs_of_an_own_task_stay_as_they_are():
    outputs = {"heat": torch.rand(2, 3), "size": torch.rand(2)}
    assert all(torch.equal(value, outputs[name]) for name, value in answer("own/heads", outputs).items())


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (b"def postprocess(outputs):\n    return outputs", True),
        (b"def loss(outputs, targets):\n    return 0", False),
        (b"class Head:\n    def postprocess(self, outputs):\n        return outputs", False),
        (b"raise SystemExit\ndef postprocess(outputs): ...", True),
    ],
)
def test_a_file_is_read_for_its_postprocess_and_not_run(source, found):
    assert has_postprocess(source) is found
