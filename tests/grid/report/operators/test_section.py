"""Where the time goes: the recommended network and one of each engine, with a picture, and who does not tell."""

import numpy as np
import pytest
from PIL import Image

from grid.report.document import plain_text
from grid.report.inputs import ReportInputs
from grid.report.operators.section import where_the_time_goes
from tests.grid.report.report_rows import context, figures_of, grid_rows, row, text_of
from tests.grid.results.operators.operator_files import FASTER, SLOWER, operator_file

ENGINES = {"qnnpack": SLOWER, "xnnpack": FASTER}


@pytest.fixture
def rows():
    others = [
        row(f"int8-{engine}", fuse_bn=True, granularity="per_channel", method="ptq", engine=engine, graph_hash=engine,
            **figures_of(0.7, 1.5, 0.5))
        for engine in ("xnnpack", "onnxruntime")
    ]  # fmt: skip
    return [*grid_rows(), *others]


@pytest.fixture
def files(rows, tmp_path):
    """Of all cells whose engine tells."""
    for line in rows:  # as in the files
        if line["method"] != "fp32":
            line |= {"latency_ms_p50": 30.0, "latency_ratio": 30 / 16}
    told = [line for line in rows if line["method"] != "fp32" and line["engine"] in ENGINES]
    return {line["cell"]: operator_file(tmp_path / line["cell"], ENGINES[line["engine"]]) for line in told}


def test_one_network_of_each_engine_is_shown_the_recommended_one_first(rows, files):
    inputs = ReportInputs(rows, context(), operators=files)
    section = where_the_time_goes(inputs)
    sentences, _, picture, table, silent = section.blocks
    cells = list(dict.fromkeys(plain_text(line[0].spans) for line in table.rows))
    assert cells == [inputs.answer.cell, "int8-xnnpack"]
    assert [plain_text(item).partition(" ")[0] for item in sentences.items] == cells
    assert "int8 is slower" in plain_text(sentences.items[0])
    assert "resizing takes" in plain_text(sentences.items[1])
    assert "As profiled, the operators add up to 92% and 94% of the measured latencies." in plain_text(
        sentences.items[0]
    )
    assert plain_text(silent.spans).startswith("No times by operator of int8-onnxruntime: their engine does not tell")
    assert picture.file == "operators.png"


def test_the_table_has_all_kinds_and_ends_with_the_latency(rows, files):
    (*_, table, _) = where_the_time_goes(ReportInputs(rows, context(), operators=files)).blocks
    lines = [[plain_text(cell.spans) for cell in line[1:]] for line in table.rows][:6]
    assert lines == [
        ["depthwise convolutions", "1", "16.00", "–", "4.00", "+12.00"],
        ["conversions between float and int8", "1", "2.10", "–", "–", "+2.10"],
        ["convolutions", "1", "8.00", "–", "10.00", "-2.00"],
        ["time outside of operators", "–", "2.50", "–", "1.00", "+1.50"],
        ["resizing", "1", "1.40", "1.40", "1.00", "+0.40"],
        ["latency", "–", "30.00", "–", "16.00", "+14.00"],
    ]


def test_what_stays_in_float_is_hatched_and_conversions_have_a_colour_of_their_own(rows, files, tmp_path):
    picture = where_the_time_goes(ReportInputs(rows, context(), operators=files)).blocks[2]
    picture.draw(tmp_path / "operators.png")
    pixels = np.asarray(Image.open(tmp_path / "operators.png").convert("RGB")).reshape(-1, 3)
    colours = {tuple(map(int, one)) for one in np.unique(pixels, axis=0)}
    assert {(0xE7, 0x29, 0x8A), (0x6A, 0x3D, 0x9A), (0x8C, 0x56, 0x4B)} <= colours


def test_a_run_of_an_earlier_version_has_no_such_section(rows):
    assert where_the_time_goes(ReportInputs(rows, context())) is None
    assert "Where the time goes" not in text_of(rows)
    assert "Spread of the latencies" not in text_of(rows)


def test_the_section_is_in_the_report(rows, files):
    assert "## Where the time goes" in text_of(rows, operators=files)
