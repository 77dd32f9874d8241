"""Rows -> the two plots of the report's page: SSIM against size and against latency, for Plotly in a browser."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from grid.report.figures import FLOAT_MARKER, FRONT, MARKERS, groups
from grid.report.panels import Panel, panels, stairs
from grid.report.tables import DASH, ratio_text, shown, word
from grid.results.ranking import LATENCY, SIZE, SSIM, Measure, Row, processor_of, value

SYMBOLS = {"o": "circle", "s": "square", "D": "diamond"}
"""Plotly's names of the markers of ``grid/report/figures.py``."""
_HOVER = (
    ("test_ssim", "SSIM"), ("test_mse", "MSE"), ("test_abs_rel", "abs rel"), ("test_rmse_m", "RMSE m"),
    ("test_delta1", "δ1"), ("sqnr_db", "SQNR dB"), ("simulated_ssim", "simulated SSIM"), ("size_mb", "size MB"),
    ("latency_ms_p50", "p50 ms"), ("latency_ms_p90", "p90 ms"),
)  # fmt: skip
FEW = 60  # cells; the marks of more are smaller
FRONT_OF_ALL, FRONT_OF_PLOT = "on the front of all three", "front of this plot"


def plots(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the figures as Plotly reads them (``data`` and ``layout``): size, and latency on each processor.

    None where nothing was measured. ``rows`` are those of the static figure, numbered in the same way: see
    ``grid.report.panels``.
    """
    found = panels(rows)
    looks = groups(row for _, row in found[0].points) if found else {}
    several = any(panel.processor for panel in found)
    return [_plot(panel, looks, several) for panel in found]


def names(figures: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return the colour of each name in the plots, those of the methods first."""
    found = {trace["name"]: trace.get("marker", trace.get("line"))["color"] for trace in figures[0]["data"]}
    return dict(sorted(found.items(), key=lambda item: item[1] == FRONT))


def plotly_js() -> str:
    """Return the text of plotly.js, the library that draws the plots in the browser (about 5 MB)."""
    from plotly.offline import get_plotlyjs  # a second that a run without plots need not wait for

    return get_plotlyjs()


def _plot(panel: Panel, looks: Mapping[str, tuple[str, str]], several: bool) -> dict[str, Any]:
    numbered, measure = panel.points, panel.measure
    points = [(float(row[measure.column]), float(row[SSIM.column])) for _, row in numbered]
    rings = [point for point, (_, row) in zip(points, numbered, strict=True) if row["cell"] in panel.front]
    line = {"color": FRONT, "width": 1.5, "shape": "hv"}
    traces = [_trace(stairs(points), FRONT_OF_PLOT, mode="lines", line=line, opacity=0.4, hoverinfo="skip")]
    ring = {"symbol": "circle-open", "size": 19, "color": FRONT, "line": {"width": 1.5}}
    traces.append(_trace(rings, FRONT_OF_ALL, mode="markers", marker=ring, hoverinfo="skip"))
    for name, colour in dict(looks.values()).items():
        # A name without a cell on this processor has an empty trace: the page switches names in all plots alike.
        members = [(number, row) for number, row in numbered if looks[row["cell"]][0] == name]
        texts = [_hover(number, row, several) for number, row in members]
        traces.append(_cells(members, measure, name, colour, 10 if len(numbered) <= FEW else 7, texts))
    on = f" on {escape(panel.processor)}" if panel.processor else ""
    return {"data": traces, "layout": _layout("size, MB" if measure is SIZE else f"latency{on}, x float")}


def _trace(points: Sequence[tuple[float, float]], name: str, **look: Any) -> dict[str, Any]:
    return {"type": "scatter", "name": name, "x": [x for x, _ in points], "y": [y for _, y in points], **look}


def _cells(
    members: Sequence[tuple[int, Row]], measure: Measure, name: str, colour: str, size: int, texts: Sequence[str]
) -> dict[str, Any]:
    """The cells of one method or engine: shape and filling say granularity and fuse_bn, bars the latency's interval."""
    line = {"width": 1.8, "color": colour}
    marker = {"symbol": [_symbol(row) for _, row in members], "size": size, "color": colour, "line": line}
    points = [(float(row[measure.column]), float(row[SSIM.column])) for _, row in members]
    trace = _trace(points, name, mode="markers", marker=marker)
    trace |= {"text": texts, "hovertemplate": "%{text}<extra></extra>"}
    if measure is LATENCY:
        bars = [_interval(row) for _, row in members]
        below, above = tuple(bar[0] for bar in bars), tuple(bar[1] for bar in bars)
        look = {"color": "#aaaaaa", "thickness": 1.5, "width": 0}
        trace["error_x"] = {"type": "data", "symmetric": False, "array": above, "arrayminus": below, **look}
    return trace


def _symbol(row: Row) -> str:
    symbol = SYMBOLS[MARKERS.get(row.get("granularity") or "", FLOAT_MARKER)]
    return symbol if row["fuse_bn"] else f"{symbol}-open"


def _interval(row: Row) -> tuple[float, float]:
    """How far the 95 % interval reaches below and above the ratio."""
    middle = float(row[LATENCY.column])
    low, high = (value(row, f"{LATENCY.column}_{end}") for end in ("low", "high"))
    return (0.0 if low is None else middle - low), (0.0 if high is None else high - middle)


def _hover(number: int, row: Row, several: bool) -> str:
    lines = [f"<b>{number}  {escape(str(row['cell']))}</b>"]
    recipe = (f"{name} {word(row.get(name))}" for name in ("fuse_bn", "granularity", "method", "engine"))
    lines.append(escape(", ".join(recipe)))
    lines += [f"{title} {shown(row, column)}" for column, title in _HOVER if shown(row, column) != DASH]
    lines.append(f"latency {ratio_text(row)} float" + (f" on {escape(str(processor_of(row)))}" if several else ""))
    return "<br>".join(lines)


def _layout(title: str) -> dict[str, Any]:
    axis = {"gridcolor": "#e4e4e4", "zeroline": False, "linecolor": "#888888", "ticks": "outside", "automargin": True}
    font = {"family": "system-ui, sans-serif", "size": 13, "color": "#222222"}
    return {
        "xaxis": {**axis, "title": {"text": f"{title} (left is better)", "font": font}},
        "yaxis": {**axis, "title": {"text": "test SSIM (up is better)", "font": font}},
        "font": font,
        "margin": {"l": 10, "r": 16, "t": 16, "b": 10},
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "bgcolor": "#ffffff", "font": font},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
    }
