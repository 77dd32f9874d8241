"""A report of several processors: each has its own columns, plots, front and recommendation; one is named once."""

import re
from pathlib import Path

from PIL import Image
from plotly import graph_objects

from grid.report.document import plain_text
from grid.report.figures import latencies
from grid.report.figures.interactive import key, plots
from grid.report.figures.latencies import MOST_CELLS, draw_latencies, latency_strips, most_cells
from grid.report.figures.panels import trade_off
from grid.report.inputs import ReportInputs
from grid.report.report import write_report
from grid.report.sections.effects import effects_table
from grid.report.sections.published import published_table
from grid.report.terminal import summary
from grid.results.comparisons.evidence import Evidence
from grid.results.effects import effects
from grid.results.ranking import SIZE, is_latency
from grid.results.recommend import recommend
from grid.results.target import parse_target
from tests.grid.report.report_rows import changed, context, grid_rows, latency_files, text_of

OLD, NEW = "Old CPU @ 2.20GHz", "New CPU"
TARGET = parse_target("ssim>=0.82, minimize latency")
FASTER = 0.1


def two_processors() -> list[dict]:
    """A full grid: cells with fuse_bn were timed on a far faster processor than the others."""
    faster = {line["cell"] for line in grid_rows() if line["fuse_bn"]}
    return [
        {
            key: figure * FASTER if line["cell"] in faster and is_latency(key) and figure is not None else figure
            for key, figure in line.items()
        }
        | {"cpu_model": NEW if line["cell"] in faster else OLD, "reason": ""}
        for line in grid_rows()
    ]


def table_of(text: str, title: str) -> dict[str, dict[str, str]]:
    """The first table behind a heading: its lines by cell, each a mapping from titles of columns."""
    behind = text.split(f"\n## {title}\n")[1]
    lines = [[part.strip() for part in line.strip("|").split("|")] for line in behind.splitlines() if line[:1] == "|"]
    header, found = lines[0], {}
    for line in lines[2:]:
        if len(line) == len(header):
            found.setdefault(line[1 if header[0] == "#" else 0].strip("`"), dict(zip(header, line, strict=True)))
    return found


def test_one_processor_is_named_once_and_changes_nothing_else(tmp_path):
    unnamed = text_of(grid_rows(), target=TARGET)
    rows = [{**line, "cpu_model": OLD} for line in grid_rows()]
    named = text_of(rows, target=TARGET)
    assert named.count(OLD) == 1
    assert named.replace(f" Timed on: {OLD}.", "") == unnamed
    rows = changed(rows, "per_channel-ptq", status="failed", reason="no cores", cpu_model=None, latency_ratio=None)
    rows = changed(rows, "per_channel-ptq", latency_ms_p50=None)
    lost = text_of(rows, target=TARGET)
    assert lost.count(OLD) == 1, "a row without a latency is no row of another processor"


def test_each_processor_has_columns_with_a_best_value_of_its_own(tmp_path):
    text = text_of(two_processors())
    table = table_of(text, "Results")
    for name, other in ((OLD, NEW), (NEW, OLD)):
        column = f"x float [95 % CI] on {name}"
        timed = {line["cell"] for line in two_processors() if line["cpu_model"] == name}
        assert {cell for cell, line in table.items() if line[column] != "–"} == timed
        assert sum(line[column].startswith("**") for line in table.values()) == 1
        assert all(line[f"p50 ms on {other}"] == "–" for cell, line in table.items() if cell in timed)
    assert sum(line["test SSIM"].startswith("**") for line in table.values()) == 1, "accuracies compare everywhere"
    assert f"Timed on 2 processors: {OLD}; {NEW}." in text
    further = table_of(text, "Further figures")
    assert further["per_channel-ptq"][f"p90 ms on {NEW}"] == "–"
    assert further["per_channel-ptq"][f"profiler step ms on {OLD}"] != "–"


def test_seeds_on_two_processors_have_a_mean_latency_on_each(tmp_path):
    rows = [
        {**line, "seed": seed, "cell": f"{line['cell']}-s{seed}", "cpu_model": NEW if seed == 2 else OLD}
        for line in grid_rows()
        for seed in (0, 1, 2)
    ]
    rows = [line | ({"latency_ratio": 0.1} if line["seed"] == 2 else {}) for line in rows]
    line = table_of(text_of(rows), "Results over seeds")["per_channel-ptq"]
    expected = next(line for line in grid_rows() if line["cell"] == "per_channel-ptq")["latency_ratio"]
    assert line[f"x float latency on {OLD}"].removeprefix("≈ ").strip("*") == f"{expected:.2f} ± 0.00"
    assert line[f"x float latency on {NEW}"].removeprefix("≈ ").strip("*") == "0.10"


def test_the_recommendation_has_a_section_for_each_processor(tmp_path):
    rows = two_processors()
    text = text_of(rows, target=TARGET)
    start, old, new, alone = text.split("\n## Accuracy")[0].split("\n## Results")[0].split("\n### ")
    assert "Latencies of different processors do not compare." in start
    assert old.startswith(f"On {OLD}\n\n**Take `per_channel-")
    assert new.startswith(f"On {NEW}\n\n**Take `fuse_bn-")
    assert "fuse_bn" not in old, "neither taken, nor on its front"
    assert re.search(f"Fastest int8 on {OLD}[^:]*: `per_", alone)
    assert re.search(f"Fastest int8 on {NEW}[^:]*: `fuse_bn-", alone)
    assert alone.count("Most accurate") == 1


def test_without_a_latency_in_the_target_one_cell_is_taken_and_its_processor_is_named(tmp_path):
    text = text_of(two_processors()).split("\n## Results")[0]
    assert text.count("**Take `") == 1
    assert f"the float latency on {NEW}." in next(line for line in text.splitlines() if line.startswith("**Take"))
    for name in (OLD, NEW):
        assert f"On the Pareto front of test SSIM, size and latency on {name} (" in text


def test_the_effect_of_an_axis_on_latency_stands_with_its_processor():
    table = effects_table(Evidence(two_processors()), effects(two_processors()))
    assert [column.title.partition("] on ")[2] for column in table.columns[-2:]] == [OLD, NEW]
    lines = {texts[0]: texts for texts in ([plain_text(cell.spans) for cell in row] for row in table.rows)}
    assert lines["fuse_bn"][-2:] == ["–", "–"], "no pair was timed on one processor"
    assert "–" not in "".join(lines["granularity"][-2:])


def test_our_profiler_step_beside_the_published_one_names_its_processor():
    theirs = {"fuse_bn": "true", "granularity": "per_channel", "method": "ptq", "latency_ms": "", "source": "seed"}
    several, one = (
        [plain_text(cell.spans) for cell in published_table(rows, [theirs]).rows[0]]
        for rows in (two_processors(), [{**line, "cpu_model": NEW} for line in grid_rows()])
    )
    assert several[10].endswith(f" on {NEW}")
    assert one[10] != "–"
    assert NEW not in "".join(one)


def test_each_processor_has_a_plot_with_a_front_of_its_own_and_sizes_share_one():
    rows = two_processors()
    sizes, old, new = trade_off(rows).panels
    assert (sizes.measure, sizes.processor, [old.processor, new.processor]) == (SIZE, "", [OLD, NEW])
    numbers = {line["cell"]: number for number, line in enumerate(rows, 1)}
    for panel, name in ((old, OLD), (new, NEW)):
        lines = {point.name: point.number for point in panel.points}
        assert lines == {line["cell"]: numbers[line["cell"]] for line in rows if line["cpu_model"] == name}
    assert [point.number for point in sizes.points] == list(range(1, len(rows) + 1))
    fronts = [{point.name for point in panel.points if point.on_front} for panel in (sizes, old, new)]
    assert fronts[0] == fronts[1] | fronts[2]
    assert fronts[1]


def test_a_name_is_switched_in_all_plots_even_where_a_processor_has_none_of_it():
    rows = [{**line, "cpu_model": NEW if line["method"] == "qat" else OLD} for line in grid_rows()]
    whole = trade_off(rows)
    figures = plots(whole)
    assert len(figures) == 3
    for figure in figures:
        graph_objects.Figure(figure)
        assert {trace["name"] for trace in figure["data"]} == set(key(whole))
    assert [sum(len(trace.get("text", ())) for trace in figure["data"]) for figure in figures] == [14, 10, 4]
    hovers = [text for trace in figures[0]["data"] for text in trace.get("text", ())]
    assert sum(text.endswith(f"float on {NEW}") for text in hovers) == 4
    assert figures[2]["layout"]["xaxis"]["title"]["text"].startswith(f"on {NEW}: latency, multiple of the float")


def test_the_page_shows_the_name_of_a_processor_and_never_obeys_it(tmp_path):
    evil = "<script>alert(1)</script> $x_ | `y`"
    rows = [{**line, "cpu_model": evil if line["cpu_model"] == NEW else OLD} for line in two_processors()]
    inputs = ReportInputs(rows, context(), TARGET, latencies=latency_files(tmp_path, rows))
    text, page = (path.read_text() for path in write_report(tmp_path, inputs))
    assert "<script>alert" not in page
    assert page.count('class="plot"') == 5, "three of the trade-off, and a forest of cells and of axes"
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in text
    header = next(line for line in text.splitlines() if line.startswith("| # | cell"))
    assert header.count(r"\|") == 2, "one in each column of that processor"


def test_strips_of_latencies_stand_by_processor_and_the_figure_keeps_its_size(tmp_path, monkeypatch):
    rows = two_processors()
    files = latency_files(tmp_path, rows)
    drawn = []
    panel = latencies._panel

    def watched(axes, strips, relative):
        drawn.append([line["cell"] for line, _ in strips])
        panel(axes, strips, relative)

    monkeypatch.setattr(latencies, "_panel", watched)
    draw_latencies(latency_strips(files, rows), tmp_path / "two.png")
    old, new = (
        [line["cell"] for line in rows if line["cpu_model"] == name and line["cell"] in files] for name in (OLD, NEW)
    )
    assert drawn == [old, old, new, new]
    assert Image.open(tmp_path / "two.png").height < 1100
    assert most_cells(rows) == MOST_CELLS // 2
    assert "20 fastest of each processor" in text_of(rows, latencies=files)
    assert "40 fastest." in text_of(grid_rows(), latencies=files)


def test_the_text_at_the_end_names_the_processor_of_each_latency_and_of_each_answer():
    rows = two_processors()
    text = summary(rows, recommend(rows, TARGET), Path("/run"))
    (line,) = (line for line in text.splitlines() if line.startswith("per_channel-ptq "))
    assert line.endswith(OLD)
    assert f"{TARGET} on {OLD}: per_" in text
    assert f"{TARGET} on {NEW}: fuse_bn-" in text
    one = [{**line, "cpu_model": OLD} for line in rows]
    assert OLD not in summary(one, recommend(one, TARGET), Path("/run"))
