"""What an error says is made of its fields, which stay what they are until it is printed."""

import math
import pickle

import pytest

from model.errors import InputError, require_one_of, require_range

WRONG = InputError(
    "train.init", "is unknown", hint="Did you mean lite0?", value="'lite'", options=("imagenet", "lite0")
)


def fields(error: InputError) -> tuple:
    return error.where, error.problem, error.expected, error.hint, error.value, error.options


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (WRONG, "train.init: 'lite' is unknown; expected one of imagenet, lite0. Did you mean lite0?"),
        (InputError("a.csv", "is missing"), "a.csv: is missing."),
        (InputError("a.csv", "is missing", hint="Look."), "a.csv: is missing. Look."),
        (InputError("a", "b", "c: d; expected e", options=("f",)), "a: b; expected c: d; expected e."),
        (WRONG.within("mine.yaml"), f"mine.yaml: {WRONG}"),
    ],
)
def test_the_text_says_where_which_value_what_was_expected_and_what_to_do(error, text):
    assert str(error) == text


def test_an_error_is_the_same_in_another_process():
    again = pickle.loads(pickle.dumps(WRONG))
    assert type(again) is InputError
    assert fields(again) == fields(WRONG)
    assert fields(again)[2:] == ("one of imagenet, lite0", "Did you mean lite0?", "'lite'", ("imagenet", "lite0"))


def test_joined_errors_stay_a_list_also_in_another_process_and_when_joined_again():
    other = InputError("b.csv", "is missing")
    joined = InputError.all([InputError.all([WRONG, other]), other])
    for error in (joined, pickle.loads(pickle.dumps(joined))):
        assert [fields(one) for one in error.errors] == [fields(one) for one in (WRONG, other, other)]
        assert str(error) == f"{WRONG}\n{other}\n{other}"
        assert fields(error) == fields(WRONG)
    assert str(joined.within("x")) == f"x: {WRONG}\nx: {other}\nx: {other}"
    assert WRONG.errors == (WRONG,)


@pytest.mark.parametrize("value", [0.9, 2.1, math.nan, math.inf])
def test_a_value_out_of_its_range_is_refused(value):
    with pytest.raises(InputError) as caught:
        require_range("a.b", value, 1.0, 2.0)
    assert str(caught.value) == f"a.b: {value!r} is out of range; expected between 1.0 and 2.0."


def test_a_value_in_its_range_is_taken_limits_included():
    for value in (1, 2):
        require_range("a", value, 1, 2)
    require_range("a", 10**9, 1)
    with pytest.raises(InputError, match="expected at least 1"):
        require_range("a", 0, 1)


def test_a_value_must_be_one_of_the_options():
    require_one_of("a", "x", ("x", "y"))
    with pytest.raises(InputError, match=r"^a: 'z' is unknown; expected one of x, y\.$") as caught:
        require_one_of("a", "z", ("x", "y"))
    assert caught.value.options == ("x", "y")
