"""The rules of a report: nothing vanishes, equal networks are no finding, gaps are en dashes."""

import csv
import itertools

import numpy as np
import pytest
from PIL import Image

from grid.report import figures, panels, tables
from grid.report import latencies as latency_figure
from grid.report import learning_curves as learning_figure
from grid.report.report import RESULT_COLUMNS, write_report, write_results_csv
from grid.results import ranking
from grid.results.target import parse_target
from tests.grid.report.report_rows import (
    changed,
    context,
    grid_rows,
    histories_of,
    latency_files,
    many_rows,
    row,
    sample_files,
)

PUBLISHED = "fuse_bn,granularity,method,test_mse,test_ssim,size_mb,latency_ms,source\n"


def line_of(text: str, cell: str) -> list[str]:
    """The cells of the first table line that names the cell."""
    line = next(line for line in text.splitlines() if line.startswith("|") and f"`{cell}`" in line)
    return [part.strip() for part in line.strip("|").replace("\\|", "/").split("|")]


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(figures, "scatter", lambda rows, path: None)
    monkeypatch.setattr(figures, "samples", lambda files, rows, path: None)


def test_csv_has_the_columns_of_the_design_first_and_every_row(tmp_path):
    rows = [{**row, "qat.epochs": 2} for row in grid_rows()] + [{"cell": "broken", "status": "failed", "reason": "no"}]
    write_results_csv(rows, tmp_path / "new" / "results.csv")
    with open(tmp_path / "new" / "results.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert tuple(read[0])[: len(RESULT_COLUMNS)] == RESULT_COLUMNS
    assert [row["cell"] for row in read] == [row["cell"] for row in rows]
    assert (read[0]["fuse_bn"], read[1]["fuse_bn"], read[0]["granularity"]) == ("false", "true", "")
    assert float(read[2]["test_ssim"]) == rows[2]["test_ssim"]
    assert (read[0]["qat.epochs"], read[-1]["qat.epochs"], read[-1]["test_ssim"]) == ("2", "", "")


def test_csv_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = write_results_csv(grid_rows(), tmp_path / "results.csv")
    before = path.read_text()
    with pytest.raises(UnicodeEncodeError):
        write_results_csv([row("\ud800")], path)
    assert path.read_text() == before


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("status", ["failed", "excluded", "skipped"])
def test_a_row_without_figures_stays_with_its_reason_and_en_dashes(tmp_path, status):
    rows = [*grid_rows(), {"cell": "gone", "status": status, "reason": "a|b\nc", "method": "qat", "fuse_bn": True}]
    text = write_report(tmp_path, rows, context()).read_text()
    line = line_of(text, "gone")
    assert line[5:11] == ["–"] * 6
    assert line[-1] == f"**{status}**: a/b c"
    assert f"1 {status}" in text.splitlines()[2]
    assert text.count("`gone`") == 2, "once in the table, once in the list of reasons"


@pytest.mark.usefixtures("no_pictures")
def test_a_grid_without_a_single_figure_is_still_reported(tmp_path):
    rows = [{"cell": "a", "status": "failed", "reason": "out of memory", "method": "ptq", "fuse_bn": False}]
    text = write_report(tmp_path, rows, context()).read_text()
    assert "No int8 network was measured." in text
    assert "out of memory" in line_of(text, "a")[-1]


@pytest.mark.usefixtures("no_pictures")
def test_best_int8_values_are_bold_and_float_baselines_never(tmp_path):
    rows = changed(grid_rows(), "per_tensor-ptq", test_ssim=0.95)
    text = write_report(tmp_path, rows, context()).read_text()
    assert line_of(text, "per_tensor-ptq")[6] == "**0.9500**"
    assert "**" not in "".join(line_of(text, "fp32"))
    assert "Most accurate int8: `per_tensor-ptq`" in text


@pytest.mark.usefixtures("no_pictures")
def test_the_same_network_is_called_so_and_never_ranked_twice(tmp_path):
    rows = changed(grid_rows(), "per_channel-qat", test_ssim=0.99, graph_hash="h")
    rows = changed(rows, "fuse_bn-per_channel-qat", test_ssim=0.99, graph_hash="h", same_as="per_channel-qat")
    text = write_report(tmp_path, rows, context()).read_text()
    assert line_of(text, "fuse_bn-per_channel-qat")[-1] == "same as `per_channel-qat`"
    assert line_of(text, "per_channel-qat")[6] == "**0.9900**"
    assert line_of(text, "fuse_bn-per_channel-qat")[6] == "0.9900"


@pytest.mark.usefixtures("no_pictures")
def test_several_seeds_give_means_and_deviations_and_set_the_tie(tmp_path):
    seeds = [
        {**row, "seed": seed, "cell": f"{row['cell']}-s{seed}", "test_ssim": row["test_ssim"] + shift}
        for row in grid_rows()
        if row["method"] != "fp32"
        for seed, shift in ((0, -0.02), (1, 0.0), (2, 0.02))
    ]
    text = write_report(tmp_path, seeds, context()).read_text()
    assert ranking.seed_spread(seeds, "test_ssim") == pytest.approx(0.02)
    line = line_of(text, "per_channel-ptq")
    assert line[2] == "3"
    assert line[4].endswith("± 0.0200")
    assert line[4].startswith("≈"), "0.009 below the best is a tie where seeds spread 0.02"
    assert "With one seed" not in text


@pytest.mark.usefixtures("no_pictures")
def test_published_rows_stand_beside_ours_on_nyuv2_only(tmp_path):
    table = tmp_path / "published.csv"
    table.write_text(
        PUBLISHED + "true,per_channel,ptq,0.0087,0.7441,1.605,107.67,seed\nfalse,per_layer,ptq,,0.5,,,other\n"
    )
    text = write_report(tmp_path, grid_rows(), context(origin="nyu-mat"), table).read_text()
    lines = [line for line in text.splitlines() if line.endswith(("| seed |", "| other |"))]
    ours, missing = (line.strip("| ").split(" | ") for line in lines)
    mine = next(row for row in grid_rows() if row["cell"] == "fuse_bn-per_channel-ptq")
    assert ours[3:6] == ["`fuse_bn-per_channel-ptq`", f"{mine['test_mse']:.5f}", "0.00870"]
    assert ours[6:8] == [f"{mine['test_ssim']:.4f}", "0.7441"]
    assert missing[3:] == ["–", "–", "–", "–", "0.5000", "–", "–", "–", "–", "other"]
    assert "0.7441" not in write_report(tmp_path, grid_rows(), context(origin="rooms"), table).read_text()


def test_another_encoder_is_not_compared_with_the_published_network():
    rows = [{**row, "encoder": "timm/tf_efficientnet_lite0"} for row in grid_rows()]
    theirs = {"fuse_bn": "false", "granularity": "none", "method": "fp32", "test_ssim": "0.8175", "source": "seed"}
    assert "`fp32`" not in tables.published_table(rows, [theirs])
    assert "`fp32`" in tables.published_table(grid_rows(), [theirs])


@pytest.mark.usefixtures("no_pictures")
def test_the_gap_between_simulation_and_int8_is_reported(tmp_path):
    rows = changed(grid_rows(), "per_channel-ptq", test_ssim=0.85, simulated_ssim=0.8617)
    text = write_report(tmp_path, rows, context()).read_text()
    assert "largest gap 0.0117" in text
    assert "| -0.0117 |" in text


@pytest.mark.usefixtures("no_pictures")
def test_nan_is_no_figure(tmp_path):
    rows = changed(grid_rows(), "per_channel-ptq", test_ssim=float("nan"))
    text = write_report(tmp_path, rows, context()).read_text()
    assert line_of(text, "per_channel-ptq")[6] == "–"
    assert " nan" not in text


def test_the_pictures_are_drawn_and_linked(tmp_path):
    rows = changed(grid_rows(), "fuse_bn-per_channel-qat", same_as="per_channel-qat")
    text = write_report(tmp_path, rows, context(), samples=sample_files(tmp_path, rows)).read_text()
    for name in ("tradeoff.png", "samples.png"):
        assert f"]({name})" in text
        assert np.asarray(Image.open(tmp_path / name)).std() > 5, "not an empty sheet"


def test_the_sample_sheet_has_a_line_a_network_and_leaves_out_repeated_networks(tmp_path):
    rows = grid_rows()[:5]
    files = sample_files(tmp_path, rows)
    figures.samples(files, rows, tmp_path / "all.png")
    figures.samples(files, changed(rows, rows[4]["cell"], same_as=rows[3]["cell"]), tmp_path / "fewer.png")
    heights = [Image.open(tmp_path / name).height for name in ("all.png", "fewer.png")]
    assert 100 < heights[0] - heights[1] < 180
    assert figures.samples({}, rows, tmp_path / "none.png") is None


def test_numbers_in_the_scatter_do_not_cover_each_other():
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    points = np.array([[1.6, 0.85 + 0.0001 * k] for k in range(8)] + [[1.38, 0.80], [5.0, 0.86]])
    axes.scatter(points[:, 0], points[:, 1])
    figures._number_points(axes, points, range(1, 11))
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in axes.texts]
    pyplot.close(figure)
    assert len(boxes) == 10
    for a, b in itertools.combinations(boxes, 2):
        assert abs(a.x0 + a.x1 - b.x0 - b.x1) / 2 > 6 or abs(a.y0 + a.y1 - b.y0 - b.y1) / 2 > 6


@pytest.mark.usefixtures("no_pictures")
def test_the_report_lists_how_it_was_made_but_no_password(tmp_path):
    command = "python runner.py --tracking-uri https://me:secret@host/path --seeds 0,1"
    text = write_report(tmp_path, grid_rows(), context(command=command, torch="2.15.0")).read_text()
    assert "- command: `python runner.py --tracking-uri https://***@host/path --seeds 0,1`" in text
    assert "- torch: `2.15.0`" in text


def section(text: str, title: str) -> str:
    """What stands between a heading and the next one."""
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.usefixtures("no_pictures")
def test_the_first_section_says_which_cell_to_take_why_and_where_it_is(tmp_path):
    rows = changed(grid_rows(), "per_tensor-qat", test_ssim=0.95, artifact="/store/stages/abc")
    text = write_report(tmp_path, rows, context(), target=parse_target("size_mb<=1.5")).read_text()
    assert text.split("\n## ")[1].startswith("Recommendation\n")
    found = section(text, "Recommendation")
    assert "**Take `per_tensor-qat`** for `size_mb<=1.5, maximize ssim`: SSIM 0.9500" in found
    assert "6 of 12 int8 cells keep size_mb<=1.5" in found
    assert "- Its network: `/store/stages/abc`" in found
    front = found.split("On the Pareto front")[1]
    assert "- `per_tensor-qat`: SSIM 0.9500" in front
    assert "per_tensor-ptq`: SSIM" not in front.split("By one figure")[0], "beaten in SSIM, no smaller, no faster"


@pytest.mark.usefixtures("no_pictures")
def test_without_a_cell_that_keeps_the_target_the_report_takes_none(tmp_path):
    found = section(
        write_report(tmp_path, grid_rows(), context(), target=parse_target("ssim>=0.99")).read_text(), "Recommendation"
    )
    assert "**No cell to take** for `ssim>=0.99, maximize ssim`." in found
    assert "No cell keeps ssim>=0.99: best is" in found
    assert "Its network" not in found


@pytest.mark.usefixtures("no_pictures")
def test_a_recommended_recipe_of_several_seeds_names_the_network_of_each(tmp_path):
    rows = [
        {**line, "seed": seed, "cell": f"{line['cell']}-s{seed}", "artifact": f"/store/{line['cell']}-{seed}"}
        for line in changed(grid_rows()[2:], "per_channel-qat", test_ssim=0.95)
        for seed in (0, 1)
    ]
    found = section(write_report(tmp_path, rows, context()).read_text(), "Recommendation")
    assert "**Take `per_channel-qat`**" in found
    for seed in (0, 1):
        assert f"- Its network (seed {seed}): `/store/per_channel-qat-{seed}`" in found


@pytest.mark.usefixtures("no_pictures")
def test_each_axis_has_its_interval_and_its_effect_on_size_and_latency(tmp_path):
    text = section(write_report(tmp_path, grid_rows(), context()).read_text(), "What each axis does")
    line = next(line for line in text.splitlines() if line.startswith("| granularity"))
    cells = [part.strip() for part in line.strip("|").split("|")]
    (effect,) = (effect for effect in ranking.effects(grid_rows()) if effect.axis == "granularity")
    low, high = effect.ssim_interval or (0, 0)
    assert cells[5] == f"{low:+.4f} … {high:+.4f}"
    assert cells[7].startswith("-0.228 ["), "1.379 MB against 1.607 MB"
    assert cells[8] == tables._span(effect.latency_ratio, 2)
    assert tables._span((-0.00001, 0.00001), 4) == "+0.0000 [+0.0000, +0.0000]"


@pytest.mark.usefixtures("no_pictures")
def test_the_command_of_each_cell_is_the_last_section_word_for_word_but_without_passwords(tmp_path):
    exact = "python runner.py --set 'equalize=[on,  off]' | tee x"
    lines = {"a": exact, "b": "python runner.py --tracking-uri https://me:secret@host/x", "c": "```"}
    text = write_report(tmp_path, grid_rows(), context(), commands=lines).read_text()
    last = text.split("\n## ")[-1]
    assert last.startswith("Each cell again\n")
    assert f"\n# a\n{exact}\n# b\n" in last
    assert "secret" not in text
    assert last.count("````") == 2, "a fence longer than any in the commands"


def test_learning_curves_and_latencies_are_drawn_and_linked(tmp_path):
    rows = grid_rows()
    given = {"histories": histories_of(rows), "latencies": latency_files(tmp_path, rows)}
    text = write_report(tmp_path, rows, context(), **given).read_text()
    for name in ("learning.png", "latency.png"):
        assert f"]({name})" in text
        assert np.asarray(Image.open(tmp_path / name)).std() > 5, "not an empty sheet"
    assert "Learning curves" not in write_report(tmp_path, rows, context(), histories={}, latencies={}).read_text()


@pytest.mark.parametrize(("cells", "epochs"), [(1, 0), (1, 2), (3, 30), (40, 5)])
def test_learning_curves_of_any_number_of_cells_and_epochs(tmp_path, cells, epochs):
    rows = [line for line in many_rows(130) if "qat" in line["method"]][:cells]
    path = learning_figure.learning(histories_of(rows, epochs), tmp_path / "learning.png")
    assert path is not None
    picture = Image.open(path)
    assert picture.height < 800
    assert np.asarray(picture).std() > 5
    assert learning_figure.learning({"a": []}, tmp_path / "none.png") is None


def test_cells_that_share_a_training_share_a_curve_and_the_best_come_first():
    histories = histories_of(grid_rows())
    best = max(histories, key=lambda cell: histories[cell][-1]["val_ssim"])
    names = [name for name, _ in learning_figure._curves({**histories, "copy": histories[best]})]
    assert len(names) == len(histories)
    assert names[0] == f"{best} and 1 more"


def test_an_early_collapse_does_not_squash_the_curves():
    from matplotlib import pyplot

    _, axes = pyplot.subplots()
    learning_figure._limits(axes, [np.array([0.1, 0.93, 0.94, 0.94]), np.array([0.92, 0.93, 0.93, 0.931])], True)
    low, high = axes.get_ylim()
    pyplot.close()
    assert 0.85 < low < 0.93
    assert high > 0.94


def test_latency_strips_are_those_of_the_fastest_networks_each_once(tmp_path):
    rows = many_rows(60)
    files = latency_files(tmp_path, rows)
    path = latency_figure.latencies(files, rows, tmp_path / "many.png")
    few = latency_figure.latencies(
        files, changed(rows[:5], rows[4]["cell"], same_as=rows[3]["cell"]), tmp_path / "few.png"
    )
    assert Image.open(path).height < 2200, "40 strips, not 60"
    assert Image.open(few).height < 350
    assert latency_figure.latencies({}, rows, tmp_path / "none.png") is None


def test_latencies_of_another_shape_are_named(tmp_path):
    rows = grid_rows()
    np.save(tmp_path / "wrong.npy", np.ones(7))
    with pytest.raises(ValueError, match=r"wrong\.npy: shape \(7,\)"):
        latency_figure.latencies({rows[2]["cell"]: tmp_path / "wrong.npy"}, rows, tmp_path / "latency.png")


def test_of_very_many_cells_the_front_and_the_best_are_numbered(tmp_path):
    rows = many_rows(200)
    figures.scatter(rows, tmp_path / "tradeoff.png")
    assert Image.open(tmp_path / "tradeoff.png").height < 1300
    points = panels.plotted(rows)
    front = set(ranking.pareto_front(rows, (ranking.SSIM, ranking.SIZE, ranking.LATENCY)))
    named = figures._named(points, front)
    assert len(points) == 202
    assert len(named) == figures.MOST_NUMBERED
    assert front <= {line["cell"] for _, line in named}
    assert [number for number, _ in named] == sorted(number for number, _ in named)
