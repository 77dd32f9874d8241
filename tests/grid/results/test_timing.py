"""Rows of one timing class share a latency whose interval is over what varies; ratios are to the engine's own float."""

import math

import numpy as np
import pytest

from grid.results.timing import (
    FEWEST_SESSIONS,
    Between,
    between_measurements,
    pooled_interval,
    pooled_latencies,
    with_engine_ratios,
)
from tests.grid.report.report_rows import row


def timed(cell: str, loads: list[float], **given) -> dict:
    """A row whose own latency is that of these loads."""
    ratio, low, high = pooled_interval([loads])
    own = {"latency_ratio": ratio, "latency_ratio_low": low, "latency_ratio_high": high, "latency_ms_p50": 20 * ratio}
    more = {"timing_class": "a", "timing_session": cell, "load_ratios": " ".join(map(str, loads)), "cpu_model": "cpu"}
    return row(cell, **{"method": "ptq", "engine": "qnnpack", **own, **more, **given})


def by_name(rows: list[dict]) -> dict[str, dict]:
    return {one["cell"]: one for one in rows}


LOADS = {"x": [2.0, 2.1, 2.2], "y": [2.2, 2.3, 2.4], "z": [2.1, 2.1, 2.1]}


def test_rows_of_a_class_show_one_latency_and_keep_their_own():
    rows = pooled_latencies([timed(name, loads) for name, loads in LOADS.items()])
    ratio, low, high = pooled_interval(list(LOADS.values()))
    for one in rows:
        assert (one["latency_ratio"], one["latency_ratio_low"], one["latency_ratio_high"]) == (ratio, low, high)
        assert one["latency_sessions"] == 3
        assert one["latency_own_ratio"] == pytest.approx(pooled_interval([LOADS[one["cell"]]])[0])
    assert [one["latency_as"] for one in rows] == [None, "x", "x"]
    assert rows[0]["latency_ms_p50"] == pytest.approx(20 * ratio)


def test_other_classes_and_processors_and_former_rows_keep_theirs():
    rows = [
        timed("x", LOADS["x"]),
        timed("other", LOADS["y"], timing_class="b"),
        timed("elsewhere", LOADS["y"], cpu_model="another"),
        timed("former", LOADS["y"], timing_class=None, load_ratios=None),
        row("failed", status="failed", method="ptq", latency_ratio=None),
    ]
    found = by_name(pooled_latencies(rows))
    for name in ("x", "other", "elsewhere"):
        assert found[name]["latency_ratio"] == pytest.approx(found[name]["latency_own_ratio"])
        assert found[name]["latency_sessions"] == 1
    assert found["former"]["latency_ratio"] == rows[3]["latency_ratio"]
    assert found["former"]["latency_own_ratio"] is None
    assert found["failed"].get("latency_ratio") is None


def test_a_measurement_that_two_cells_share_counts_once():
    rows = [timed("x", LOADS["x"]), timed("same", LOADS["x"], timing_session="x"), timed("y", LOADS["y"])]
    found = pooled_latencies(rows)
    assert found[0]["latency_sessions"] == 2
    assert found[0]["latency_ratio"] == pytest.approx(pooled_interval([LOADS["x"], LOADS["y"]])[0])


def test_the_interval_is_over_measurements_from_three_on_and_over_loads_before():
    quiet = [[2.0, 2.0, 2.0], [2.2, 2.2, 2.2]]
    _, low, high = pooled_interval(quiet)
    assert low < 2.1 < high
    assert high - low > 0.1, "as two measurements differ"
    steady = [[1.9, 2.0, 2.1]] * FEWEST_SESSIONS
    ratio, low, high = pooled_interval(steady)
    assert (low, high) == pytest.approx((ratio, ratio)), "loads differ, measurements do not"
    assert pooled_interval([[2.0]]) == (pytest.approx(2.0), 0.0, math.inf)


def test_the_interval_of_a_class_holds_the_true_ratio_though_measurements_of_a_run_resemble_each_other():
    draw, held = np.random.default_rng(0), 0
    for _ in range(300):
        run = draw.normal(0, 0.042)
        sessions = [np.exp(draw.normal(draw.normal(run, 0.03), 0.01, 5)).tolist() for _ in range(12)]
        _, low, high = pooled_interval(sessions)
        held += low <= 1.0 <= high
    assert 270 <= held <= 298
    independent = [np.exp(draw.normal(0, 0.03, 5)).tolist() for _ in range(12)]
    half = math.log(pooled_interval(independent)[2] / pooled_interval(independent)[0])
    means = np.log(independent).mean(axis=1)
    assert half == pytest.approx(2.201 * means.std(ddof=1) * math.sqrt(2.0 + 1 / 12), rel=1e-3)


def test_the_ratio_of_an_engine_is_to_its_own_fastest_float_network():
    def one(cell: str, ratio: float, engine: str | None, method: str = "ptq") -> dict:
        spread = {"latency_ratio_low": ratio * 0.9, "latency_ratio_high": ratio * 1.1, "encoder": "e"}
        return row(cell, method=method, engine=engine, latency_ratio=ratio, **spread)

    rows = [
        one("fp32", 1.0, None, "fp32"),
        one("fp32-fuse_bn", 0.8, None, "fp32"),
        one("fp32-xnnpack", 0.5, "xnnpack", "fp32"),
        one("q", 2.4, "qnnpack"),
        one("x", 0.4, "xnnpack"),
        one("o", 0.4, "onnxruntime"),
    ]
    found = by_name(with_engine_ratios(rows))
    ratios = {name: one.get("engine_ratio") for name, one in found.items()}
    expected = {"fp32": 1.25, "fp32-fuse_bn": 1.0, "fp32-xnnpack": 1.0, "q": 3.0, "x": 0.8}
    assert {name: ratios[name] for name in expected} == pytest.approx(expected)
    assert ratios["o"] is None, "no float file of its engine was timed"
    assert found["q"]["engine_float"] == "fp32-fuse_bn"
    half = math.log(1.1 / 0.9) / 2 * math.sqrt(2)
    assert math.log(found["x"]["engine_ratio_high"] / 0.8) == pytest.approx(half)
    assert found["fp32-fuse_bn"]["engine_ratio_low"] == found["fp32-fuse_bn"]["engine_ratio_high"] == 1.0


def test_a_float_network_of_another_processor_is_no_reference():
    rows = [timed("fp32", LOADS["x"], method="fp32", engine=None, cpu_model="one", timing_class="f")]
    rows.append(timed("q", LOADS["y"], cpu_model="two"))
    assert by_name(pooled_latencies(rows))["q"]["engine_ratio"] is None


def test_a_ratio_whose_interval_is_unknown_has_none():
    rows = [timed("fp32", [1.0], method="fp32", engine=None, timing_class="f"), timed("q", LOADS["y"])]
    found = by_name(pooled_latencies(rows))["q"]
    assert found["engine_ratio"] > 2
    assert (found["engine_ratio_low"], found["engine_ratio_high"]) == (None, None)


def test_a_class_of_one_measurement_borrows_what_measurements_of_other_classes_differ_by():
    alone = timed("float", [0.9, 0.901, 0.899], method="fp32", engine=None, timing_class="f")
    rows = [*(timed(name, loads) for name, loads in LOADS.items()), alone]
    found = by_name(pooled_latencies(rows))["float"]
    own, borrowed = ([found[f"latency{kind}_ratio_{end}"] for end in ("low", "high")] for kind in ("_own", ""))
    assert borrowed[0] < own[0] < own[1] < borrowed[1]
    elsewhere = by_name(pooled_latencies([*rows[:-1], {**alone, "cpu_model": "another"}]))["float"]
    assert [elsewhere[f"latency_ratio_{end}"] for end in ("low", "high")] == pytest.approx(own)


def test_what_measurements_differ_by_is_pooled_over_classes_with_their_degrees_of_freedom():
    one, other = [[1.0], [math.e], [math.e**2]], [[1.0], [1.0], [math.e**2], [math.e**2]]
    squares = 1.0 * 2 + 4 / 3 * 3
    assert between_measurements([one, other, [[1.0], [9.0]]]) == Between(pytest.approx(math.sqrt(squares / 5)), 5)
    assert between_measurements([[[1.0], [2.0]]]) is None


def test_a_single_measurement_is_covered_with_what_others_differ_by_and_not_by_its_loads():
    draw, held = np.random.default_rng(0), {"loads": 0, "borrowed": 0}
    for _ in range(300):
        run = draw.normal(0, 0.042)
        sessions = [np.exp(draw.normal(draw.normal(run, 0.03), 0.01, 5)).tolist() for _ in range(9)]
        between = between_measurements([sessions[1:]])
        for name, given in (("loads", None), ("borrowed", between)):
            _, low, high = pooled_interval(sessions[:1], given)
            held[name] += low <= 1.0 <= high
    assert 275 <= held["borrowed"] <= 297
    assert held["loads"] < 200
