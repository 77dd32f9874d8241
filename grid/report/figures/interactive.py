"""Figures as Plotly reads them, which the report's page draws in a browser."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from grid.report.figures.colours import FRONT, MARGIN, VERDICTS
from grid.report.figures.forest import Forest, Line
from grid.report.figures.panels import FEW, FRONT_OF_ALL, FRONT_OF_PLOT, Panel, Point, TradeOff
from grid.results.ranking import LATENCY

HINT = (
    "Point at a marker to see all figures of its cell; click a name to hide or show its markers. Filled: fuse_bn; "
    "circle: per_channel, square: per_tensor, diamond: float."
)
FOREST_HINT = "Point at a marker to see its interval and its verdict; click a verdict to hide or show its lines."


@dataclass(frozen=True)
class InteractivePlot:
    """A figure as Plotly reads it (``data`` and ``layout``), what it shows, and its height in pixels (0: the usual)."""

    figure: dict[str, Any]
    label: str
    height: int = 0


@dataclass(frozen=True)
class Interactive:
    """Plots with one key: the colour of each name, which the page switches in all of them; ``hint`` says how."""

    plots: tuple[InteractivePlot, ...]
    key: Mapping[str, str]
    hint: str


def interactive(shown: TradeOff | Forest) -> Interactive:
    """Return what is shown as plots for a browser."""
    if isinstance(shown, Forest):
        plot = InteractivePlot(forest_plot(shown), shown.x_label, 90 + 24 * len(shown.lines))
        return Interactive((plot,), {verdict: VERDICTS[verdict] for verdict in shown.verdicts}, FOREST_HINT)
    drawn = zip(plots(shown), shown.panels, strict=True)
    labelled = (InteractivePlot(plot, f"{shown.headline.title} against {title(panel)}") for plot, panel in drawn)
    return Interactive(tuple(labelled), key(shown), HINT)


def plots(tradeoff: TradeOff) -> list[dict[str, Any]]:
    """Return a figure a panel as Plotly reads it (``data`` and ``layout``).

    A group without a cell in a panel has an empty trace: the page switches names in all plots alike.
    """
    return [_plot(panel, tradeoff) for panel in tradeoff.panels]


def key(tradeoff: TradeOff) -> dict[str, str]:
    """Return the colour of each name in the plots."""
    return {**tradeoff.colours, FRONT_OF_PLOT: FRONT, FRONT_OF_ALL: FRONT}


def title(panel: Panel) -> str:
    """Return the label of a panel's cost, which says on what processor it is."""
    return f"on {panel.processor}: {panel.x_label}" if panel.processor else panel.x_label


def forest_plot(shown: Forest) -> dict[str, Any]:
    """Return differences as Plotly reads them: a trace a verdict, the margin as a band."""
    traces = []
    for verdict in shown.verdicts:
        lines = [(place, line) for place, line in enumerate(shown.lines) if line.verdict == verdict]
        ends = [_ends(line) for _, line in lines]
        bars = {
            "type": "data",
            "symmetric": False,
            "array": [high - line.estimate for (_, line), (_, high) in zip(lines, ends, strict=True)],
            "arrayminus": [line.estimate - low for (_, line), (low, _) in zip(lines, ends, strict=True)],
            "thickness": 2,
            "width": 0,
        }
        trace = _trace([(line.estimate, place) for place, line in lines], verdict, mode="markers", error_x=bars)
        trace["marker"] = {"color": VERDICTS[verdict], "size": 9}
        texts = [f"<b>{escape(line.name)}</b><br>{escape(line.words)}" for _, line in lines]
        traces.append(trace | {"text": texts, "hovertemplate": "%{text}<extra></extra>"})
    layout = _layout(shown.x_label)
    places = list(range(len(shown.lines)))
    names = [escape(line.name) for line in shown.lines]
    layout["xaxis"]["range"] = list(shown.limits)
    layout["yaxis"] |= {
        "title": {"text": ""},
        "tickvals": places,
        "ticktext": names,
        "range": [len(places) - 0.4, -0.6],
    }
    band = {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "x0": -shown.margin, "x1": shown.margin}
    zero = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": 0, "x1": 0}
    aside = {"xref": "paper", "x": 1, "xanchor": "left", "xshift": 6, "showarrow": False, "font": {"size": 12}}
    words = (escape(line.words) for line in shown.lines)
    layout["annotations"] = [{**aside, "y": place, "text": text} for place, text in enumerate(words)]
    layout["margin"] = {**layout["margin"], "r": 40 + 7 * max(len(line.words) for line in shown.lines)}
    layout["shapes"] = [
        {**band, "fillcolor": MARGIN, "line": {"width": 0}, "layer": "below"},
        {**zero, "line": {"color": "#888888", "width": 1}, "layer": "below"},
    ]
    return {"data": traces, "layout": layout}


def _ends(line: Line) -> tuple[float, float]:
    """The interval; of one without, the estimate itself."""
    return (line.estimate if line.low is None else line.low, line.estimate if line.high is None else line.high)


def plotly_js() -> str:
    """Return the text of plotly.js, the library that draws the plots in the browser (about 5 MB)."""
    from plotly.offline import get_plotlyjs  # a second that a run without plots need not wait for

    return str(get_plotlyjs())


def _plot(panel: Panel, tradeoff: TradeOff) -> dict[str, Any]:
    few = len(panel.points) <= FEW
    line = {"color": FRONT, "width": 1.5, "shape": "hv"}
    ring = {"symbol": "circle-open", "size": 19 if few else 12, "color": FRONT, "line": {"width": 1.5 if few else 0.8}}
    rings = [(point.x, point.y) for point in panel.points if point.on_front]
    traces = [
        _trace(panel.steps, FRONT_OF_PLOT, mode="lines", line=line, opacity=0.4, hoverinfo="skip"),
        _trace(rings, FRONT_OF_ALL, mode="markers", marker=ring, hoverinfo="skip"),
    ]
    size = 10 if few else 7
    for group, colour in tradeoff.colours.items():
        points = [point for point in panel.points if point.group == group]
        traces.append(_group(points, group, colour, size))
        if panel.measure is LATENCY:
            traces[-1]["error_x"] = _bars(points, tradeoff)
    return {"data": traces, "layout": _layout(title(panel), tradeoff.y_label)}


def _trace(points: Sequence[tuple[float, float]], name: str, **look: Any) -> dict[str, Any]:
    return {"type": "scatter", "name": name, "x": [x for x, _ in points], "y": [y for _, y in points], **look}


def _group(points: Sequence[Point], name: str, colour: str, size: int) -> dict[str, Any]:
    """The cells of one method or engine: shape and filling say granularity and fuse_bn."""
    symbols = [point.shape if point.filled else f"{point.shape}-open" for point in points]
    marker = {"symbol": symbols, "size": size, "color": colour, "line": {"width": 1.8, "color": colour}}
    trace = _trace([(point.x, point.y) for point in points], name, mode="markers", marker=marker)
    trace |= {"text": [_hover(point) for point in points], "hovertemplate": "%{text}<extra></extra>"}
    return trace


def _bars(points: Sequence[Point], tradeoff: TradeOff) -> dict[str, Any]:
    """The intervals of latencies; of a point without one, its own place."""
    bounds = [point.interval if point.interval and tradeoff.has_bar(point) else (point.x, point.x) for point in points]
    above = [high - point.x for point, (_, high) in zip(points, bounds, strict=True)]
    below = [point.x - low for point, (low, _) in zip(points, bounds, strict=True)]
    look = {"color": "#aaaaaa", "thickness": 1.5, "width": 0}
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, **look}


def _hover(point: Point) -> str:
    """What a mark says; Plotly reads HTML in it."""
    return "<br>".join([f"<b>{point.number}  {escape(point.name)}</b>", *map(escape, point.facts)])


def _layout(x_title: str, y_title: str = "") -> dict[str, Any]:
    axis = {"gridcolor": "#e4e4e4", "zeroline": False, "linecolor": "#888888", "ticks": "outside", "automargin": True}
    font = {"family": "system-ui, sans-serif", "size": 13, "color": "#222222"}
    return {
        "xaxis": {**axis, "title": {"text": escape(x_title), "font": font}},
        "yaxis": {**axis, "title": {"text": escape(y_title), "font": font}},
        "font": font,
        "margin": {"l": 10, "r": 16, "t": 16, "b": 10},
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "bgcolor": "#ffffff", "font": font},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
    }
