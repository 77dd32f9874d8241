"""Differences with their intervals: matplotlib and Plotly draw the same lines, colours, intervals and margin."""

import pytest
from matplotlib import pyplot
from plotly import graph_objects

from grid.report.figures import forest as module
from grid.report.figures.colours import VERDICTS
from grid.report.figures.forest import MOST_LINES, Line, draw_forest, forest
from grid.report.figures.interactive import forest_plot, interactive

LINES = (
    Line("lost", -0.004, -0.005, -0.003, "worse", "worse"),
    Line("open", 0.0005, -0.002, 0.003, "undecided", "undecided; about 900 images would decide"),
    Line("same", 0.0001, -0.0004, 0.0006, "equivalent", "equivalent"),
    Line("guess", 0.002, None, None, "undecided", "undecided: not tested"),
)
SHOWN = forest(LINES, 0.001, "difference")


def test_the_best_stands_first_and_of_very_many_both_ends_are_drawn():
    assert [line.name for line in SHOWN.lines] == ["guess", "open", "same", "lost"]
    assert next(iter(forest(LINES, 0.001, "x", higher_is_better=False).lines)).name == "lost"
    many = [Line(str(number), float(number), None, None, "undecided", "") for number in range(200)]
    names = [int(line.name) for line in forest(many, 1.0, "x").lines]
    assert len(names) == MOST_LINES
    assert names[0] == 199
    assert names[-1] == 0
    assert forest([], 0.001, "x") is None


def test_matplotlib_draws_what_plotly_draws(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(module.pyplot, "close", kept.append)
    draw_forest(SHOWN, tmp_path / "forest.png")
    monkeypatch.undo()
    axes = kept[0].axes[0]
    points = {one.get_label(): one.get_offsets().tolist() for one in axes.collections if one.get_label() in VERDICTS}
    bars = sorted(tuple(line.get_xdata()) for line in axes.lines if list(line.get_ydata()) != [0, 1])
    names = [label.get_text() for label in axes.get_yticklabels()]
    limits = axes.get_xlim()
    pyplot.close(kept[0])
    plot = forest_plot(SHOWN)
    graph_objects.Figure(plot)  # raises on what Plotly does not know
    for trace in plot["data"]:
        assert [list(point) for point in zip(trace["x"], trace["y"], strict=True)] == points[trace["name"]]
        assert trace["marker"]["color"] == VERDICTS[trace["name"]]
    drawn = [
        (x - below, x + above)
        for trace in plot["data"]
        for x, below, above in zip(trace["x"], trace["error_x"]["arrayminus"], trace["error_x"]["array"], strict=True)
        if below or above
    ]
    assert len(drawn) == 3
    assert [end for bar in bars for end in bar] == pytest.approx([end for bar in sorted(drawn) for end in bar])
    assert names == plot["layout"]["yaxis"]["ticktext"]
    assert list(limits) == pytest.approx(plot["layout"]["xaxis"]["range"])
    assert [note["text"] for note in plot["layout"]["annotations"]] == [line.words for line in SHOWN.lines]


def test_the_margin_is_a_band_and_both_are_in_sight():
    band = forest_plot(SHOWN)["layout"]["shapes"][0]
    assert (band["x0"], band["x1"]) == (-0.001, 0.001)
    low, high = SHOWN.limits
    assert low <= -0.004
    assert high >= 0.002


def test_a_very_wide_interval_does_not_squash_the_others():
    wide = forest([*LINES, Line("wide", 0.0, -5.0, 5.0, "undecided", "")], 0.001, "x")
    assert wide.limits == pytest.approx((-0.016, 0.016))


def test_the_key_holds_the_verdicts_that_there_are():
    shown = interactive(SHOWN)
    assert list(shown.key) == ["equivalent", "undecided", "worse"]
    (plot,) = shown.plots
    assert plot.height > 24 * len(LINES)


def test_a_name_is_never_markup():
    plot = forest_plot(forest([Line("<b>x", 0.0, None, None, "undecided", "<i>")], 0.001, "x"))
    assert "<b>x" not in str(plot["layout"])
    assert "<i>" not in str(plot)
