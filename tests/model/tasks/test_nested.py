"""Outputs and targets of several tensors are taken apart and put together again by name."""

import pytest
import torch

from model.tasks.nested import count, each, joined, leaves, split

ONE = torch.arange(10.0).reshape(5, 2)
SHAPES = (ONE, (ONE, ONE + 1), {"heat": ONE, "size": ONE[:, 0]})


@pytest.mark.parametrize("nested", SHAPES, ids=["tensor", "tuple", "dict"])
def test_pieces_joined_again_are_the_whole(nested):
    pieces = list(split(nested, 3))
    assert [count(piece) for piece in pieces] == [2, 2, 1]
    assert type(pieces[0]) is type(nested)
    whole = joined(pieces)
    assert leaves(whole).keys() == leaves(nested).keys()
    assert all(torch.equal(tensor, leaves(nested)[name]) for name, tensor in leaves(whole).items())


def test_tensors_have_the_name_of_their_key_or_place_and_a_lone_one_none():
    assert [list(leaves(nested)) for nested in SHAPES] == [[""], ["0", "1"], ["heat", "size"]]


def test_a_function_of_two_structures_sees_tensors_of_the_same_place():
    difference = each(torch.sub, {"a": ONE + 1, "b": ONE + 2}, {"a": ONE, "b": ONE})
    assert {name: float(tensor.mean()) for name, tensor in difference.items()} == {"a": 1.0, "b": 2.0}
