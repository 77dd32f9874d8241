"""Operators of an int8 network stand beside those of its engine's own float network, else of PyTorch's."""

import pytest

from grid.results.operators.times import NetworkTimes, beside_float
from tests.grid.report.report_rows import row
from tests.grid.results.operators.operator_files import FASTER, FLOAT_MS, SLOWER, operator_file

INT8_ROW = row("int8", method="ptq", latency_ratio=1.9, engine_ratio=2.4, engine_float="fp32-own")


def test_without_a_float_network_of_the_engine_pytorchs_stands_beside_it(tmp_path):
    found = beside_float(INT8_ROW, {"int8": operator_file(tmp_path / "int8", SLOWER)})
    assert (found.int8.cell, found.float_.cell, found.ratio) == ("int8", "", 1.9)
    assert found.int8.latency_ms == pytest.approx(30), "of the last load"
    assert found.float_.latency_ms == pytest.approx(16)
    assert found.by_kind()[0] == ("depthwise", 16, 4)
    assert found.int8.coverage == pytest.approx(27.5 / 30)
    assert found.int8.outside_ms == pytest.approx(2.5)


def test_the_engines_own_float_network_is_taken_as_fast_as_the_machine_was_then(tmp_path):
    files = {
        "int8": operator_file(tmp_path / "int8", SLOWER, latency_ms=(30, 16)),
        "fp32-own": operator_file(tmp_path / "fp32", FLOAT_MS, latency_ms=(40, 32)),
    }
    found = beside_float(INT8_ROW, files)
    assert (found.float_.cell, found.ratio) == ("fp32-own", 2.4)
    assert found.float_.latency_ms == pytest.approx(20), "PyTorch's float network took half as long beside int8"
    assert found.float_.ms("convolution") == pytest.approx(5)


@pytest.mark.parametrize("untold", ["no file", "no candidate", "no latency"])
def test_what_is_not_told_has_no_comparison(tmp_path, untold):
    files = {"int8": operator_file(tmp_path / "int8", SLOWER if untold != "no candidate" else ())}
    line = {**INT8_ROW, "latency_ratio": None} if untold == "no latency" else INT8_ROW
    assert beside_float(line, {} if untold == "no file" else files) is None


def test_profiling_that_took_longer_than_the_latency_leaves_nothing_outside():
    assert NetworkTimes("", FASTER, 5.0).outside_ms == 0
    assert NetworkTimes("", FASTER, 5.0).coverage == pytest.approx(1.3)
