"""One sentence says what makes int8 faster or slower, in both directions, and what works against it."""

from grid.results.operators.because import WORDS, because
from grid.results.operators.times import Beside, NetworkTimes
from quant.operator_times.operator_time import KINDS
from tests.grid.results.operators.operator_files import FASTER, FLOAT_MS, SLOWER, operator


def sentence(int8, float_=FLOAT_MS) -> str:
    networks = [NetworkTimes("", tuple(one), 1.0) for one in (int8, float_)]
    return because(Beside(*networks, networks[0].ms() / networks[1].ms()))


def test_a_slower_network_has_its_causes_by_size_then_what_works_against_them_and_what_stays_in_float():
    assert sentence(SLOWER) == (
        "int8 is slower (1.88 x) here because depthwise convolutions take 4.0 x their float time (+12.0 ms), "
        "conversions between float and int8 add 2.1 ms and time outside of operators takes 2.5 x its float time "
        "(+1.5 ms); against that, convolutions take 0.80 x their float time (-2.0 ms); 1.4 ms stay in float (resizing "
        "1.4), with 2.1 ms of conversions."
    )


def test_a_faster_network_has_what_is_saved():
    assert sentence(FASTER) == (
        "int8 is faster (0.50 x) here because convolutions take 0.30 x their float time (-7.0 ms) and depthwise "
        "convolutions take 0.50 x their float time (-2.0 ms); against that, resizing takes 1.5 x its float time "
        "(+0.5 ms) and time outside of operators takes 1.5 x its float time (+0.5 ms); 1.5 ms stay in float (resizing "
        "1.5)."
    )


def test_what_is_not_there_any_more_falls_away():
    assert "normalizations fall away (-5.0 ms)" in sentence(FASTER, (*FLOAT_MS, operator("normalization", 5)))


def test_equal_latencies_are_called_equal_and_small_changes_are_not_named():
    changed = (operator("convolution", 10.2), *FLOAT_MS[1:])
    assert sentence(changed).startswith("int8 is as fast as float here (1.01 x), and no kind of operator stands out; ")


def test_every_kind_has_words():
    assert set(WORDS) == set(KINDS)
