"""The last step of a report in Markdown: whatever its words came from, they are shown and not obeyed.

Names, reasons and paths come from files and from other people's code. A viewer of Markdown that lets HTML through
would run a tag in them, and one that loads pictures would fetch theirs.
"""

import re
from collections.abc import Iterator

_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_FENCE = re.compile(r"(`{3,})sh")
_OWN_BLOCK = re.compile(r"- |#{1,6} ")
_LOCAL_PICTURE = re.compile(r"!\[[^\[\]]*\]\([^()\s<>:/\\]+\.png\)")
_OTHER_SCHEME = re.compile(r"\]\((?=\s*(?!https?:)[A-Za-z][\w.+-]*:)")


def harmless(text: str) -> str:
    """Return Markdown without HTML, without pictures but those of the report's own folder, with no link that runs.

    Code is left as it is: no viewer obeys it. Where it is not certain what is code, nothing counts as code.
    """
    return "\n".join(_lines(text))


def _lines(text: str) -> Iterator[str]:
    fence, before = "", ""
    for line in text.split("\n"):
        opened = None if fence else _FENCE.fullmatch(line)
        if fence or opened:
            yield line
            fence = opened[1] if opened else "" if line == fence else fence
        else:
            # A line that goes on with the block before it may end code that began there.
            alone = not before.strip() or bool(_OWN_BLOCK.match(line)) or line[0:1] == before[0:1] == "|"
            yield line if _LOCAL_PICTURE.fullmatch(line) else _harmless(line, alone)
        before = line


def _harmless(line: str, alone: bool) -> str:
    if not alone:
        return _words(line)
    if line.startswith("|"):  # code ends with the cell of a table
        return "|".join(map(_spans, re.split(r"(?<!\\)\|", line)))
    return _spans(line)


def _spans(text: str) -> str:
    """Everything but what stands between two runs of as many backticks."""
    done, rest = "", text
    while start := re.search(r"(?<!`)`+(?!`)", rest):
        run = start[0]
        end = re.compile(rf"(?<!`){run}(?!`)").search(rest, start.end())
        escaped = (len(rest[: start.start()]) - len(rest[: start.start()].rstrip("\\"))) % 2
        if escaped or end is None:
            return done + _words(rest)
        done += _words(rest[: start.start()]) + rest[start.start() : end.end()]
        rest = rest[end.end() :]
    return done + _words(rest)


def _words(text: str) -> str:
    return _OTHER_SCHEME.sub(r"]\\(", _TAG.sub("&lt;", text).replace("![", r"!\["))
