"""What a run prints at its end: the results as a table of text, which cell to take, and where everything is."""

from collections.abc import Sequence
from pathlib import Path

from grid.recommend import Recommendation
from grid.results import Row

_FIGURES = (
    ("test_ssim", 7, 4),
    ("sqnr_db", 8, 1),
    ("size_mb", 6, 3),
    ("latency_ms_p50", 7, 1),
    ("latency_ratio", 8, 2),
)


def summary(rows: Sequence[Row], found: Recommendation, folder: Path) -> str:
    """The text for a run whose files are in ``folder``."""
    width = max([4, *(len(row["cell"]) for row in rows)])
    lines = [f"{'cell':{width}} {'status':9} {'SSIM':>7} {'SQNR dB':>8} {'MB':>6} {'ms':>7} {'x float':>8}  note"]
    for row in rows:
        shown = [
            "–".rjust(wide) if row.get(key) is None else f"{row[key]:{wide}.{digits}f}"
            for key, wide, digits in _FIGURES
        ]
        note = f"same as {row['same_as']}" if row.get("same_as") else row["reason"] or ""
        lines.append(f"{row['cell']:{width}} {row['status']:9} {' '.join(shown)}  {note}".rstrip())
    lines += ["", f"{found.target}: {found.cell or 'no cell'}", *(f"  {reason}" for reason in found.reasons), ""]
    lines += [f"results    {folder / 'results.csv'}", f"report     {folder / 'report.html'} (and report.md)"]
    return "\n".join(lines)
