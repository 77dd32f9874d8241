"""A document as one HTML page that needs no other file and no network; every text in it is escaped by Jinja."""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from grid.report.document import MOST_ROWS, Block, Document, Plot, plain_text
from grid.report.embedding import Embedder
from grid.report.figures.interactive import interactive, plotly_js

PAGE = Path(__file__).parent / "page"
_TEMPLATES = Environment(
    loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_TEMPLATES.globals |= {"plain_text": plain_text, "interactive": interactive, "most_rows": MOST_ROWS}


def html_page(document: Document, folder: Path) -> str:
    """Return the page, with the pictures of ``folder`` in it.

    Interactive plots take the place of their pictures, which are there where scripts do not run and
    on paper.
    """
    scripts = [_part("tables.js"), *_plot_scripts(document)]
    return _TEMPLATES.get_template("report.html").render(
        document=document,
        embedded=Embedder(folder).embedded,
        style=Markup(_part("page.css")),
        scripts=list(map(Markup, scripts)),
        policy=Markup(_policy(scripts)),
    )


def _plot_scripts(document: Document) -> list[str]:
    """The library, the data and the drawing of the plots; plotly.js is read last, when all text is there."""
    shown = [block.shown for block in _blocks(document.sections) if isinstance(block, Plot)]
    if not shown:
        return []
    figures: list[dict[str, Any]] = [plot.figure for one in shown for plot in interactive(one).plots]
    library = plotly_js().replace("\r\n", "\n").replace("\r", "\n")  # as a browser reads, and hashes, it
    data = json.dumps(figures, separators=(",", ":")).replace("<", "\\u003c")  # else a name could end the script
    return [library.replace("</script", "<\\/script"), f"const PLOTS = {data};\n{_part('plots.js')}"]


def _blocks(sections: Sequence[Block]) -> list[Block]:
    """All blocks of all levels."""
    return [inner for block in sections for inner in (block, *_blocks(getattr(block, "blocks", ())))]


def _policy(scripts: Sequence[str]) -> str:
    """Only these scripts may run, by their hashes, and nothing may be loaded."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _part(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")
