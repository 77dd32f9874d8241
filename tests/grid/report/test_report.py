"""The rules of a report: nothing vanishes, equal networks are no finding, gaps are en dashes."""

import re
import time

import numpy as np
import pytest
from PIL import Image

from grid.report.document import Code, Paragraph, Section
from grid.report.html import html_page
from grid.report.inputs import ReportInputs
from grid.report.markdown import markdown_text
from grid.report.report import SECTIONS, report, write_report
from grid.report.sections.effects import span_cell
from grid.report.sections.published import published_table
from grid.results.effects import effects
from grid.results.target import parse_target
from tests.grid.report.report_rows import (
    changed,
    context,
    grid_rows,
    histories_of,
    latency_files,
    many_rows,
    sample_files,
    text_of,
)

PUBLISHED = "fuse_bn,granularity,method,test_mse,test_ssim,size_mb,latency_ms,source\n"


def line_of(text: str, cell: str) -> list[str]:
    """The cells of the first table line that names the cell."""
    line = next(line for line in text.splitlines() if line.startswith("|") and f"`{cell}`" in line)
    return [part.strip() for part in line.strip("|").replace("\\|", "/").split("|")]


@pytest.mark.parametrize("status", ["failed", "excluded", "skipped"])
def test_a_row_without_figures_stays_with_its_reason_and_en_dashes(status):
    rows = [*grid_rows(), {"cell": "gone", "status": status, "reason": "a|b\nc", "method": "qat", "fuse_bn": True}]
    text = text_of(rows)
    line = line_of(text, "gone")
    assert line[5:11] == ["–"] * 6
    assert line[-1] == f"**{status}**: a/b c"
    assert f"1 {status}" in text.splitlines()[2]
    assert text.count("`gone`") == 2, "once in the table, once in the list of reasons"


def test_a_grid_without_a_single_figure_is_still_reported():
    rows = [{"cell": "a", "status": "failed", "reason": "out of memory", "method": "ptq", "fuse_bn": False}]
    text = text_of(rows)
    assert "No int8 network was measured." in text
    assert "out of memory" in line_of(text, "a")[-1]


def test_best_int8_values_are_bold_and_float_baselines_never():
    rows = changed(grid_rows(), "per_tensor-ptq", test_ssim=0.95)
    text = text_of(rows)
    assert line_of(text, "per_tensor-ptq")[6] == "**0.9500**"
    assert "**" not in "".join(line_of(text, "fp32"))
    assert re.search(r"Most accurate int8[^:]*: `per_tensor-ptq`, test SSIM 0.9500", text)


def test_the_same_network_is_called_so_and_never_ranked_twice():
    rows = changed(grid_rows(), "per_channel-qat", test_ssim=0.99, graph_hash="h")
    rows = changed(rows, "fuse_bn-per_channel-qat", test_ssim=0.99, graph_hash="h", same_as="per_channel-qat")
    text = text_of(rows)
    assert line_of(text, "fuse_bn-per_channel-qat")[-1] == "same as `per_channel-qat`"
    assert line_of(text, "per_channel-qat")[6] == "**0.9900**"
    assert line_of(text, "fuse_bn-per_channel-qat")[6] == "0.9900"


def test_several_seeds_give_means_and_deviations_and_set_the_tie():
    seeds = [
        {**row, "seed": seed, "cell": f"{row['cell']}-s{seed}", "test_ssim": row["test_ssim"] + shift}
        for row in grid_rows()
        if row["method"] != "fp32"
        for seed, shift in ((0, -0.02), (1, 0.0), (2, 0.02))
    ]
    text = text_of(seeds)
    line = line_of(text, "per_channel-ptq")
    assert line[2] == "3"
    assert line[4].endswith("± 0.0200")
    assert line[4].startswith("≈"), "0.009 below the best is a tie where seeds spread 0.02"
    assert "With one seed" not in text


def test_published_rows_stand_beside_ours_on_nyuv2_only(tmp_path):
    table = tmp_path / "published.csv"
    table.write_text(
        PUBLISHED + "true,per_channel,ptq,0.0087,0.7441,1.605,107.67,seed\nfalse,per_layer,ptq,,0.5,,,other\n"
    )
    text = text_of(grid_rows(), context(origin="nyu-mat"), published=table)
    lines = [line for line in text.splitlines() if line.endswith(("| seed |", "| other |"))]
    ours, missing = (line.strip("| ").split(" | ") for line in lines)
    mine = next(row for row in grid_rows() if row["cell"] == "fuse_bn-per_channel-ptq")
    assert ours[3:6] == ["`fuse_bn-per_channel-ptq`", f"{mine['test_mse']:.5f}", "0.00870"]
    assert ours[6:8] == [f"{mine['test_ssim']:.4f}", "0.7441"]
    assert missing[3:] == ["–", "–", "–", "–", "0.5000", "–", "–", "–", "–", "other"]
    assert "0.7441" not in text_of(grid_rows(), context(origin="rooms"), published=table)


def test_another_encoder_is_not_compared_with_the_published_network():
    rows = [{**row, "encoder": "timm/tf_efficientnet_lite0"} for row in grid_rows()]
    theirs = {"fuse_bn": "false", "granularity": "none", "method": "fp32", "test_ssim": "0.8175", "source": "seed"}
    assert Code("fp32") not in published_table(rows, [theirs]).rows[0][3].spans
    assert Code("fp32") in published_table(grid_rows(), [theirs]).rows[0][3].spans


def test_the_gap_between_simulation_and_int8_is_reported():
    rows = changed(grid_rows(), "per_channel-ptq", test_ssim=0.85, simulated_ssim=0.8617)
    text = text_of(rows)
    assert "largest gap 0.0117" in text
    assert "| -0.0117 |" in text


def test_nan_is_no_figure():
    rows = changed(grid_rows(), "per_channel-ptq", test_ssim=float("nan"))
    text = text_of(rows)
    assert line_of(text, "per_channel-ptq")[6] == "–"
    assert " nan" not in text


def test_the_report_lists_how_it_was_made_but_no_password():
    command = "python runner.py --tracking-uri https://me:secret@host/path --seeds 0,1"
    text = text_of(grid_rows(), context(command=command, torch="2.15.0"))
    assert "- command: `python runner.py --tracking-uri https://***@host/path --seeds 0,1`" in text
    assert "- torch: `2.15.0`" in text


def section(text: str, title: str) -> str:
    """What stands between a heading and the next one."""
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_first_section_says_which_cell_to_take_why_and_where_it_is():
    rows = changed(grid_rows(), "per_tensor-qat", test_ssim=0.95, artifact="/store/stages/abc")
    text = text_of(rows, target=parse_target("size_mb<=1.5"))
    assert text.split("\n## ")[1].startswith("Recommendation\n")
    found = section(text, "Recommendation")
    assert "**Take `per_tensor-qat`** for `size_mb<=1.5, maximize ssim`: test SSIM 0.9500" in found
    assert "6 of 12 int8 cells keep size_mb<=1.5" in found
    assert "- Its network: `/store/stages/abc`" in found
    front = found.split("On the Pareto front")[1]
    assert "- `per_tensor-qat`: test SSIM 0.9500" in front
    assert "per_tensor-ptq`: test SSIM" not in front.split("By one figure")[0], "beaten in SSIM, no smaller, no faster"


def test_without_a_cell_that_keeps_the_target_the_report_takes_none():
    found = section(text_of(grid_rows(), target=parse_target("ssim>=0.99")), "Recommendation")
    assert "**No cell to take** for `ssim>=0.99, maximize ssim`." in found
    assert "No cell keeps ssim>=0.99: best is" in found
    assert "Its network" not in found


def test_a_recommended_recipe_of_several_seeds_names_the_network_of_each():
    rows = [
        {**line, "seed": seed, "cell": f"{line['cell']}-s{seed}", "artifact": f"/store/{line['cell']}-{seed}"}
        for line in changed(grid_rows()[2:], "per_channel-qat", test_ssim=0.95)
        for seed in (0, 1)
    ]
    found = section(text_of(rows), "Recommendation")
    assert "**Take `per_channel-qat`**" in found
    for seed in (0, 1):
        assert f"- Its network (seed {seed}): `/store/per_channel-qat-{seed}`" in found


def test_each_axis_has_its_interval_and_its_effect_on_size_and_latency():
    text = section(text_of(grid_rows()), "What each axis does")
    line = next(line for line in text.splitlines() if line.startswith("| granularity"))
    cells = [part.strip() for part in line.strip("|").split("|")]
    (effect,) = (effect for effect in effects(grid_rows()) if effect.axis == "granularity")
    assert cells[5] == "–", "without figures by image nothing is tested"
    assert cells[7].startswith("-0.228 ["), "1.379 MB against 1.607 MB"
    assert cells[8] == span_cell(effect.latency_ratio, 2).spans[0]
    assert span_cell((-0.00001, 0.00001), 4).spans == ("+0.0000 [+0.0000, +0.0000]",)


def test_the_command_of_each_cell_is_the_last_section_word_for_word_but_without_passwords():
    exact = "python runner.py --set 'equalize=[on,  off]' | tee x"
    lines = {"a": exact, "b": "python runner.py --tracking-uri https://me:secret@host/x", "c": "```"}
    text = text_of(grid_rows(), commands=lines)
    last = text.split("\n## ")[-1]
    assert last.startswith("Repeat a single cell\n")
    assert f"\n# a\n{exact}\n# b\n" in last
    assert "secret" not in text
    assert last.count("````") == 2, "a fence longer than any in the commands"


def test_the_pictures_are_drawn_and_linked(tmp_path):
    rows = changed(grid_rows(), "fuse_bn-per_channel-qat", same_as="per_channel-qat")
    given = {"samples": sample_files(tmp_path, rows), "histories": histories_of(rows)}
    inputs = ReportInputs(rows, context(), latencies=latency_files(tmp_path, rows), **given)
    path, page = write_report(tmp_path / "run", inputs)
    text = path.read_text()
    for name in ("tradeoff.png", "samples.png", "learning.png", "latency.png"):
        assert f"]({name})" in text
        assert np.asarray(Image.open(tmp_path / "run" / name)).std() > 5, "not an empty sheet"
    assert sorted(file.name for file in page.parent.glob("*.png")) == sorted(re.findall(r"\]\((.*)\)", text))


def test_without_files_beside_the_rows_there_are_no_pictures_of_them():
    text = text_of(grid_rows())
    for title in ("Predictions", "Spread of the latencies", "Learning curves", "Where the noise comes from"):
        assert f"## {title}" not in text


def test_a_section_is_one_function_and_stands_where_the_list_has_it(monkeypatch):
    def counted(inputs: ReportInputs) -> Section:
        return Section(("Counted",), (Paragraph((f"{len(inputs.rows)} rows",)),))

    monkeypatch.setattr("grid.report.report.SECTIONS", (*SECTIONS[:1], counted, *SECTIONS[1:]))
    assert text_of(grid_rows()).split("\n## ")[2] == "Counted\n\n14 rows\n"


def test_the_text_of_2000_cells_takes_seconds(tmp_path):
    rows = many_rows(2000)
    start = time.process_time()
    document = report(ReportInputs(rows, context(), commands={row["cell"]: "python runner.py" for row in rows}))
    text, page = markdown_text(document), html_page(document, tmp_path)
    assert time.process_time() - start < 30, "4 s on a machine that does nothing else"
    assert len(text) < 250_000, "Markdown shows the first hundred rows of each table"
    assert page.count("<tr>") > 3 * 2000, "the page has all of them"
