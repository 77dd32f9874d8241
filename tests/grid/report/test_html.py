"""The rules of the page: it says what report.md says, needs nothing but itself, and obeys no text of a run."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from plotly import graph_objects

from grid.report import figures
from grid.report import interactive as report_plot
from grid.report.html import write_html
from grid.report.page_tokens import Pictures
from grid.report.report import write_report
from grid.results.ranking import compared
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

VOID = ("meta", "img", "br", "hr")


class Page(HTMLParser):
    """Elements (tag, attributes) of a page in their order, the text of each script and style, and all other text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "every element is closed where it should be"

    def handle_data(self, data):
        place = self.open[-1] if self.open else ""
        if place == "script":
            self.scripts.append(data)
        elif place == "style":
            self.styles.append(data)
        else:
            self.text += data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with everything in its report."""
    folder = tmp_path_factory.mktemp("run")
    rows = changed(grid_rows(), "per_channel-qat", reason="")
    rows.append(row("lost", status="failed", reason="out | of * memory", method="qat", fuse_bn=True))
    report = write_report(
        folder,
        rows,
        context(),
        samples=sample_files(folder, rows[:4]),
        histories=histories_of(rows[:-1]),
        latencies=latency_files(folder, rows[:-1]),
        commands={line["cell"]: f"python runner.py --set 'cell={line['cell']}'" for line in rows},
    )
    write_html(report, rows)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text())


def injected(tmp_path, monkeypatch, **given):
    """The page of a grid with one further row."""
    monkeypatch.setattr(figures, "samples", lambda files, rows, path: None)
    rows = [*grid_rows()[:4], row(**{"cell": "x", "method": "qat", "fuse_bn": True, **given})]
    return Page(write_html(write_report(tmp_path, rows, context()), rows).read_text())


def is_safe(page: Page, scripts: int) -> None:
    """No script but those the policy names, no handler, nothing that loads."""
    (policy,) = [meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]
    assert "unsafe-eval" not in policy
    hashes = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in page.scripts}
    assert len(page.scripts) == len(page.of("script")) == scripts
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == hashes
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "source", "svg"), tag
        assert not [name for name in attributes if name.startswith("on") or name in ("srcset", "action")]
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")
    assert not re.search(r"url\(|@import|https?:", "".join(page.styles))


def test_the_page_needs_no_other_file_and_no_network(page):
    is_safe(page, scripts=3)


def test_the_page_is_made_for_small_screens_and_dark_ones(page):
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.of("meta")
    assert "prefers-color-scheme: dark" in page.styles[0]


EVIL = {
    "<script>alert(1)</script>": "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>": "<img src=x onerror=alert(1)>",
    "</code></td></table><script>alert(1)</script>": "</code></td></table><script>alert(1)</script>",
    "[read](javascript:alert(1)) [more](http://evil.test/)": "[read](javascript:alert(1)) more",
    "![seen](http://evil.test/x.png)": "seen",
    "<http://evil.test/>": "http://evil.test/",
}


@pytest.mark.parametrize("text", EVIL)
def test_a_reason_is_shown_and_never_obeyed(tmp_path, monkeypatch, text):
    page = injected(tmp_path, monkeypatch, status="failed", reason=text)
    is_safe(page, scripts=3)
    assert page.text.count(EVIL[text]) == 2, "in the table and in the list of reasons"


@pytest.mark.parametrize("name", ["</script><script>alert(1)//", "<!--<script>", "<b onmouseover=alert(1)>", "a`<i>`"])
def test_the_name_of_a_cell_is_shown_and_never_obeyed(tmp_path, monkeypatch, name):
    figures_of_cell = {key: value for key, value in grid_rows()[3].items() if key not in ("cell", "method", "fuse_bn")}
    page = injected(tmp_path, monkeypatch, **{**figures_of_cell, "cell": name, "graph_hash": "f"})
    is_safe(page, scripts=3)
    assert not [tag for tag, _ in page.elements if tag in ("b", "i")]
    assert name.strip("`") in page.text or name.split("`")[0] in page.text
    hover = report_plot.plots([*grid_rows()[:4], row(**{**grid_rows()[3], "cell": name})])[0]["data"][-1]["text"][-1]
    assert name not in hover, "Plotly reads HTML in hover texts"


def test_every_picture_of_the_report_is_in_the_page(folder, page):
    names = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (folder / "report.md").read_text())
    assert names == ["tradeoff.png", "samples.png", "latency.png", "learning.png"]
    inlined = [base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in page.of("img")]
    assert inlined == [(folder / name).read_bytes() for name in names]


def test_a_picture_outside_the_folder_or_of_another_kind_is_not(tmp_path, folder):
    run = tmp_path / "run"
    run.mkdir()
    content = (folder / "tradeoff.png").read_bytes()
    (tmp_path / "secret.png").write_bytes(content)
    (run / "link.png").symlink_to(tmp_path / "secret.png")
    (run / "notes.png").write_text("no picture")
    (run / "notes.txt").write_text("no picture")
    (run / "good.png").write_bytes(content)
    pictures = Pictures(run)
    for address in ("../secret.png", str(tmp_path / "secret.png"), "link.png", "notes.png", "notes.txt", "a%00.png"):
        assert pictures.html(address, "the <text>") == "the &lt;text&gt;"
    assert pictures.html("good.png", "").startswith('<img src="data:')
    left = Pictures(run, left=len(content))
    assert left.html("good.png", "").startswith("<img")
    assert left.html("good.png", "the text") == "the text: <code>good.png</code> beside this page"


def test_a_link_to_a_picture_is_a_picture_to_unfold(tmp_path, folder):
    (tmp_path / "a+b.png").write_bytes((folder / "tradeoff.png").read_bytes())
    (tmp_path / "report.md").write_text("# R\n\n[Ranges](a+b.png)\n\n[gone](gone.png)\n")
    page = Page(write_html(tmp_path / "report.md", []).read_text())
    assert len(page.of("details")) == len(page.of("img")) == 1
    assert "Ranges" in page.text
    assert "gone" in page.text
    is_safe(page, scripts=1)


def test_the_page_says_what_the_report_says(folder, page):
    report = (folder / "report.md").read_text()
    titles = re.findall(r"^## (.*)$", report, re.MULTILINE)
    assert len(titles) >= 10
    ids = [attributes["id"] for attributes in page.of("h2")]
    assert [link["href"] for link in page.of("a")] == [f"#{name}" for name in ids]
    assert len(set(ids)) == len(titles)
    for title in titles:
        assert page.text.count(title) >= 2, "as a heading and in the contents"
    flat = " ".join(page.text.split())
    for line in report.splitlines():
        if line.startswith("| ") and "--:" not in line:
            for cell in line.strip("| ").split(" | "):
                assert re.sub(r"[`*\\]", "", cell).strip() in flat.replace("*", "")


def test_every_table_scrolls_and_sorts_and_its_figures_are_known_as_such(folder, page):
    tables = page.of("table")
    rules = [line for line in (folder / "report.md").read_text().splitlines() if re.match(r"\| :?--", line)]
    assert len(tables) == len(rules) >= 4
    assert all(table == {"class": "sortable"} for table in tables)
    assert [attributes["class"] for attributes in page.of("div")].count("table") == len(tables)
    headers = [attributes.get("class", "") for attributes in page.of("th")]
    assert sum("number" in classes for classes in headers) == sum(rule.count("--:") for rule in rules)
    assert sum("name" in classes.split() for classes in headers) == len(tables)
    assert "table.sortable" in page.scripts[0]


def test_the_column_that_stays_in_sight_is_that_of_the_cells(tmp_path):
    (tmp_path / "report.md").write_text("| # | cell |\n|--:|:--|\n| 1 | a |\n\n| axis | step |\n|:--|:--|\n| m | n |\n")
    page = Page(write_html(tmp_path / "report.md", []).read_text())
    assert [cell.get("class") for cell in page.of("th")] == ["number", "name", "name", None]
    assert [cell.get("class") for cell in page.of("td")] == ["number", "name", "name", None]


def test_the_plots_are_figures_of_plotly_that_show_every_measured_cell():
    rows = grid_rows()
    for plot, column in zip(report_plot.plots(rows), ("size_mb", "latency_ratio"), strict=True):
        graph_objects.Figure(plot)  # raises on what Plotly does not know
        cells = [trace for trace in plot["data"] if "text" in trace]
        assert {trace["name"]: trace["marker"]["color"] for trace in cells} == figures.COLOURS
        points = sorted(point for trace in cells for point in zip(trace["x"], trace["y"], strict=True))
        assert points == sorted((line[column], line["test_ssim"]) for line in rows)
        texts = " ".join(text for trace in cells for text in trace["text"])
        assert all(f"{number}  {line['cell']}</b>" in texts for number, line in enumerate(rows, 1))
        assert f"SQNR dB {rows[5]['sqnr_db']:.2f}" in texts


def test_shape_and_filling_say_granularity_and_fusing():
    traces = {trace["name"]: trace for trace in report_plot.plots(grid_rows())[0]["data"]}
    assert traces["fp32"]["marker"]["symbol"] == ["diamond-open", "diamond"]
    assert traces["ptq"]["marker"]["symbol"] == ["circle-open", "square-open", "circle", "square"]


def test_the_key_names_every_trace_once_and_switches_both_plots(page):
    buttons = {button["value"]: button["style"].removeprefix("--colour: ") for button in page.of("button")}
    found = report_plot.plots(grid_rows())
    assert list(buttons) == ["fp32", "ptq", "qat", "ptq+qat", report_plot.FRONT_OF_PLOT, report_plot.FRONT_OF_ALL]
    assert {name: buttons[name] for name in figures.COLOURS} == figures.COLOURS
    for plot in found:
        assert sorted(trace["name"] for trace in plot["data"]) == sorted(buttons)
        assert not plot["layout"]["showlegend"]


def test_only_the_latency_has_intervals_and_a_missing_one_no_length():
    rows = changed(grid_rows(), "per_channel-ptq", latency_ratio_low=None, latency_ratio_high=None)
    size, latency = report_plot.plots(rows)
    assert not any("error_x" in trace for trace in size["data"])
    (trace,) = (trace for trace in latency["data"] if trace["name"] == "ptq")
    assert (trace["error_x"]["array"][0], trace["error_x"]["arrayminus"][0]) == (0.0, 0.0)
    assert trace["error_x"]["array"][1] == pytest.approx(0.01 * trace["x"][1])


def test_with_several_seeds_the_plots_show_recipes(tmp_path):
    rows = [{**line, "seed": seed, "cell": f"{line['cell']}-s{seed}"} for line in grid_rows() for seed in (0, 1)]
    html = write_html(write_report(tmp_path, rows, context()), rows).read_text()
    data = html.split("const PLOTS = ")[1].split("\n")[0]
    assert len(compared(rows)) == 14
    assert data.count("\\u003c/b>") == 2 * 14


def test_a_report_without_figures_has_no_plots_and_is_small(tmp_path):
    rows = [{"cell": "a", "status": "failed", "reason": "out of memory", "method": "ptq", "fuse_bn": False}]
    path = write_html(write_report(tmp_path, rows, context()), rows)
    assert path.stat().st_size < 50_000
    is_safe(Page(path.read_text()), scripts=1)


def test_a_page_of_200_cells_stays_below_10_mb(tmp_path):
    rows = many_rows(200)
    report = write_report(
        tmp_path,
        rows,
        context(),
        samples=sample_files(tmp_path, rows),
        histories=histories_of(rows, 30),
        latencies=latency_files(tmp_path, rows),
        commands={line["cell"]: "python runner.py --grid full --set a=b " * 4 for line in rows},
    )
    path = write_html(report, rows)
    assert path.stat().st_size < 10_000_000
    page = Page(path.read_text())
    assert page.of("img")[0]["alt"].startswith("SSIM"), "the most important picture is in it"
    assert all(line["cell"] in page.text for line in rows)
