"""Networks of several outputs: their files give them under the same names, in the same structure."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.tasks.nested import leaves
from quant.calibrate import calibrate
from quant.engines import catalog
from quant.engines.exported import ExportedNetwork, export, file_name
from quant.engines.outputs import Outputs
from quant.recipe import CalibrateSpec
from tests.quant.networks import noise, smooth_images

ENGINES = [
    pytest.param(
        engine, marks=pytest.mark.skipif(catalog.missing(engine) is not None, reason=str(catalog.missing(engine)))
    )
    for engine in catalog.PACKAGES
]


class Outlook(nn.Module):
    """Two heads on one convolution; ``form`` is what is made of them."""

    def __init__(self, form) -> None:
        super().__init__()
        self.stem, self.heat = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
        self.size = nn.Conv2d(8, 4, 3, stride=2)
        self.form = form

    def forward(self, images: Tensor) -> object:
        found = F.relu(self.stem(images))
        return self.form(self.heat(found), self.size(found).mean((2, 3)))


FORMS = {
    "tuple": lambda heat, size: (heat, size),
    "dict": lambda heat, size: {"size": size, "heat": heat},
    "dict_of_one": lambda heat, size: {"heat": heat},
    "named_as_the_input": lambda heat, size: {"image": heat, "1": size},
    "chunks": lambda heat, size: torch.chunk(heat, 2, 1),
    "lone": lambda heat, size: size,
}
"""By how a network may give them."""


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("kind", "form"), [("float", "dict"), *(("int8", form) for form in FORMS)])
def test_a_file_gives_the_outputs_of_its_network_in_their_structure(engine, form, kind, tmp_path):
    torch.manual_seed(0)
    network, images = Outlook(FORMS[form]).eval(), smooth_images(4, 16)
    if kind == "int8":
        network = calibrate(network, "per_channel", CalibrateSpec(images=4, activation_range="minmax"), images)
    file = tmp_path / file_name(engine)
    export(network, engine, images[:1], file)
    with torch.inference_mode():
        found, expected = ExportedNetwork(engine, file)(images), network(images)
    assert type(found) is type(expected)
    assert list(leaves(found)) == list(leaves(expected))
    for name, output in leaves(expected).items():
        assert noise(leaves(found)[name], output) < (0.02 if kind == "int8" else 1e-4)


@pytest.mark.skipif(catalog.missing("onnxruntime") is not None, reason=str(catalog.missing("onnxruntime")))
@pytest.mark.parametrize(
    ("form", "names"),
    [("dict", ["size", "heat"]), ("tuple", ["output_0", "output_1"]), ("lone", ["boxes"])],
)
def test_an_onnx_file_names_its_outputs_as_the_network_does(form, names, tmp_path):
    import onnxruntime

    network, image = Outlook(FORMS[form]).eval(), smooth_images(1, 16)
    export(network, "onnxruntime", image, tmp_path / "network.onnx", output="boxes")
    session = onnxruntime.InferenceSession(str(tmp_path / "network.onnx"), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == names
    first = leaves(network(image))[{"dict": "size", "tuple": "0", "lone": ""}[form]]
    np.testing.assert_allclose(session.run(names[:1], {"image": image.numpy()})[0], first.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("outputs", [{"b": 1, "a": 2}, (1, 2), 1, {"0": 1, "1": 2}])
def test_a_structure_is_the_same_from_its_text(outputs):
    written = Outputs.of(outputs)
    read = Outputs.read(written.text)
    assert read.nested(list(leaves(outputs).values())) == outputs
    assert read.kind == written.kind
