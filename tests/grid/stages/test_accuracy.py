"""Figures by image: the file that an evaluation leaves gives the figures of its row, on both splits.

And pictures: which images an evaluation keeps them of, and that the task's code draws them without stopping it.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from grid.planning.output_files import PER_IMAGE, SAMPLES
from grid.stages.accuracy import EVENLY, MEDIAN, WORST, _save_panels, chosen_images
from grid.storage.per_image import ImageFigures, read_image_figures, write_image_figures
from grid.storage.predictions import FILES as PREDICTIONS
from grid.storage.samples import load_samples
from model.data.pack import Pack
from model.images import MAX_DEPTH_M
from model.tasks import classification
from model.tasks.load import task_of
from tests.grid.tiny import CELLS, Computed

COUNT = 9
TASK = task_of("classification", "", classification)
RIGHT = np.array([1, 1, 0, 1, 0, 0, 1, 1, 1], float)
SURE = np.array([0.1, 0.2, 1.0, 0.3, 3.0, 2.0, 0.4, 0.5, 0.6])
FIGURES = {"top1": RIGHT, "cross_entropy": SURE}


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


class Data:
    """Grey images, image k of level k, all of class 1."""

    task = SimpleNamespace(classes=("cat", "dog"))

    def size(self, split: str) -> int:
        return COUNT

    def images(self, split: str, places: list[int]) -> torch.Tensor:
        return torch.tensor(places, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, 32, 32)

    def targets(self, split: str, places: list[int]) -> torch.Tensor:
        return torch.ones(len(places), dtype=torch.long)


def evaluated(folder, task, **inputs):
    """The samples of an evaluation whose network finds class 0 in all images."""
    folder.mkdir()
    write_image_figures(folder / PER_IMAGE, {"test": ImageFigures(np.arange(COUNT), FIGURES)})
    work = SimpleNamespace(task=task, pack=Data(), inputs=inputs, out=folder)
    _save_panels(work, torch.tensor([[5.0, 0.0]]).repeat(COUNT, 1))
    return load_samples(folder / SAMPLES)


def test_the_worst_images_of_float_come_first_then_its_median_one_and_others():
    chosen = chosen_images(TASK, FIGURES, COUNT)
    assert list(chosen.items()) == [(4, WORST), (5, WORST), (7, MEDIAN), (0, EVENLY), (2, EVENLY), (8, EVENLY)]


def test_an_image_without_a_figure_is_none_of_the_worst():
    unknown = {"top1": np.where(SURE == 3.0, np.nan, RIGHT), "cross_entropy": SURE}
    assert list(chosen_images(TASK, unknown, COUNT))[:2] == [5, 2]


def test_of_few_images_each_is_shown_once():
    for count in (1, 2, 3, 5):
        few = {name: figures[:count] for name, figures in FIGURES.items()}
        assert sorted(chosen_images(TASK, few, count)) == list(range(count))


def test_a_network_is_shown_on_the_images_of_its_float_root(tmp_path):
    root = evaluated(tmp_path / "root", TASK)
    other = {"top1": 1 - RIGHT, "cross_entropy": -SURE}
    write_image_figures(tmp_path / "root" / PER_IMAGE, {"test": ImageFigures(np.arange(COUNT), other)})
    made = evaluated(tmp_path / "made", TASK, reference=tmp_path / "root")
    assert root.places == (4, 5, 7, 0, 2, 8)
    assert made.places == tuple(chosen_images(TASK, other, COUNT))
    assert made.reasons[0] == WORST
    for place, panel in zip(root.places, root.truth["true class"], strict=True):
        assert panel[10, 10].tolist() == [place] * 3
    assert (root.found["found class"] != root.truth["true class"]).any()


def test_what_is_wrong_with_the_pictures_is_kept_in_their_place(tmp_path):
    def show(inputs, outputs, targets):
        raise RuntimeError("no font")

    module = type(classification)("mine")
    module.__dict__.update(vars(classification) | {"show": show})
    samples = evaluated(tmp_path / "mine", task_of("mine", "", module))
    assert (samples.problem, samples.truth, samples.found) == ("RuntimeError: no font", {}, {})
