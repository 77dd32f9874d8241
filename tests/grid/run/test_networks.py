"""The networks of a grid, built once before it starts."""

import pytest

from grid.run import networks
from grid.run.networks import branched_networks
from grid.space.search_space import load_space
from model.errors import InputError
from model.network.spec import NetworkSpec

SMALL = ("network.input_size=64",)


def space(tmp_path, encoders: str, *overrides: str):
    file = tmp_path / "mine.yaml"
    file.write_text(f"axes: {{network.encoder: [{encoders}], granularity: [per_channel, per_tensor]}}")
    return load_space(file, [*SMALL, *overrides])


def test_those_with_branches_are_told_from_those_without(tmp_path):
    found = branched_networks(space(tmp_path, "timm/lcnet_050, timm/repvgg_a0, efficientnet_b0"))
    assert found == {NetworkSpec("timm/repvgg_a0", 64)}


def test_all_that_cannot_be_built_is_reported_at_once_where_it_was_written(tmp_path):
    bad = "timm/lcnet_050, timm/vit_tiny_patch16_224, timm/efficientformer_l1, timm/lcnet_050.nonsense"
    with pytest.raises(InputError) as caught:
        branched_networks(space(tmp_path, bad))
    vit, one_size, tag = str(caught.value).splitlines()
    assert "mine.yaml: axes.network.encoder[1]='timm/vit_tiny_patch16_224' " in vit
    assert "stages at strides 16" in vit
    assert "encoder[2]='timm/efficientformer_l1' " in one_size
    assert "takes images of 224" in one_size
    assert "encoder[3]='timm/lcnet_050.nonsense' " in tag
    assert "Invalid pretrained tag" in tag


def test_the_default_network_needs_no_look(tmp_path, monkeypatch):
    monkeypatch.delattr(networks, "aside")
    assert branched_networks(load_space("full")) == frozenset()
