"""Markdown tokens of a report -> those of its page: pictures inside, tables that scroll and sort, no foreign links."""

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import unquote

from markdown_it.token import Token
from PIL import Image

MOST_PICTURE_BYTES = 3_000_000
"""Of all pictures of a page together; those beyond stay files beside it, and the page names them."""
_NAME_COLUMNS = ("cell", "recipe", "our cell", "site")


@dataclass
class Pictures:
    """Puts the PNG files of ``folder`` into a page, as many as ``left`` bytes allow."""

    folder: Path
    left: int = MOST_PICTURE_BYTES

    def html(self, address: str, text: str) -> str:
        """Return the ``img`` of a picture, or ``text`` where it is no PNG file of the folder or no room is left."""
        name = unquote(address)
        try:
            file = (self.folder / name).resolve()
            if not file.is_relative_to(self.folder.resolve()) or file.suffix != ".png":
                return escape(text)
            with Image.open(file) as picture:
                width, height = picture.size
            content = file.read_bytes()
        except (OSError, ValueError):
            return escape(text)
        if len(content) > self.left:
            return f"{escape(text)}: <code>{escape(name)}</code> beside this page"
        self.left -= len(content)
        source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        size = f'width="{width}" height="{height}" style="--width: {width}px"'
        return f'<img src="{source}" alt="{escape(text)}" {size} decoding="async">'


def page_tokens(tokens: Sequence[Token], pictures: Pictures, plots: str, plotted: str) -> list[Token]:
    """Return the tokens of the page, in a new list; the given ones are changed where they stay.

    ``plots`` is HTML that goes in front of the picture named ``plotted``; nothing goes there where it is empty.
    """
    found: list[Token] = []
    position = 0
    while position < len(tokens):
        token = tokens[position]
        if token.type == "paragraph_open" and (alone := _alone(tokens[position + 1])):
            found.append(_html(_picture(*alone, pictures, plots, plotted)))
            position += 3
            continue
        if token.type == "table_open":
            end = next(k for k in range(position, len(tokens)) if tokens[k].type == "table_close")
            found += _table(tokens[position : end + 1])
            position = end + 1
            continue
        if token.type == "heading_open":
            token.attrs["id"] = anchor(tokens[position + 1].content)
        found.append(_plain(token))
        position += 1
    return found


def anchor(heading: str) -> str:
    """Return the id of a heading, for links within the page."""
    return re.sub(r"\W+", "-", heading.lower()).strip("-")


def _html(content: str) -> Token:
    return Token("html_block", "", 0, content=content + "\n")


def _alone(inline: Token) -> tuple[str, str, str] | None:
    """Kind (``image`` or ``link``), address and text of a paragraph that is one picture or one link to a picture."""
    parts = inline.children or []
    if len(parts) == 1 and parts[0].type == "image":
        return "image", str(parts[0].attrs["src"]), parts[0].content
    if len(parts) == 3 and parts[0].type == "link_open" and parts[1].type == "text":
        address = str(parts[0].attrs["href"])
        return ("link", address, parts[1].content) if address.endswith(".png") else None
    return None


def _picture(kind: str, address: str, text: str, pictures: Pictures, plots: str, plotted: str) -> str:
    shown = pictures.html(address, text)
    if not shown.startswith("<img"):
        return f"<p>{shown}</p>"
    if kind == "link":
        return f"<details><summary>{escape(text)}</summary><figure>{shown}</figure></details>"
    if plots and unquote(address) == plotted:
        return f'<figure class="plots">{plots}{shown}</figure>'
    return f"<figure>{shown}</figure>"


def _plain(token: Token) -> Token:
    """The token with its pictures as their text, and its links too if they lead out of the page."""
    token.children = list(_text_only(token.children)) if token.children else token.children
    return token


def _text_only(parts: Sequence[Token]) -> Iterator[Token]:
    inside = False
    for part in parts:
        if part.type == "image":
            yield Token("text", "", 0, content=part.content)
        elif part.type == "link_open":
            inside = str(part.attrs["href"]).startswith("#")
            if inside:
                yield part
        elif part.type != "link_close" or inside:
            yield part


def _table(tokens: Sequence[Token]) -> Iterator[Token]:
    """A table in a box that scrolls; classes tell figures from words and which column names the line."""
    titles = [tokens[k + 1].content for k, token in enumerate(tokens) if token.type == "th_open"]
    name = next((column for column, title in enumerate(titles) if title in _NAME_COLUMNS), 0)
    yield _html('<div class="table" tabindex="0">')
    column = 0
    for token in tokens:
        if token.type == "table_open":
            token.attrs["class"] = "sortable"
        if token.type == "tr_open":
            column = 0
        if token.type in ("th_open", "td_open"):
            classes = ["number"] * ("right" in str(token.attrs.pop("style", ""))) + ["name"] * (column == name)
            token.attrs |= {"class": " ".join(classes)} if classes else {}
            column += 1
        yield _plain(token)
    yield _html("</div>")
