"""report.md -> report.html: the same text as one page that needs no other file and no network."""

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from grid.report.interactive import names, plotly_js, plots
from grid.report.page_tokens import Pictures, anchor, page_tokens
from grid.report.report import TRADEOFF, replace_text
from grid.results.ranking import Row

PAGE = Path(__file__).parent / "page"
_HINT = (
    "Point at a mark for all figures of its cell; a click on a name hides or shows its marks. "
    "Filled: fuse_bn; circle: per_channel, square: per_tensor, diamond: float."
)


def write_html(report_md: Path, rows: Sequence[Row]) -> Path:
    """Write ``report.html`` beside ``report_md`` and return its path.

    All text is that of the Markdown; HTML in it is shown, not obeyed. Pictures of its folder are put into the page,
    other addresses are left out. Interactive plots of ``rows`` take the place of ``tradeoff.png``, which is shown
    where scripts do not run and on paper.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(report_md.read_text(encoding="utf-8"))
    titles = [(token.tag, tokens[k + 1].content) for k, token in enumerate(tokens) if token.type == "heading_open"]
    found = plots(rows) if any(token.content.endswith(f"({TRADEOFF})") for token in tokens) else []
    body = page_tokens(tokens, Pictures(report_md.parent), _places(found), TRADEOFF)
    first = next((k for k, token in enumerate(body) if token.tag == "h2"), len(body))
    body.insert(first, Token("html_block", "", 0, content=_contents(titles)))
    text = parser.renderer.render(body, parser.options, {})
    title = next((content for tag, content in titles if tag == "h1"), "Report")
    return replace_text(report_md.with_suffix(".html"), _document(title, text, _scripts(found)))


def _places(found: Sequence[dict[str, Any]]) -> str:
    """Where the plots are drawn."""
    if not found:
        return ""
    key = "".join(_key(escape(name), colour) for name, colour in names(found).items())
    labels = [escape(plot["layout"]["xaxis"]["title"]["text"]) for plot in found]
    places = "".join(f'<div class="plot" role="img" aria-label="SSIM against {label}"></div>' for label in labels)
    return f'<div class="drawn"><p class="key">{key}</p><p>{escape(_HINT)}</p><div class="pair">{places}</div></div>'


def _key(name: str, colour: str) -> str:
    return f'<button type="button" aria-pressed="true" value="{name}" style="--colour: {colour}">{name}</button>'


def _contents(titles: Sequence[tuple[str, str]]) -> str:
    links = [f'<a href="#{escape(anchor(title))}">{escape(title)}</a>' for tag, title in titles if tag == "h2"]
    return f"<nav>{''.join(links)}</nav>\n"


def _scripts(found: Sequence[dict[str, Any]]) -> list[str]:
    """The scripts of the page, in their order: plotly.js is read last, when all text is there."""
    scripts = [_part("tables.js")]
    if found:
        plotly = plotly_js().replace("\r\n", "\n").replace("\r", "\n")  # as a browser reads, and hashes, it
        data = json.dumps(found, separators=(",", ":")).replace("<", "\\u003c")  # else a name could end the script
        scripts += [plotly.replace("</script", "<\\/script"), f"const PLOTS = {data};\n{_part('plots.js')}"]
    return scripts


def _document(title: str, text: str, scripts: Sequence[str]) -> str:
    """The whole page; only the scripts whose hashes it names may run, and nothing may be loaded."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{_part('page.css')}</style>",
            "<noscript><style>.drawn { display: none } .plots img { display: block }</style></noscript>",
            f"</head>\n<body>\n<main>\n{text}</main>",
            *(f"<script>{script}</script>" for script in scripts),
            "</body>\n</html>\n",
        ]
    )


def _part(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")
