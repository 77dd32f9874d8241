"""Which test images are shown, and that the maps are those of the networks, in metres."""

from pathlib import Path

import numpy as np
import pytest
import torch

from grid.planning.output_files import PER_IMAGE, PREDICTIONS, SAMPLES
from grid.report.inputs import ReportInputs
from grid.report.sections.predictions import noise_by_depth, predictions
from grid.report.shown_images import chosen_images, loss_by_image, noise_by_image, shown_images
from grid.storage.per_image import ImageFigures, write_image_figures
from tests.grid.report.report_rows import context, grid_rows

COUNT = 12
NOISY, BLURRED = 7, 3
"""The images on which all int8 networks have the most noise, and lose the most SSIM."""


class Data:
    """The test images of a pack: all grey, image k is k tenths of a metre behind 2 m."""

    def size(self, split: str) -> int:
        return COUNT

    def images(self, split: str, places: list[int]) -> torch.Tensor:
        return torch.full((len(places), 3, 16, 16), 128, dtype=torch.uint8)

    def targets(self, split: str, places: list[int] | None = None) -> torch.Tensor:
        chosen = torch.arange(COUNT) if places is None else torch.tensor(places)
        slope = torch.linspace(0, 0.3, 16).reshape(1, 1, 4, 4)
        return 0.2 + 0.01 * chosen.reshape(-1, 1, 1, 1).float() + slope


@pytest.fixture
def inputs(tmp_path):
    """A float network that is 0.5 m off, and three int8 networks beside it with noise of their own."""
    rows = grid_rows()[:1] + grid_rows()[2:5]
    truth, draw = Data().targets("test").numpy(), np.random.default_rng(0)
    files, images = {}, {}
    for number, row in enumerate(rows):
        noise = 0.001 * number * draw.choice([-1.0, 1.0], truth.shape)
        noise[NOISY] *= 5
        ssim = np.full(COUNT, 0.9) - 0.001 * number
        ssim[BLURRED] -= 0.01 * number
        folder = tmp_path / row["cell"]
        folder.mkdir()
        files[row["cell"]] = folder / PREDICTIONS
        np.save(files[row["cell"]], (truth + 0.05 + noise).astype(np.float32))
        table = ImageFigures(np.arange(COUNT), {"ssim": ssim})
        images[row["cell"]] = write_image_figures(folder / PER_IMAGE, {"test": table})
        kept = {"image": np.zeros((2, 8, 8, 3), np.uint8), "truth": 10 * truth[:2, 0]}
        np.savez(folder / SAMPLES, prediction=10 * np.load(files[row["cell"]])[:2, 0], **kept)
    references = {row["cell"]: files["fp32"] for row in rows[1:]}
    samples = {cell: file.with_name(SAMPLES) for cell, file in files.items()}
    return ReportInputs(
        rows, context(), pack=Data(), predictions=files, references=references, images=images, samples=samples
    )


def changed(inputs: ReportInputs, **given) -> ReportInputs:
    names = ("rows", "context", "pack", "predictions", "references", "images", "samples")
    return ReportInputs(**({name: getattr(inputs, name) for name in names} | given))


def test_the_images_with_the_most_noise_and_the_most_loss_come_first_and_others_are_spread(inputs):
    chosen = chosen_images(inputs, list(inputs.predictions), COUNT)
    places = list(chosen)
    assert places[0] == NOISY
    assert chosen[NOISY] == "most noise"
    assert places[2] == BLURRED
    assert chosen[BLURRED] == "most SSIM lost"
    assert len(places) == len(set(places)) == 6
    assert max(places[4:]) - min(places[4:]) >= COUNT // 2 - 1


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_of_few_images_each_is_shown_once(inputs, count):
    chosen = chosen_images(changed(inputs, references={}), list(inputs.predictions), count)
    assert len(chosen) == min(count, 4)
    assert set(chosen) <= set(range(count))


def test_maps_are_those_of_the_networks_in_metres(inputs):
    shown = shown_images(inputs, inputs.rows)
    place = next(iter(chosen_images(inputs, list(inputs.predictions), COUNT)))
    cell = inputs.rows[1]["cell"]
    assert shown.titles[0] == f"image {NOISY}: most noise"
    np.testing.assert_allclose(shown.truth[0], 10 * Data().targets("test")[place, 0])
    np.testing.assert_allclose(shown.predictions[cell][0], 10 * np.load(inputs.predictions[cell])[place, 0])
    np.testing.assert_allclose(shown.references[cell][0], shown.truth[0] + 0.5, atol=1e-5)
    assert shown.references.keys() == {row["cell"] for row in inputs.rows[1:]}


def test_without_the_data_the_images_that_evaluations_kept_are_shown_with_their_differences(inputs):
    shown = shown_images(changed(inputs, pack=None), inputs.rows)
    cell = inputs.rows[1]["cell"]
    assert shown.image.shape == (2, 8, 8, 3)
    difference = shown.predictions[cell] - shown.references[cell]
    np.testing.assert_allclose(np.abs(difference), 0.01, atol=1e-4)
    assert shown_images(changed(inputs, pack=None, samples={}), inputs.rows) is None


def test_noise_and_loss_by_image_are_against_the_float_network(inputs):
    cell = inputs.rows[2]["cell"]
    expected = np.full(COUNT, 0.02)
    expected[NOISY] = 0.1
    np.testing.assert_allclose(noise_by_image(inputs, cell), expected, rtol=1e-3)
    assert int(loss_by_image(inputs, cell).argmax()) == BLURRED
    assert loss_by_image(changed(inputs, images={}), cell) is None


def test_the_table_names_each_networks_worst_images(inputs):
    section = predictions(inputs)
    (table,) = (block for block in section.blocks if block.kind == "table")
    line = [cell.spans[0] for cell in table.rows[1]]
    assert line[1:] == ["20", "100", str(NOISY), "0.0220", str(BLURRED)]
    unknown = predictions(changed(inputs, images={}))
    (table,) = (block for block in unknown.blocks if block.kind == "table")
    assert [cell.spans[0] for cell in table.rows[1]][-2:] == ["–", "–"]


def test_noise_by_depth_stands_beside_the_error_of_the_float_network(inputs):
    section = noise_by_depth(inputs)
    (table,) = (block for block in section.blocks if block.kind == "table")
    assert [cell.spans[0] for cell in table.rows[0][1:]] == ["error", *["500.0"] * 8]
    assert {cell.spans[0] for cell in table.rows[1][1:2]} == {"noise"}
    whole = np.sqrt(np.mean([cell.figure**2 for cell in table.rows[1][2:]]))
    assert whole == pytest.approx(np.sqrt(np.mean(noise_by_image(inputs, inputs.rows[1]["cell"]) ** 2)), rel=0.02)
    assert noise_by_depth(changed(inputs, pack=None)) is None


def test_what_is_left_out_is_counted(inputs):
    more = [{**inputs.rows[1], "cell": f"more-{number}"} for number in range(40)]
    section = predictions(changed(inputs, rows=[*inputs.rows, *more]))
    text = " ".join(str(block.spans) for block in section.blocks if block.kind == "paragraph")
    assert f"{44 - 24} of the measured networks are not shown here" in text
    assert "not shown here" not in str(predictions(inputs).blocks)


def test_the_pictures_are_drawn(inputs, tmp_path: Path):
    for section in (predictions(inputs), noise_by_depth(inputs)):
        (picture,) = (block for block in section.blocks if block.kind == "picture")
        picture.draw(tmp_path / picture.file)
        assert (tmp_path / picture.file).stat().st_size > 5000
