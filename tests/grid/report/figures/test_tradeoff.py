"""The trade-off: what it shows is made once, and matplotlib and Plotly draw the same points, fronts and intervals."""

import itertools

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.collections import LineCollection
from PIL import Image
from plotly import graph_objects

from grid.report.figures import colours, tradeoff
from grid.report.figures.interactive import key, plots
from grid.report.figures.panels import FRONT_OF_ALL, FRONT_OF_PLOT, MOST_NUMBERED, trade_off
from grid.report.figures.tradeoff import _number_points, draw_tradeoff
from grid.results import ranking
from grid.results.comparisons.groups import pareto_front
from tests.grid.measures import SSIM
from tests.grid.report.report_rows import changed, grid_rows, many_rows, row


def test_numbers_in_the_scatter_do_not_cover_each_other():
    figure, axes = pyplot.subplots()
    points = np.array([[1.6, 0.85 + 0.0001 * k] for k in range(8)] + [[1.38, 0.80], [5.0, 0.86]])
    axes.scatter(points[:, 0], points[:, 1])
    _number_points(axes, points, range(1, 11))
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in axes.texts]
    pyplot.close(figure)
    assert len(boxes) == 10
    for a, b in itertools.combinations(boxes, 2):
        assert abs(a.x0 + a.x1 - b.x0 - b.x1) / 2 > 6 or abs(a.y0 + a.y1 - b.y0 - b.y1) / 2 > 6


def test_of_very_many_cells_the_front_and_the_best_are_numbered(tmp_path):
    rows = many_rows(200)
    whole = trade_off(rows)
    draw_tradeoff(whole, tmp_path / "tradeoff.png")
    assert Image.open(tmp_path / "tradeoff.png").height < 1300
    front = set(pareto_front(rows, (SSIM, ranking.SIZE, ranking.LATENCY)))
    assert len(whole.panels[0].points) == 202
    assert len(whole.numbered) == MOST_NUMBERED
    assert front <= {point.name for point in whole.numbered}
    numbers = [point.number for point in whole.numbered]
    assert numbers == sorted(numbers)


def test_where_nothing_was_measured_there_is_no_tradeoff():
    assert trade_off([row("lost", status="failed", method="qat")]) is None


def test_points_are_the_cells_with_their_line_in_the_table_and_both_costs():
    rows = [row("lost", status="failed", method="qat"), *grid_rows()]
    for panel, column in zip(trade_off(rows).panels, ("size_mb", "latency_ratio"), strict=True):
        found = [(point.number, point.name, point.x, point.y) for point in panel.points]
        assert found == [
            (number, line["cell"], line[column], line["test_ssim"]) for number, line in enumerate(rows[1:], 2)
        ]
        for x, y in panel.steps:
            assert not [point for point in panel.points if point.x <= x and point.y > y]


def points_of(trace: dict) -> list[tuple[float, float]]:
    return list(zip(trace["x"], trace["y"], strict=True))


def bars_of(trace: dict) -> list[tuple[float, float]]:
    """The ends of the intervals that have a length."""
    bars = trace.get("error_x", {"array": [0.0] * len(trace["x"]), "arrayminus": [0.0] * len(trace["x"])})
    ends = zip(trace["x"], bars["arrayminus"], bars["array"], strict=True)
    return [(x - below, x + above) for x, below, above in ends if below or above]


def test_matplotlib_draws_what_plotly_draws(tmp_path, monkeypatch):
    """Points, rings, steps and intervals are read back from the axes that matplotlib drew."""
    whole = trade_off(changed(grid_rows(), "per_channel-ptq", latency_ratio_low=None, latency_ratio_high=None))
    drawn = []
    monkeypatch.setattr(tradeoff, "_key", lambda axes, whole: drawn.extend(axes.figure.axes))
    draw_tradeoff(whole, tmp_path / "tradeoff.png")
    assert len(drawn) == 3, "two panels and the key"
    for axes, plot in zip(drawn[:2], plots(whole), strict=True):
        lines = [one for one in axes.collections if isinstance(one, LineCollection)]
        *dots, rings = [one.get_offsets() for one in axes.collections if one not in lines]
        traces = {trace["name"]: trace for trace in plot["data"]}
        cells = [traces[name] for name in whole.colours]
        assert {tuple(dot) for look in dots for dot in look} == {point for trace in cells for point in points_of(trace)}
        assert {tuple(ring) for ring in rings} == set(points_of(traces[FRONT_OF_ALL]))
        (steps,) = axes.lines
        intervals = [segment[:, 0] for one in lines for segment in one.get_segments()]
        assert list(zip(*steps.get_data(), strict=True)) == points_of(traces[FRONT_OF_PLOT])
        bars = sorted(bar for trace in cells for bar in bars_of(trace))
        assert np.ravel(sorted(map(tuple, intervals))) == pytest.approx(np.ravel(bars))
        assert len(bars) == len(intervals)
        assert axes.get_xlabel() == plot["layout"]["xaxis"]["title"]["text"]
        assert axes.get_ylabel() == plot["layout"]["yaxis"]["title"]["text"]


def test_plotly_shows_every_measured_cell_with_its_figures():
    rows = grid_rows()
    for plot, column in zip(plots(trade_off(rows)), ("size_mb", "latency_ratio"), strict=True):
        graph_objects.Figure(plot)  # raises on what Plotly does not know
        cells = [trace for trace in plot["data"] if "text" in trace]
        assert {trace["name"]: trace["marker"]["color"] for trace in cells} == colours.METHODS
        points = sorted(point for trace in cells for point in zip(trace["x"], trace["y"], strict=True))
        assert points == sorted((line[column], line["test_ssim"]) for line in rows)
        texts = " ".join(text for trace in cells for text in trace["text"])
        assert all(f"{number}  {line['cell']}</b>" in texts for number, line in enumerate(rows, 1))
        assert f"SQNR dB {rows[5]['sqnr_db']:.2f}" in texts


def test_shape_and_filling_say_granularity_and_fusing():
    traces = {trace["name"]: trace for trace in plots(trade_off(grid_rows()))[0]["data"]}
    assert traces["fp32"]["marker"]["symbol"] == ["diamond-open", "diamond"]
    assert traces["ptq"]["marker"]["symbol"] == ["circle-open", "square-open", "circle", "square"]


def test_only_the_latency_has_intervals_and_a_missing_one_no_length():
    rows = changed(grid_rows(), "per_channel-ptq", latency_ratio_low=None, latency_ratio_high=None)
    size, latency = plots(trade_off(rows))
    assert not any("error_x" in trace for trace in size["data"])
    (trace,) = (trace for trace in latency["data"] if trace["name"] == "ptq")
    assert (trace["error_x"]["array"][0], trace["error_x"]["arrayminus"][0]) == (0.0, 0.0)
    assert trace["error_x"]["array"][1] == pytest.approx(0.01 * trace["x"][1])


def test_the_key_has_a_name_for_every_trace():
    whole = trade_off(grid_rows())
    for plot in plots(whole):
        assert sorted(trace["name"] for trace in plot["data"]) == sorted(key(whole))


def test_engines_have_the_colours_where_there_are_several():
    rows = [{**line, "engine": None if line["method"] == "fp32" else "x86"} for line in grid_rows()]
    rows = changed(rows, "per_channel-ptq", engine="qnnpack")
    assert list(trade_off(rows).colours) == ["PyTorch, float", "qnnpack", "x86"]


def together(count: int) -> list[dict]:
    """Cells in three heaps that no eye tells apart, one of them better than the others."""
    heaps = ((0.80, 1.4, 1.5), (0.85, 1.6, 1.6), (0.90, 2.0, 1.4))
    return [
        row(
            f"cell-{number}", method="ptq", granularity="per_channel", fuse_bn=True, graph_hash=str(number),
            test_ssim=ssim + 1e-6 * number, size_mb=size, latency_ratio=ratio + 1e-5 * number,
            latency_ratio_low=ratio - 0.1, latency_ratio_high=ratio + 0.1, rounding=number,
        )
        for number, (ssim, size, ratio) in ((number, heaps[number % 3]) for number in range(count))
    ]  # fmt: skip


def test_of_many_cells_that_lie_together_one_has_a_number():
    few, many = trade_off(together(30)), trade_off(together(240))
    assert len(few.numbered) == 30
    assert [round(point.y, 2) for point in sorted(many.numbered, key=lambda point: point.y)] == [0.80, 0.85, 0.90]
    assert len(many.panels[0].points) == 240, "all of them are drawn"


@pytest.mark.parametrize(("count", "bars"), [(120, 120), (240, 3)])
def test_of_many_cells_those_with_a_number_alone_have_a_bar(count, bars):
    whole = trade_off(together(count))
    assert sum(map(whole.has_bar, whole.panels[1].points)) == bars
    assert sum(len(bars_of(trace)) for trace in plots(whole)[1]["data"]) == bars
