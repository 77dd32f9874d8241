"""Names, reasons, paths and commands of a run are shown in its report and never obeyed, in Markdown and in HTML."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from grid.planning.output_files import ANALYSIS_CSV, ANALYSIS_ERRORS, ANALYSIS_RANGES
from grid.report.document import (
    Cell,
    Code,
    CodeBlock,
    Column,
    Document,
    Items,
    Paragraph,
    Picture,
    Section,
    Table,
    spans,
)
from grid.report.html import html_page
from grid.report.inputs import ReportInputs
from grid.report.markdown import markdown_text
from grid.report.report import write_report
from grid.results.target import parse_target
from tests.grid.report.report_rows import context, grid_rows, histories_of, latency_files, row

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "`<script>alert(1)</script>`",
    "a`<b onmouseover=alert(1)>`",
    "``` <script>alert(1)</script>",
    "\\<script>alert(1)</script>",
    "</code></td></table><script>alert(1)</script>",
    "<!--",
    "![seen](http://evil.test/x.png)",
    "[read](javascript:alert(1))",
    '"onload=alert(1) x="',
    "$\\frac{$",
    "a\n\n<script>alert(1)</script>\n\n| b |",
    "= ' <b> |",
)
OBEYS_HTML = MarkdownIt("commonmark", {"html": True}).enable("table")
OBEYS_HTML.validateLink = lambda url: True  # type: ignore[method-assign]
"""A viewer that does what a text says."""


def obeyed(markdown: str) -> list[str]:
    """The tags, foreign pictures and links that run, of a text in such a viewer."""
    found = []
    for block in OBEYS_HTML.parse(markdown):
        for token in (block, *(block.children or [])):
            if token.type in ("html_block", "html_inline"):
                found.append(token.content)
            elif token.type == "image" and not re.fullmatch(r"[^/:]+\.png", str(token.attrs["src"])):
                found.append(str(token.attrs["src"]))
            elif token.type == "link_open" and not re.match(r"https?:|[^:]*$", str(token.attrs["href"])):
                found.append(str(token.attrs["href"]))
    return found


def test_a_viewer_that_obeys_would_be_seen():
    obeys = {text: obeyed(f"# Grid\n\nwhy: {text} and") for text in HOSTILE}
    assert sum(bool(found) for found in obeys.values()) >= 8
    assert obeys["![seen](http://evil.test/x.png)"] == ["http://evil.test/x.png"]
    assert obeys["[read](javascript:alert(1))"] == ["javascript:alert(1)"]
    assert obeys["`<script>alert(1)</script>`"] == [], "code"


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] == "script":
            self.scripts.append(data)


def is_safe(html: str) -> None:
    """No tag but those of the page, no handler, and its own scripts alone."""
    page = Tags(html)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', html)
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    scripts = [script for script in page.scripts if script.strip()]
    assert {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts} == allowed
    for tag, attributes in page.elements:
        assert tag not in ("b", "i", "iframe", "object", "embed", "base", "form", "link", "svg"), tag
        assert not [name for name in attributes if name.startswith("on")]
        assert str(attributes.get("src", "data:")).startswith("data:")
        assert str(attributes.get("href", "#")).startswith("#")


def hostile_analysis(folder, text):
    """An analysis whose sites are named after ``text``, with pictures that are none."""
    columns = "rank,site,kind,isolated_sqnr_db,cumulative_sqnr_db,site_sqnr_db,low,high,noise_share,spread"
    quoted = '"' + text.replace('"', '""') + '"'
    (folder / ANALYSIS_CSV).write_text(f"{columns}\n1,{quoted},{quoted},1,1,1,0,1,0.5,1\n")
    for name in (ANALYSIS_ERRORS, ANALYSIS_RANGES):
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_is_shown_and_not_obeyed_wherever_it_comes_from(tmp_path, text):
    first = grid_rows()[:6]
    ours = {**first[3], "cell": text, "graph_hash": "f", "artifact": text, "network.encoder": text, "engine": text}
    rows = [*first, row(**ours), row(**{**ours, "cell": f"{text}2", "same_as": text, "qat.mode": text})]
    rows.append(row(f"{text}3", status="failed", reason=text, method=text, granularity=text, fuse_bn=True))
    inputs = ReportInputs(
        rows,
        context(run=text, origin=text, command=f"python runner.py --data '{text}'", **{text: text}),
        analyses={"fuse_bn-ptq": hostile_analysis(tmp_path, text)},
        histories=histories_of(rows[:-1]),
        latencies=latency_files(tmp_path, rows[:-1]),
        commands={line["cell"]: f"python runner.py --set 'a={text}'" for line in rows},
        target=parse_target("minimize size_mb"),
    )
    report, page = write_report(tmp_path / "run", inputs)
    assert obeyed(report.read_text()) == []
    is_safe(page.read_text())


PIECES = ("`", "``", "<b>", "</b>", "<!--", "![a](b)", "![a](http://x/y.png)", "|", "\n", "\n\n", "- ", "# ", "\\", " ")
PIECES += ("```sh", "```", "[a](", "javascript:", "x", "| --- |", "> ", "    ", "&lt;", "*", "_", "~~", "$", "=", "1. ")
PIECES += ("[a]: http://x/", "[a]", "](x)", "!", "<http://x/>", "{{ x }}", "{% x %}", "'", '"')


def everywhere(text: str) -> Document:
    """A document with a text in every place that holds one."""
    table = Table(
        (Column(text), Column("name", "name"), Column("figure", "number"), Column("tie")),
        ((Cell((text,)), Cell((Code(text),)), Cell((text,), 1.0, "best"), Cell((Code(text), text), mark="tie")),),
    )
    picture = Picture("a.png", text, lambda path: None)
    blocks = (
        Paragraph((text,)),
        Items(((text,), (Code(text), ": ", text), spans(text), (text, Code(text), Code(text), text))),
        table,
        picture,
        Picture("b.png", text, lambda path: None, folded=True),
        CodeBlock(text),
        Section((Code(text),), (Paragraph((text, text)),)),
    )
    return Document(text, (Paragraph((text,)),), (Section((text,), blocks),))


texts = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(texts)
def test_no_text_gets_a_tag_a_foreign_picture_or_a_link_past(text):
    assert obeyed(markdown_text(everywhere(text))) == []


@settings(max_examples=100, deadline=None, derandomize=True)
@given(texts)
def test_no_text_gets_past_the_page(tmp_path_factory, text):
    html = html_page(everywhere(text), tmp_path_factory.getbasetemp())
    is_safe(html)
    page = Tags(html)
    assert {tag for tag, _ in page.elements} <= OF_THE_PAGE


OF_THE_PAGE = {"html", "head", "meta", "title", "style", "noscript", "body", "main", "h1", "h2", "h3", "p", "nav", "a"}
OF_THE_PAGE |= {"ul", "li", "div", "table", "thead", "tbody", "tr", "th", "td", "code", "strong", "pre", "script"}


def said(markdown: str) -> list[str]:
    """The words of each paragraph, item, heading and cell, as a viewer shows them."""
    blocks = [block.children or [] for block in OBEYS_HTML.parse(markdown) if block.type == "inline"]
    return ["".join(child.content for child in children) for children in blocks]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(texts.filter(str.strip))
def test_every_text_is_shown_as_it_is_in_markdown(text):
    cells = (Cell((text,)), Cell((Code(text),)), Cell((text,), mark="best"))
    table = Table((Column("a"), Column("b"), Column("c")), (cells,))
    blocks = (Paragraph((text,)), Items(((text,), (Code(text), " ", text))), table)
    words = said(markdown_text(Document(text, (), (Section(("S",), blocks),))))
    line = " ".join(text.split())
    expected = [line, "S", line, line, f"{line} {line}", "a", "b", "c", line, line, line]
    assert [" ".join(shown.split()) for shown in words] == expected


def test_our_own_sentences_need_no_escapes():
    sentences = (
        "6 of 12 int8 cells keep size_mb<=1.5: it has ssim 0.9, latency 1.6.",
        "SSIM 0.9269 (float 0.9285, -0.0016), 1.387 MB, 2.55x [2.53, 2.59] the float latency",
        "≈: a tie with it (differences up to MSE: 1.0 %; SSIM: 0.001) & more, fuse_bn per_channel",
    )
    text = markdown_text(Document("Grid smoke-1", tuple(Paragraph((one,)) for one in sentences), ()))
    assert text == "\n\n".join(("# Grid smoke-1", *sentences)) + "\n"


def test_a_hostile_command_cannot_leave_its_block():
    text = "run `x`\n```\n<script>\n````sh\n<b>"
    markdown = markdown_text(Document("R", (CodeBlock(text),), ()))
    assert obeyed(markdown) == []
    (block,) = (token for token in OBEYS_HTML.parse(markdown) if token.type == "fence")
    assert block.content == f"{text}\n"
