"""A start of float training that a checkpoint makes void is an error; one that some cell trains from is not."""

import pytest

from grid.planning.plan import make_plan
from grid.planning.void_init import require_init_used
from grid.space.search_space import load_space
from model.errors import InputError
from model.network.spec import NetworkSpec

OWN_TOO = "axes: {network.encoder: [efficientnet_b0, timm/other]}"


def check(space, checkpoint: str | None = "sha") -> None:
    served = NetworkSpec() if checkpoint else None
    require_init_used(space, make_plan(space, checkpoint, "data", served), "mine.safetensors")


@pytest.mark.parametrize("value", ["imagenet", "lite0", "random"])
def test_a_start_beside_a_checkpoint_is_an_error_with_the_way_out(value):
    with pytest.raises(InputError) as caught:
        check(load_space("full", [f"train.init={value}"]))
    message = str(caught.value)
    assert f"--set: train.init={value!r} trains nothing" in message
    assert "efficientnet_b0 start from mine.safetensors" in message
    for way in ("--checkpoint none", "train.init=checkpoint", "leave train.init out"):
        assert way in message


def test_each_void_value_of_an_axis_is_named_with_its_place(space_of):
    with pytest.raises(InputError) as caught:
        check(space_of("axes: {train.init: [lite0, checkpoint, random]}"))
    shown = str(caught.value)
    assert "axes.train.init[0]='lite0'" in shown
    assert "axes.train.init[2]='random'" in shown
    assert "[1]" not in shown


def test_a_start_in_the_file_is_named_by_its_key(space_of):
    with pytest.raises(InputError, match=r"mine\.yaml: settings\.train\.init='lite0' trains nothing"):
        check(space_of("settings: {train: {init: lite0}}"))


@pytest.mark.parametrize("text", ["train.init=imagenet", "train.init=[imagenet, random]"])
def test_without_a_checkpoint_every_start_is_used(text):
    check(load_space("full", [text]), checkpoint=None)


@pytest.mark.parametrize("text", ["train.init=checkpoint", "train.epochs=3"])
def test_fine_tuning_and_the_default_start_are_no_error_beside_a_checkpoint(text):
    check(load_space("full", [text]))


def test_a_start_that_cells_of_another_network_train_from_is_no_error(space_of):
    check(load_space("encoders"))
    check(space_of(f"{OWN_TOO}\nsettings: {{train: {{init: lite0}}}}"))


def test_an_excluded_cell_trains_from_its_start_all_the_same(space_of):
    text = f"{OWN_TOO}\nsettings: {{train: {{init: lite0}}}}\n"
    check(space_of(f"{text}exclude: [{{when: {{network.encoder: timm/other}}, reason: it is not here}}]"))
