"""The rules of the page: it says what report.md says, needs nothing but itself, and obeys no text of a run."""

import base64
import re
from pathlib import Path

import pytest

from grid.report.document import Column, Document, Picture, Section, Table
from grid.report.embedding import Embedded, Embedder
from grid.report.figures.interactive import plots
from grid.report.figures.panels import trade_off
from grid.report.html import html_page
from tests.grid.report.html_page import Page, is_safe, page_of
from tests.grid.report.report_rows import (
    grid_rows,
    row,
)


def injected(folder: Path, **given) -> Page:
    """The page of a grid with one further row."""
    return Page(page_of([*grid_rows()[:4], row(**{"cell": "x", "method": "qat", "fuse_bn": True, **given})], folder))


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
    drawn = ["against-float.png", "tradeoff.png", "axes.png", "samples.png", "latency.png", "learning.png"]
    assert names == drawn
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
