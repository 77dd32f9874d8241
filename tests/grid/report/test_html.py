"""The rules of the page: it says what report.md says, needs nothing but itself, and obeys no text of a run."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from grid.report.cells import count_cell, name_cell, text_cell
from grid.report.document import Column, Document, Picture, Section, Table
from grid.report.embedding import Embedded, Embedder
from grid.report.figures import colours
from grid.report.figures.interactive import plots
from grid.report.figures.panels import FRONT_OF_ALL, FRONT_OF_PLOT, trade_off
from grid.report.html import html_page
from grid.report.inputs import ReportInputs
from grid.report.report import report, write_report
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


class Entry:
    """A cell of a table: its attributes and its text."""

    def __init__(self, attributes: dict[str, str]) -> None:
        self.attributes, self.text = attributes, ""


class Page(HTMLParser):
    """Elements (tag, attributes) of a page in their order, the text of each script and style, and all other text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.tables: list[list[list[Entry]]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append(Entry(dict(attrs)))

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
            if {"th", "td"} & set(self.open):
                self.tables[-1][-1][-1].text += data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with everything in its report."""
    folder = tmp_path_factory.mktemp("run")
    rows = changed(grid_rows(), "per_channel-qat", reason="")
    rows.append(row("lost", status="failed", reason="out | of * memory", method="qat", fuse_bn=True))
    inputs = ReportInputs(
        rows,
        context(),
        samples=sample_files(folder, rows[:4]),
        histories=histories_of(rows[:-1]),
        latencies=latency_files(folder, rows[:-1]),
        commands={line["cell"]: f"python runner.py --set 'cell={line['cell']}'" for line in rows},
    )
    write_report(folder, inputs)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text())


def page_of(rows: list[dict], folder: Path, **given) -> str:
    """The page of these rows with the pictures that are in ``folder``; none is drawn."""
    return html_page(report(ReportInputs(rows, context(), **given)), folder)


def injected(folder: Path, **given) -> Page:
    """The page of a grid with one further row."""
    return Page(page_of([*grid_rows()[:4], row(**{"cell": "x", "method": "qat", "fuse_bn": True, **given})], folder))


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


EVIL = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</code></td></table><script>alert(1)</script>",
    "[read](javascript:alert(1)) [more](http://evil.test/)",
    "![seen](http://evil.test/x.png)",
    "<http://evil.test/>",
    "{{ 7 * 7 }} {% include 'page.css' %}",
)


@pytest.mark.parametrize("text", EVIL)
def test_a_reason_is_shown_and_never_obeyed(tmp_path, text):
    page = injected(tmp_path, status="failed", reason=text)
    is_safe(page, scripts=3)
    assert page.text.count(text) == 2, "in the table and in the list of reasons"


@pytest.mark.parametrize("name", ["</script><script>alert(1)//", "<!--<script>", "<b onmouseover=alert(1)>", "a`<i>`"])
def test_the_name_of_a_cell_is_shown_and_never_obeyed(tmp_path, name):
    figures_of_cell = {key: value for key, value in grid_rows()[3].items() if key not in ("cell", "method", "fuse_bn")}
    page = injected(tmp_path, **{**figures_of_cell, "cell": name, "graph_hash": "f"})
    is_safe(page, scripts=3)
    assert not [tag for tag, _ in page.elements if tag in ("b", "i")]
    assert name in page.text
    whole = trade_off([*grid_rows()[:4], row(**{**grid_rows()[3], "cell": name})])
    hover = plots(whole)[0]["data"][-1]["text"][-1]
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
    embedded = Embedder(run).embedded
    for name in ("../secret.png", str(tmp_path / "secret.png"), "link.png", "notes.png", "notes.txt", "a\0.png"):
        assert embedded(name) is None
    assert embedded("good.png").source.startswith("data:image/png;base64,")
    one = Embedder(run, left=len(content)).embedded
    assert one("good.png").source
    assert one("good.png") == Embedded("", one("good.png").width, one("good.png").height), "no room for a second one"


def test_a_picture_that_is_not_in_the_page_leaves_its_words(tmp_path, monkeypatch, folder):
    (tmp_path / "large.png").write_bytes((folder / "tradeoff.png").read_bytes())
    monkeypatch.setattr("grid.report.html.Embedder", lambda folder: Embedder(folder, 10))
    pictures = (picture("large.png", "the <large> one"), picture("gone.png", "the <gone> one"))
    html = html_page(Document("R", (), (Section(("S",), pictures),)), tmp_path)
    assert "<p>the &lt;large&gt; one: <code>large.png</code> beside this page</p>" in html
    assert "<p>the &lt;gone&gt; one</p>" in html
    assert not Page(html).of("img")


def picture(file: str, text: str, folded: bool = False) -> Picture:
    return Picture(file, text, lambda path: None, folded)


def test_a_folded_picture_is_unfolded_by_the_reader(tmp_path, folder):
    (tmp_path / "a+b.png").write_bytes((folder / "tradeoff.png").read_bytes())
    blocks = (picture("a+b.png", "Ranges", True), picture("gone.png", "gone", True))
    page = Page(html_page(Document("R", (), (Section(("S",), blocks),)), tmp_path))
    assert len(page.of("details")) == len(page.of("img")) == 1
    assert "Ranges" in page.text
    assert "gone" in page.text
    is_safe(page, scripts=1)


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "a/b.png", "a.svg", "a.png/", "http://x/a.png", ""])
def test_a_picture_is_a_png_file_of_the_report_s_own_folder(name):
    with pytest.raises(ValueError, match="is not the name of a PNG file"):
        picture(name, "text")


def test_a_row_has_a_cell_for_each_column():
    with pytest.raises(ValueError, match="a row has 0 cells; expected 1"):
        Table((Column("a"),), ((),))


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


def test_the_column_that_stays_in_sight_is_that_of_the_names(tmp_path):
    table = Table(
        (Column("#", "number"), Column("cell", "name"), Column("note")),
        ((count_cell(1), name_cell("a"), text_cell("b")),),
    )
    page = Page(html_page(Document("R", (), (Section(("S",), (table,)),)), tmp_path))
    assert [cell.get("class") for cell in page.of("th")] == ["number", "name", None]
    assert [cell.get("class") for cell in page.of("td")] == ["number", "name", None]


def test_a_column_of_figures_is_sorted_by_what_they_are_and_not_by_what_is_shown(tmp_path):
    rows = changed(grid_rows(), "per_channel-ptq", test_ssim=0.83004, latency_ratio=None)
    cells = results_of(Page(page_of(rows, tmp_path)))
    assert cells["per_channel-ptq"]["SSIM"] == ("0.8300", "0.83004")
    assert cells["per_channel-ptq"]["x float [95 % CI]"] == ("–", None)
    assert cells["fp32"]["x float [95 % CI]"] == ("1.00x [0.99, 1.01]", "1")


def results_of(page: Page) -> dict[str, dict[str, tuple[str, str | None]]]:
    """Text and sorted figure of the first table, by cell and title."""
    header, *lines = page.tables[0]
    titles = [entry.text for entry in header]
    return {
        line[1].text: {
            title: (entry.text, entry.attributes.get("data-figure")) for title, entry in zip(titles, line, strict=True)
        }
        for line in lines
    }


def test_a_further_axis_of_numbers_is_sorted_as_numbers_and_another_one_as_text(tmp_path):
    rows = [
        {**line, "qat.epochs": number, "equalize.objective": "noise" if number % 2 else None}
        for number, line in enumerate(grid_rows())
    ]
    page = Page(page_of(changed(rows, "fp32", **{"qat.epochs": None}), tmp_path))
    cells = results_of(page)
    assert cells["fp32-fuse_bn"]["qat.epochs"] == ("1", "1")
    assert cells["fp32-fuse_bn"]["equalize.objective"] == ("noise", None)
    assert cells["fp32"]["qat.epochs"] == ("–", None)
    classes = {entry.text: entry.attributes.get("class") for entry in page.tables[0][0]}
    assert (classes["qat.epochs"], classes["equalize.objective"]) == ("number", None)


def test_the_key_names_every_trace_once_and_switches_both_plots(page):
    buttons = {button["value"]: button["style"].removeprefix("--colour: ") for button in page.of("button")}
    assert list(buttons) == ["fp32", "ptq", "qat", "ptq+qat", FRONT_OF_PLOT, FRONT_OF_ALL]
    assert {name: buttons[name] for name in colours.METHODS} == colours.METHODS
    for plot in plots(trade_off(grid_rows())):
        assert sorted(trace["name"] for trace in plot["data"]) == sorted(buttons)
        assert not plot["layout"]["showlegend"]


def test_with_several_seeds_the_plots_show_recipes(tmp_path):
    rows = [{**line, "seed": seed, "cell": f"{line['cell']}-s{seed}"} for line in grid_rows() for seed in (0, 1)]
    html = page_of(rows, tmp_path)
    data = html.split("const PLOTS = ")[1].split("\n")[0]
    assert len(compared(rows)) == 14
    assert data.count("\\u003c/b>") == 2 * 14


def test_a_report_without_figures_has_no_plots_and_is_small(tmp_path):
    rows = [{"cell": "a", "status": "failed", "reason": "out of memory", "method": "ptq", "fuse_bn": False}]
    html = page_of(rows, tmp_path)
    assert len(html) < 50_000
    is_safe(Page(html), scripts=1)


def test_a_page_of_200_cells_stays_below_10_mb(tmp_path):
    rows = many_rows(200)
    inputs = ReportInputs(
        rows,
        context(),
        samples=sample_files(tmp_path, rows),
        histories=histories_of(rows, 30),
        latencies=latency_files(tmp_path, rows),
        commands={line["cell"]: "python runner.py --grid full --set a=b " * 4 for line in rows},
    )
    _, path = write_report(tmp_path, inputs)
    assert path.stat().st_size < 10_000_000
    page = Page(path.read_text())
    assert page.of("img")[0]["alt"].startswith("SSIM"), "the most important picture is in it"
    assert all(line["cell"] in page.text for line in rows)
