"""What a report says, before a writer turns it into Markdown or HTML.

No text in here is markup: the writers escape every string, wherever it comes from.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from grid.report.figures.forest import Forest
from grid.report.figures.panels import TradeOff

MOST_ROWS = 100
"""Rows of a table that are seen at once."""


@dataclass(frozen=True)
class Code:
    """A name, a path or a command within a sentence."""

    kind: ClassVar = "code"
    text: str


@dataclass(frozen=True)
class Emphasis:
    """A term where it is explained."""

    kind: ClassVar = "emphasis"
    text: str


@dataclass(frozen=True)
class Strong:
    """What a reader should not miss."""

    kind: ClassVar = "strong"
    spans: tuple[str | Code, ...]


Span = str | Code | Emphasis | Strong
Spans = tuple[Span, ...]


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of text."""

    kind: ClassVar = "paragraph"
    spans: Spans


@dataclass(frozen=True)
class Items:
    """A list, an item a line."""

    kind: ClassVar = "items"
    items: tuple[Spans, ...]


@dataclass(frozen=True)
class CodeBlock:
    """Shell commands to copy, line by line."""

    kind: ClassVar = "code_block"
    text: str


@dataclass(frozen=True)
class Column:
    """A column of a table: of text, of figures (aligned right), or of the names that stay in sight.

    ``filter`` is what a reader of a long table may choose rows by; empty where the column is not meant for it.
    """

    title: str
    kind: Literal["text", "number", "name"] = "text"
    filter: str = ""


@dataclass(frozen=True)
class Cell:
    """An entry of a table; ``figure`` is what a column of figures is sorted by, and None is sorted last.

    ``choice`` is what a filter calls it, where that is not its text.
    """

    spans: Spans
    figure: float | None = None
    mark: Literal["", "best", "tie"] = ""
    choice: str = ""


@dataclass(frozen=True)
class Table:
    """A table; raises ValueError where a row has more or fewer cells than there are columns.

    Of one with more than ``MOST_ROWS`` rows the writers show the first ones: the page has the others behind them, on
    pages that are turned, searched and filtered; Markdown says how many there are.
    """

    kind: ClassVar = "table"
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row has {len(row)} cells; expected {len(self.columns)}, one for each column")

    def ordered(self, names: Sequence[str]) -> "Table":
        """Return it with its rows in the order of ``names``, which its column of names holds; others come last."""
        (column,) = (place for place, one in enumerate(self.columns) if one.kind == "name")
        places = {name: place for place, name in enumerate(names)}
        rows = sorted(self.rows, key=lambda row: places.get(plain_text(row[column].spans), len(places)))
        return replace(self, rows=tuple(rows))


@dataclass(frozen=True)
class Picture:
    """A PNG file in the report's folder, and the function that writes it to a given path.

    A ``folded`` picture is opened by the reader. Raises ValueError where ``file`` is not the name of a PNG file.
    """

    kind: ClassVar = "picture"
    file: str
    text: str
    draw: Callable[[Path], object]
    folded: bool = False

    def __post_init__(self) -> None:
        if Path(self.file).name != self.file or not self.file.endswith(".png"):
            raise ValueError(f"picture {self.file!r} is not the name of a PNG file")


@dataclass(frozen=True)
class Plot:
    """The trade-off or differences as interactive plots, with a picture of the same where scripts do not run."""

    kind: ClassVar = "plot"
    shown: TradeOff | Forest
    picture: Picture


@dataclass(frozen=True)
class Part:
    """A part of a strip: what is shown where the pointer rests on it, its width (of any unit), and its colour."""

    text: str
    width: float
    colour: str


@dataclass(frozen=True)
class Strips:
    """Strips of coloured parts below each other, each from its first part to its last over the whole width.

    ``strips`` has a label and the parts for each, ``key`` the words for the colours.
    """

    kind: ClassVar = "strips"
    strips: tuple[tuple[str, tuple[Part, ...]], ...]
    key: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it, possibly sections of the next level."""

    kind: ClassVar = "section"
    title: Spans
    blocks: tuple["Block", ...]

    @property
    def anchor(self) -> str:
        """The id of its heading, for links within the page."""
        return re.sub(r"\W+", "-", plain_text(self.title).lower()).strip("-")


Block = Paragraph | Items | CodeBlock | Table | Picture | Plot | Strips | Section


@dataclass(frozen=True)
class Document:
    """A whole report: its title, what stands before the first section, and the sections."""

    title: str
    opening: tuple[Block, ...]
    sections: tuple[Section, ...]


def spans(sentence: str) -> Spans:
    """Return a sentence with what stands between two backticks as code."""
    parts = re.split(r"`([^`]+)`", sentence)
    return tuple(Code(part) if number % 2 else part for number, part in enumerate(parts) if part)


def plain_text(parts: Spans) -> str:
    """Return the words alone."""
    return "".join(
        part if isinstance(part, str) else plain_text(part.spans) if isinstance(part, Strong) else part.text
        for part in parts
    )


def pictures(blocks: tuple[Block, ...]) -> list[Picture]:
    """Return all pictures in ``blocks``, in their order."""
    listed: list[Picture] = []
    for block in blocks:
        match block:
            case Picture():
                listed.append(block)
            case Plot():
                listed.append(block.picture)
            case Section():
                listed += pictures(block.blocks)
    return listed
