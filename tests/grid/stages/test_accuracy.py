"""Figures by image: the file that an evaluation leaves gives the figures of its row, on both splits."""

import numpy as np
import pytest
import torch

from grid.planning.output_files import PER_IMAGE
from grid.storage.per_image import read_image_figures
from grid.storage.predictions import FILES as PREDICTIONS
from model.data.pack import Pack
from model.images import MAX_DEPTH_M
from tests.grid.tiny import CELLS, Computed


@pytest.fixture(scope="module")
def grid(computed_grid) -> Computed:
    return computed_grid


@pytest.mark.parametrize("name", CELLS)
def test_the_figures_of_a_cell_are_means_over_the_images_of_its_file(records, store, name):
    record = records[name]["evaluate"]
    metrics, tables = record["metrics"], read_image_figures(store.path(record["id"]) / PER_IMAGE)
    for split, prefix in (("test", ""), ("val", "val_")):
        means = {key: float(figures.mean()) for key, figures in tables[split].figures.items() if key != "noise_mse"}
        assert {key: metrics[f"{prefix}{key}"] for key in means} == pytest.approx(means, rel=1e-9)
    if name != "fp32":
        noise_m = MAX_DEPTH_M * np.sqrt(tables["test"].figures["noise_mse"].mean())
        assert metrics["noise_rms_m"] == pytest.approx(noise_m, rel=1e-9)


def test_the_file_names_the_scene_of_each_image_and_the_float_root_has_no_noise(records, store, tiny):
    pack = Pack(tiny.pack)
    for name in CELLS:
        tables = read_image_figures(store.path(records[name]["evaluate"]["id"]) / PER_IMAGE)
        assert {split: table.scene.tolist() for split, table in tables.items()} == {
            split: pack.scenes(split).tolist() for split in ("test", "val")
        }
        assert ("noise_mse" in tables["test"].figures) == (name != "fp32")


def test_noise_is_weighed_against_the_float_networks_own_error(records, store):
    root = read_image_figures(store.path(records["fp32"]["evaluate"]["id"]) / PER_IMAGE)["test"].figures["rmse_m"]
    for name in set(CELLS) - {"fp32"}:
        metrics = records[name]["evaluate"]["metrics"]
        own = metrics["noise_rms_m"] / np.sqrt((root**2).mean())
        assert metrics["noise_to_error"] == pytest.approx(own, rel=1e-9)


def test_validation_decibels_are_those_of_the_predictions_that_are_kept(grid, records, store):
    name = "per_channel-ptq-equalize=off"
    reference = np.load(store.path(records["fp32"]["evaluate"]["id"]) / PREDICTIONS["val"]).astype(np.float64)
    noise = read_image_figures(store.path(records[name]["evaluate"]["id"]) / PER_IMAGE)["val"].figures["noise_mse"]
    assert records[name]["evaluate"]["metrics"]["val_sqnr_db"] == pytest.approx(
        10 * np.log10(reference.var() / noise.mean()), abs=1e-9
    )
    shared = list(store.root.glob(f"stages/*/{PREDICTIONS['val']}"))
    assert len(shared) > 1, "int8 networks have theirs where those of equal networks are shared"
    assert all(torch.from_numpy(np.load(path)).shape == reference.shape for path in shared)
