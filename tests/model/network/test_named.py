"""Networks by name or file, of any task."""

import pytest
import torch

from model.errors import InputError
from model.network.named import named_network


@pytest.mark.parametrize(
    "name", ["torchvision/squeezenet1_1", "torchvision/lraspp_mobilenet_v3_large", "timm/resnet10t"]
)
def test_a_network_of_a_library_has_the_same_random_weights_each_time(name):
    first, second = (named_network(name, 64, "--x").state_dict() for _ in range(2))
    assert not named_network(name, 64, "--x").training
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize("name", ["torchvision/squeezenet1_2", "timm/resnet10tt"])
def test_an_unknown_name_is_refused_with_those_that_are_near(name):
    library, _, model = name.partition("/")
    with pytest.raises(
        InputError, match=rf"^--x: '{name}' is not a network of {library}; expected one like .*{model[:8]}"
    ):
        named_network(name, 64, "--x")


def test_a_file_may_hold_a_network_of_any_task(tmp_path):
    file = tmp_path / "two_outputs.py"
    file.write_text(
        "from torch import nn\n"
        "class Two(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.conv = nn.Conv2d(3, 2, 1)\n"
        "    def forward(self, x):\n        return self.conv(x), x.mean()\n"
        "def build(input_size):\n    return Two()\n"
    )
    assert len(named_network(str(file), 16, "--x")(torch.zeros(1, 3, 16, 16))) == 2
    file.write_text("def build(input_size):\n    return 3\n")
    with pytest.raises(InputError, match=r"build returned a int, not a torch\.nn\.Module"):
        named_network(str(file), 16, "--x")
