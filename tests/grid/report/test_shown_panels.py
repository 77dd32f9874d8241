"""The pictures of a task's own, and its networks' worst images, in its report."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from grid.planning.output_files import PER_IMAGE, PREDICTIONS, SAMPLES
from grid.report.inputs import ReportInputs
from grid.report.sections.predictions import predictions
from grid.report.sections.summary import provenance
from grid.report.shown_panels import sheets
from grid.results.measures import measures_of
from grid.storage.per_image import ImageFigures, write_image_figures
from grid.storage.samples import Samples, save_samples
from model.tasks.facts import MetricFacts, TaskFacts
from tests.grid.report.report_rows import context, row

COUNT, SIDE = 8, 32
TASK = TaskFacts("own/mine", "sha", (MetricFacts("error_px", False, "error px"), MetricFacts("top1", True)))
FIGURES = {"size_mb": 1.0, "latency_ratio": 1.0, "latency_ms_p50": 1.0}
CELLS = {"fp32": None, "per_channel-ptq": 20.0, "per_tensor-ptq": 10.0}


def samples_of(colour: int, places=(3, 5)) -> Samples:
    panel = np.full((len(places), SIDE, SIDE, 3), colour, np.uint8)
    return Samples(tuple(places), ("worst of float", "evenly spread"), {"truth": panel * 0}, {"found": panel})


@pytest.fixture
def inputs(tmp_path):
    """A float network with an error of 1 px; each int8 one has more on image 6, and most of its noise on image 2."""
    rows, images, samples = [], {}, {}
    for number, (cell, sqnr_db) in enumerate(CELLS.items()):
        (tmp_path / cell).mkdir()
        error, noise = np.ones(COUNT), np.full(COUNT, 4.0)
        error[6] += number
        noise[2] = 36.0
        figures = {"error_px": error} | ({} if sqnr_db is None else {"noise_mse": noise})
        table = ImageFigures(np.arange(COUNT), figures)
        images[cell] = write_image_figures(tmp_path / cell / PER_IMAGE, {"test": table, "val": table})
        samples[cell] = tmp_path / cell / SAMPLES
        save_samples(samples[cell], samples_of(100 + 50 * number))
        given = {"method": "fp32" if sqnr_db is None else "ptq", "graph_hash": cell, "sqnr_db": sqnr_db}
        rows.append(row(cell, **given, test_error_px=error.mean(), val_error_px=1.0, **FIGURES))
    references = dict.fromkeys(list(CELLS)[1:], tmp_path / "fp32" / PREDICTIONS)
    margins = measures_of(TASK).margins
    return ReportInputs(
        rows, context(), task=TASK, margins=margins, samples=samples, images=images, references=references
    )


def blocks_of(inputs: ReportInputs, kind: str) -> list:
    return [block for block in predictions(inputs).blocks if block.kind == kind]


def test_a_sheet_has_the_truth_first_and_then_a_line_a_network(inputs, tmp_path):
    (picture,) = blocks_of(inputs, "picture")
    picture.draw(tmp_path / picture.file)
    pixels = np.asarray(Image.open(tmp_path / picture.file).convert("RGB"))
    assert pixels.shape[1] == 170 + 2 * (SIDE + 14) - 14
    column = pixels[:, 170 + SIDE // 2, 0]
    runs = [int(level) for level in (0, 100, 150, 200) if (column == level).sum() >= SIDE]
    assert runs == [0, 100, 150, 200]
    starts = [int(np.argmax(column == level)) for level in (100, 150, 200)]
    assert np.diff(starts).tolist() == [SIDE + 20] * 2


def test_heads_name_the_images_and_figures_are_those_of_the_images(inputs):
    (sheet,) = sheets(inputs, inputs.rows)
    assert sheet.heads == ("image 3: worst of float", "image 5: evenly spread")
    save_samples(inputs.samples["fp32"], samples_of(9, (6, 5)))
    save_samples(inputs.samples["per_tensor-ptq"], samples_of(9, (6, 5)))
    first, second = sheets(inputs, inputs.rows)
    assert list(first.found) == ["fp32", "per_tensor-ptq"]
    assert first.figures["per_tensor-ptq"].tolist() == [3.0, 1.0]
    assert list(second.found) == ["per_channel-ptq"]
    assert [picture.file for picture in blocks_of(inputs, "picture")] == ["samples.png", "samples-2.png"]


def test_the_worst_images_are_told_in_decibels_and_in_the_headline(inputs):
    (table,) = blocks_of(inputs, "table")
    lines = [[cell.spans[0] for cell in line[1:]] for line in table.rows]
    assert [column.title for column in table.columns][-2] == "most error px added on an image"
    assert lines == [["23.0", "13.5", "2", "1.0000", "6"], ["13.0", "3.5", "2", "2.0000", "6"]]


def test_without_samples_the_table_alone_is_left_and_without_figures_nothing(inputs):
    assert [block.kind for block in predictions(replace(inputs, samples={})).blocks] == ["paragraph", "table"]
    assert predictions(replace(inputs, samples={}, images={})) is None


def test_a_show_that_fails_is_said(inputs):
    for file in inputs.samples.values():
        save_samples(file, Samples((3,), ("worst of float",), problem="RuntimeError: no font"))
    assert "RuntimeError: no font" in str(predictions(inputs).blocks[0])
    assert blocks_of(inputs, "picture") == []


def test_the_facts_of_a_run_tell_its_task_in_a_line(inputs):
    given = replace(inputs, context=context(task=TASK.text()))
    (facts,) = provenance(given).blocks
    assert "own/mine (code sha); metrics error_px, top1" in str(facts.items[-1])


def test_a_note_above_an_image_is_short(inputs, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(
        "grid.report.figures.task_panels.draw_sheet", lambda path, heads, lines, *_: written.append(lines)
    )
    (picture,) = blocks_of(inputs, "picture")
    picture.draw(tmp_path / picture.file)
    ((truth, first, *_),) = written
    assert [title for image in truth.images for _, title in image] == ["truth", "truth"]
    assert [title for image in first.images for _, title in image] == ["found, error px 1"] * 2
