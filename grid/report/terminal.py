"""What a run prints at its end: the results as a table of text, which cell to take, and where everything is."""

from collections.abc import Sequence
from pathlib import Path

from grid.report.document import MOST_ROWS
from grid.report.shortlist import reading_order
from grid.results.measures import DEPTH
from grid.results.ranking import Measure, Row, processor_of, processors
from grid.results.recommend import Recommendation

FEW_ROWS = 40
"""What is printed of a long table."""
_FIGURES = (
    ("sqnr_db", 8, 1),
    ("size_mb", 6, 3),
    ("latency_ms_p50", 7, 1),
    ("latency_ratio", 8, 2),
)


def summary(rows: Sequence[Row], answer: Recommendation, folder: Path, headline: Measure = DEPTH.headline) -> str:
    """The text for a run whose files are in ``folder``; of several processors each latency names its own."""
    width = max([4, *(len(row["cell"]) for row in rows)])
    names = processors(rows)
    wide_name = max(map(len, names), default=0)
    head = f"{'cell':{width}} {'status':9} {headline.title:>7} {'SQNR dB':>8} {'MB':>6} {'ms':>7} {'x float':>8}"
    lines = [f"{head}  {'processor':{wide_name}}  note" if len(names) > 1 else f"{head}  note"]
    recommended = {one.cell for one in (answer, *answer.by_processor.values()) if one.cell}
    shown = list(rows)
    if len(rows) > MOST_ROWS:
        first = set(reading_order(rows, recommended, answer.front, headline)[:FEW_ROWS])
        shown = [row for row in rows if row["cell"] in first]
    for row in shown:
        figures = [
            "–".rjust(wide) if row.get(key) is None else f"{row[key]:{wide}.{digits}f}"
            for key, wide, digits in ((headline.column, max(7, len(headline.title)), 4), *_FIGURES)
        ]
        same = f"same as {row['same_as']}" if row.get("same_as") else ""
        note = row["reason"] or "; ".join(filter(None, (same, row.get("note"))))
        if len(names) > 1:
            note = f"{processor_of(row) or '–':{wide_name}}  {note}"
        lines.append(f"{row['cell']:{width}} {row['status']:9} {' '.join(figures)}  {note}".rstrip())
    if len(shown) < len(rows):
        lines.append(f"and {len(rows) - len(shown):,} further cells; these are the best by test {headline.title}")
    lines.append("")
    for name, one in answer.by_processor.items():
        lines += _answer(one, f" on {name}")
    lines += [*answer.reasons, ""] if answer.by_processor else [*_answer(answer), ""]
    lines += [f"results    {folder / 'results.csv'}", f"report     {folder / 'report.html'} (and report.md)"]
    return "\n".join(lines)


def _answer(answer: Recommendation, where: str = "") -> list[str]:
    return [f"{answer.target}{where}: {answer.cell or 'no cell'}", *(f"  {reason}" for reason in answer.reasons)]
