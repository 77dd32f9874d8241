"""One sentence says what makes int8 faster or slower, in both directions, and what works against it."""

from grid.results.operators.because import WORDS, because
from grid.results.operators.times import Beside, NetworkTimes
from quant.operator_times.operator_time import KINDS
from tests.grid.results.operators.operator_files import FASTER, FLOAT_MS, SLOWER, operator


def sentence(int8, ratio: float, int8_ms: float, float_=FLOAT_MS, float_ms: float = 15.0) -> str:
    return because(Beside(NetworkTimes("int8", tuple(int8), int8_ms), NetworkTimes("", float_, float_ms), ratio))


def test_a_slower_network_has_its_causes_by_size_then_what_works_against_them_and_what_stays_in_float():
    assert sentence(SLOWER, 1.83, 27.5) == (
        "int8 is slower (1.83 x) here because depthwise convolutions take 4.0 x their float time (+12.0 ms) and "
        "conversions between float and int8 add 2.1 ms; against that, convolutions take 0.80 x their float time "
        "(-2.0 ms); 1.4 ms stay in float (resizing 1.4), with 2.1 ms of conversions."
    )


def test_a_faster_network_has_what_is_saved():
    assert sentence(FASTER, 0.43, 6.5) == (
        "int8 is faster (0.43 x) here because convolutions take 0.30 x their float time (-7.0 ms) and depthwise "
        "convolutions take 0.50 x their float time (-2.0 ms); against that, resizing takes 1.5 x its float time "
        "(+0.5 ms); 1.5 ms stay in float (resizing 1.5)."
    )


def test_what_falls_away_and_what_no_operator_accounts_for_are_told():
    before = (*FLOAT_MS, operator("normalization", 5))
    text = sentence(FASTER, 0.6, 12.5, before, 20.0)
    assert "normalizations fall away (-5.0 ms)" in text
    assert "against that, time outside of operators adds 6.0 ms" in text


def test_equal_latencies_are_called_equal_and_small_changes_are_not_named():
    changed = (operator("convolution", 10.2), operator("depthwise", 4), operator("resize", 1))
    assert sentence(changed, 1.01, 15.2).startswith(
        "int8 is as fast as float here (1.01 x), and no kind of operator stands out; "
    )


def test_every_kind_has_words():
    assert set(WORDS) == set(KINDS)
