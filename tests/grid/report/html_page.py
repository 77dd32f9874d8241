"""A page of the report, taken apart."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

from grid.report.html import html_page
from grid.report.inputs import ReportInputs
from grid.report.report import report
from tests.grid.report.report_rows import (
    context,
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


def page_of(rows: list[dict], folder: Path, **given) -> str:
    """The page of these rows with the pictures that are in ``folder``; none is drawn."""
    return html_page(report(ReportInputs(rows, context(), **given)), folder)


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
