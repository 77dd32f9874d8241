"""Figures by image read back as they were written, and a file that is none is refused by name."""

import csv

import numpy as np
import pytest

from grid.storage.per_image import ImageFigures, read_image_figures, write_cells_images, write_image_figures
from model.errors import InputError


def tables(images: int = 3) -> dict[str, ImageFigures]:
    scene = np.arange(images) // 2
    return {
        "test": ImageFigures(scene, {"ssim": np.linspace(0.1, 0.9, images) / 3, "rmse_m": np.full(images, 0.25)}),
        "val": ImageFigures(scene[:1] + 7, {"ssim": np.array([0.5]), "rmse_m": np.array([np.nan])}),
    }


def test_tables_read_back(tmp_path):
    path = write_image_figures(tmp_path / "per_image.csv", tables())
    read = read_image_figures(path)
    assert list(read) == ["test", "val"]
    assert read["test"].scene.tolist() == [0, 0, 1]
    assert read["test"].figures["ssim"] == pytest.approx(tables()["test"].figures["ssim"], rel=1e-11)
    assert set(read["test"].figures) == {"ssim", "rmse_m"}, "what no image has is no figure"
    assert set(read["val"].figures) == {"ssim"}


def test_the_file_of_a_run_has_the_lines_of_all_cells(tmp_path):
    files = {name: write_image_figures(tmp_path / name, tables(images)) for name, images in (("a", 2), ("b", 3))}
    with write_cells_images(tmp_path / "per_image.csv", files).open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["cell"] for line in lines] == ["a"] * 3 + ["b"] * 4
    assert [line["index"] for line in lines if line["cell"] == "b" and line["split"] == "test"] == ["0", "1", "2"]


@pytest.mark.parametrize(
    "text", ["", "split,index\n", "split,index,scene,ssim\ntest,1,0,0.5\n", "split,index,scene,ssim\ntest,0,0,good\n"]
)
def test_a_file_that_no_evaluation_left_is_refused_by_name(tmp_path, text):
    (tmp_path / "per_image.csv").write_text(text)
    with pytest.raises(InputError, match=r"per_image\.csv"):
        read_image_figures(tmp_path / "per_image.csv")
