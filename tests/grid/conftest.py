"""Fixtures of the tests of tracking; what takes long to import is imported by those that need it."""

from pathlib import Path

import numpy as np
import pytest
import torch

SIZE = 64


@pytest.fixture(scope="session")
def database(tmp_path_factory) -> str:
    """One SQLite for all tests: making its tables takes seconds."""
    from grid.tracking.mlflow_store import Tracking

    folder = tmp_path_factory.mktemp("mlflow")
    before = set(Path.cwd().iterdir())
    uri = f"sqlite:///{folder}/mlflow.db"
    Tracking(uri, "first", folder / "files")
    assert set(Path.cwd().iterdir()) == before, "nothing is written to the working directory"
    return uri


@pytest.fixture
def tracking(database, tmp_path, request):
    """An experiment of its own for each test."""
    from grid.tracking.mlflow_store import Tracking

    return Tracking(database, request.node.name, tmp_path / "files")


@pytest.fixture(scope="session")
def int8(tmp_path_factory) -> tuple[Path, np.ndarray, np.ndarray]:
    """The folder of a tiny real int8 network, two images uint8, and its depth of them in metres."""
    folder = tmp_path_factory.mktemp("network")
    from model.images import normalize
    from model.network.build import build_network
    from model.network.spec import NetworkSpec
    from quant.artifact import Form, load_network, save_network
    from quant.calibrate import calibrate
    from quant.engines import qnnpack
    from quant.recipe import CalibrateSpec

    torch.manual_seed(0)
    spec = NetworkSpec(input_size=SIZE)
    images = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
    network = build_network(spec).eval()
    prepared = calibrate(network, "per_channel", CalibrateSpec(images=2, activation_range="minmax"), normalize(images))
    network_int8 = qnnpack.convert(prepared)
    save_network(folder, network_int8, Form(spec, False, "int8", False, "per_channel", "qnnpack"))
    with torch.inference_mode():
        depth = load_network(folder)(normalize(images)) * 10
    return folder, images.numpy(), depth.numpy()
