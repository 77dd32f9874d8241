"""Operators of an int8 network stand beside those of its engine's own float network, else of PyTorch's."""

import pytest

from grid.results.operators.times import beside_float
from tests.grid.report.report_rows import row
from tests.grid.results.operators.operator_files import FLOAT_MS, SLOWER, operator_file

INT8_ROW = row(
    "int8", method="ptq", latency_ms_p50=60.0, latency_ratio=1.875, engine_ratio=2.4, engine_float="fp32-own"
)


def test_without_a_float_network_of_the_engine_pytorchs_stands_beside_it(tmp_path):
    found = beside_float(INT8_ROW, {"int8": operator_file(tmp_path / "int8", SLOWER)})
    assert (found.int8.cell, found.float_.cell, found.ratio) == ("int8", "", 1.875)
    assert found.float_.ms("convolution") == pytest.approx(2 * 10), "profiled in 16 ms, and its latency is 32"


def test_the_engines_own_float_network_is_preferred(tmp_path):
    files = {"int8": operator_file(tmp_path / "int8", SLOWER), "fp32-own": operator_file(tmp_path / "fp32", FLOAT_MS)}
    found = beside_float(INT8_ROW, files)
    assert (found.float_.cell, found.ratio) == ("fp32-own", 2.4)


def test_operators_add_up_to_latencies_of_the_ratio_whenever_they_were_profiled(tmp_path):
    files = {"int8": operator_file(tmp_path / "int8", SLOWER), "fp32-own": operator_file(tmp_path / "fp32", FLOAT_MS)}
    found = beside_float(INT8_ROW, files)
    assert found.int8.ms() == pytest.approx(60)
    assert found.float_.ms() == pytest.approx(60 / 2.4)
    assert found.by_kind()[0] == ("depthwise", pytest.approx(32), pytest.approx(25 * 4 / 16))
    assert sum(now for _, now, _ in found.by_kind()) == pytest.approx(60)


def test_the_operators_as_profiled_are_compared_with_the_latency_that_was_measured(tmp_path):
    files = {"int8": operator_file(tmp_path / "int8", SLOWER, latency_ms=(25.0, 10.0))}
    found = beside_float(INT8_ROW, files)
    assert found.int8.coverage == pytest.approx(27.5 / 25)
    assert found.float_.coverage == pytest.approx(15 / 10)


@pytest.mark.parametrize("untold", ["no file", "no candidate", "no latency"])
def test_what_is_not_told_has_no_comparison(tmp_path, untold):
    files = {"int8": operator_file(tmp_path / "int8", SLOWER if untold != "no candidate" else ())}
    line = {**INT8_ROW, "latency_ratio": None} if untold == "no latency" else INT8_ROW
    assert beside_float(line, {} if untold == "no file" else files) is None
