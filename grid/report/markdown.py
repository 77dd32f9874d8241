"""A document as Markdown (CommonMark with tables), in which every text is shown as it is and obeyed nowhere.

Names, reasons and paths come from files and from other people's code. A viewer that lets HTML through would run a tag
in them, and one that loads pictures would fetch theirs.
"""

import re
from collections.abc import Iterator
from itertools import groupby
from urllib.parse import quote

from grid.report.document import (
    MOST_ROWS,
    Block,
    Cell,
    Code,
    CodeBlock,
    Document,
    Emphasis,
    Items,
    Paragraph,
    Picture,
    Plot,
    Section,
    Span,
    Spans,
    Strips,
    Strong,
    Table,
)

_MOST_LINES = 2 * MOST_ROWS
_CHARACTER_REFERENCE = re.compile(r"&(?=#?\w+;)")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_SPECIAL = re.compile(r"[\\`*~$|]|(?<![^\W_])_|_(?![^\W_])|!(?=\[)")  # an underscore within a word is no emphasis
_LINK = re.compile(r"\][(\[:]")
_BLOCK_START = re.compile(r"(\d{1,9}(?=[.)])|(?=[-+=>#]))")


def markdown_text(document: Document) -> str:
    """Return the whole report; its pictures are files beside it."""
    title = Section((document.title,), document.opening)
    return "\n\n".join([*_section(title, 1), *(part for one in document.sections for part in _section(one, 2))]) + "\n"


def _section(section: Section, level: int) -> Iterator[str]:
    title = re.sub(r"#(?=#*$)", r"\\#", _line(section.title))  # else they would close the heading
    yield f"{'#' * level} {title}"
    for block in section.blocks:
        yield _block(block, level)


def _block(block: Block, level: int) -> str:
    """A block below a heading of ``level``."""
    match block:
        case Paragraph():
            return _first_line(block.spans)
        case Items():
            return "\n".join(f"- {_first_line(item)}" for item in block.items)
        case CodeBlock():
            return _code_block(block.text)
        case Table():
            return _table(block)
        case Picture():
            return f"{'' if block.folded else '!'}[{_line((block.text,))}]({quote(block.file, safe='+=')})"
        case Plot():
            return _block(block.picture, level)
        case Strips():
            return "\n".join(f"- {_line((label,))}" for label, _ in block.strips)
        case Section():
            return "\n\n".join(_section(block, level + 1))


def _code_block(text: str) -> str:
    """The lines of a block; of many the first ones."""
    lines = text.splitlines()
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], f"# and {len(lines) - _MOST_LINES:,} further lines, in report.html"]
    text = "\n".join(lines)
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}sh\n{text}\n{fence}"


def _table(table: Table) -> str:
    """A line a row, of many the first ones; columns of figures are aligned right."""
    header = [_line((column.title,)) for column in table.columns]
    rule = ["--:" if column.kind == "number" else ":--" for column in table.columns]
    lines = ([_cell(cell) for cell in row] for row in table.rows[:MOST_ROWS])
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *lines))
    count = len(table.rows)
    return text if count <= MOST_ROWS else f"{text}\n\nThe first {MOST_ROWS} of {count:,} rows; report.html has all."


def _cell(cell: Cell) -> str:
    text = _line(cell.spans, in_table=True)
    return {"best": f"**{text}**", "tie": f"≈ {text}"}.get(cell.mark, text)


def _first_line(spans: Spans) -> str:
    """The text of a paragraph or an item, which does not begin like a block of another kind."""
    text = _line(spans)
    start = _BLOCK_START.match(text)
    return f"{start[0]}\\{text[start.end() :]}" if start else text


def _line(spans: Spans, in_table: bool = False) -> str:
    """Spans on one line; neighbouring texts are escaped as one, neighbouring codes are kept apart."""
    parts: list[str] = []
    for kind, group in groupby(spans, type):
        if kind is str:
            parts.append(escaped("".join(str(text) for text in group)))
        else:
            parts.append(" ".join(_span(span, in_table) for span in group))
    return "".join(parts).strip()


def _span(span: Span, in_table: bool) -> str:
    match span:
        case Code():
            return _code(span.text, in_table)
        case Emphasis():
            return f"*{escaped(span.text)}*"
        case Strong():
            return f"**{_line(span.spans, in_table)}**"
        case str():
            return escaped(span)


def _code(text: str, in_table: bool) -> str:
    """Code between as many backticks as no run in it has."""
    line = " ".join(text.split())
    if in_table:  # a pipe ends a cell even within code
        line = line.replace("|", "\\|")
    fence = "`" * (_longest_run(line) + 1)
    room = " " if not line or "`" in (line[0], line[-1]) else ""
    return f"{fence}{room}{line}{room}{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def escaped(text: str) -> str:
    """Return text on one line that Markdown shows as it is: no tag, picture, link, emphasis, code or formula."""
    line = re.sub(r"\s+", " ", text)
    line = _SPECIAL.sub(lambda match: f"\\{match[0]}", line)
    if _LINK.search(line):
        line = re.sub(r"[\[\]]", lambda match: f"\\{match[0]}", line)
    return _TAG.sub("&lt;", _CHARACTER_REFERENCE.sub("&amp;", line))
