"""The trade-off as Plotly's figures, which the report's page draws in a browser."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from grid.report.figures.colours import FRONT
from grid.report.figures.panels import FEW, FRONT_OF_ALL, FRONT_OF_PLOT, SSIM_LABEL, Panel, Point, TradeOff
from grid.results.ranking import LATENCY


def plots(tradeoff: TradeOff) -> list[dict[str, Any]]:
    """Return a figure a panel as Plotly reads it (``data`` and ``layout``).

    A group without a cell in a panel has an empty trace: the page switches names in all plots alike.
    """
    return [_plot(panel, tradeoff.colours) for panel in tradeoff.panels]


def key(tradeoff: TradeOff) -> dict[str, str]:
    """Return the colour of each name in the plots."""
    return {**tradeoff.colours, FRONT_OF_PLOT: FRONT, FRONT_OF_ALL: FRONT}


def title(panel: Panel) -> str:
    """Return the label of a panel's cost, which says on what processor it is."""
    return f"on {panel.processor}: {panel.x_label}" if panel.processor else panel.x_label


def plotly_js() -> str:
    """Return the text of plotly.js, the library that draws the plots in the browser (about 5 MB)."""
    from plotly.offline import get_plotlyjs  # a second that a run without plots need not wait for

    return str(get_plotlyjs())


def _plot(panel: Panel, colours: Mapping[str, str]) -> dict[str, Any]:
    line = {"color": FRONT, "width": 1.5, "shape": "hv"}
    ring = {"symbol": "circle-open", "size": 19, "color": FRONT, "line": {"width": 1.5}}
    rings = [(point.x, point.y) for point in panel.points if point.on_front]
    traces = [
        _trace(panel.steps, FRONT_OF_PLOT, mode="lines", line=line, opacity=0.4, hoverinfo="skip"),
        _trace(rings, FRONT_OF_ALL, mode="markers", marker=ring, hoverinfo="skip"),
    ]
    size = 10 if len(panel.points) <= FEW else 7
    for group, colour in colours.items():
        traces.append(_group([point for point in panel.points if point.group == group], panel, group, colour, size))
    return {"data": traces, "layout": _layout(title(panel))}


def _trace(points: Sequence[tuple[float, float]], name: str, **look: Any) -> dict[str, Any]:
    return {"type": "scatter", "name": name, "x": [x for x, _ in points], "y": [y for _, y in points], **look}


def _group(points: Sequence[Point], panel: Panel, name: str, colour: str, size: int) -> dict[str, Any]:
    """The cells of one method or engine: shape and filling say granularity and fuse_bn, bars the latency's interval."""
    symbols = [point.shape if point.filled else f"{point.shape}-open" for point in points]
    marker = {"symbol": symbols, "size": size, "color": colour, "line": {"width": 1.8, "color": colour}}
    trace = _trace([(point.x, point.y) for point in points], name, mode="markers", marker=marker)
    trace |= {"text": [_hover(point) for point in points], "hovertemplate": "%{text}<extra></extra>"}
    if panel.measure is LATENCY:
        bounds = [point.interval or (point.x, point.x) for point in points]
        above = [high - point.x for point, (_, high) in zip(points, bounds, strict=True)]
        below = [point.x - low for point, (low, _) in zip(points, bounds, strict=True)]
        look = {"color": "#aaaaaa", "thickness": 1.5, "width": 0}
        trace["error_x"] = {"type": "data", "symmetric": False, "array": above, "arrayminus": below, **look}
    return trace


def _hover(point: Point) -> str:
    """What a mark says; Plotly reads HTML in it."""
    return "<br>".join([f"<b>{point.number}  {escape(point.name)}</b>", *map(escape, point.facts)])


def _layout(x_title: str) -> dict[str, Any]:
    axis = {"gridcolor": "#e4e4e4", "zeroline": False, "linecolor": "#888888", "ticks": "outside", "automargin": True}
    font = {"family": "system-ui, sans-serif", "size": 13, "color": "#222222"}
    return {
        "xaxis": {**axis, "title": {"text": escape(x_title), "font": font}},
        "yaxis": {**axis, "title": {"text": SSIM_LABEL, "font": font}},
        "font": font,
        "margin": {"l": 10, "r": 16, "t": 16, "b": 10},
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "bgcolor": "#ffffff", "font": font},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
    }
