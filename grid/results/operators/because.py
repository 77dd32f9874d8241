"""Why an int8 network is faster or slower than float, in one sentence."""

from grid.results.operators.times import Beside
from quant.operator_times.operator_time import CONVERSION, FLOAT, KINDS

WORDS = {
    "convolution": "convolutions",
    "depthwise": "depthwise convolutions",
    "linear": "1x1 convolutions and linear layers",
    "normalization": "normalizations",
    "activation": "activations",
    "elementwise": "sums and products",
    "pool": "pooling",
    "resize": "resizing",
    "data movement": "moving data",
    "conversion": "conversions between float and int8",
    "other": "other operators",
    "outside": "time outside of operators",
}
"""Kinds of operators in a reader's words."""
_SINGULAR = {"pool", "resize", "data movement", "outside"}
_EQUAL = 0.03
"""A ratio this near to 1 is called equal."""
_LEAST = 0.03
"""What changes the latency by less of float's is not named."""
_MOST = 3


def because(found: Beside) -> str:
    """What of the operators makes the difference, and what works against it, in milliseconds that add up to it."""
    slower = found.ratio >= 1
    changes = [(WORDS[kind], now, before, kind in _SINGULAR) for kind, now, before in found.by_kind()]
    least = _LEAST * found.float_.ms()
    named = [one for one in changes if abs(one[1] - one[2]) >= least]
    causes = [_change(*one) for one in named if (one[1] > one[2]) == slower][:_MOST]
    against = [_change(*one) for one in named if (one[1] > one[2]) != slower][:_MOST]
    if abs(found.ratio - 1) < _EQUAL:
        sentence = f"int8 is as fast as float here ({found.ratio:.2f} x)"
    else:
        sentence = f"int8 is {'slower' if slower else 'faster'} ({found.ratio:.2f} x) here"
    sentence += f" because {_listed(causes)}" if causes else ", and no kind of operator stands out"
    if against:
        sentence += f"; against that, {_listed(against)}"
    return f"{sentence}{_in_float(found)}."


def _change(words: str, now: float, before: float, singular: bool) -> str:
    """What one kind of operators adds or saves."""
    difference = f"{now - before:+.1f} ms"
    if now < 0.02 * before:
        return f"{words} {'falls' if singular else 'fall'} away ({difference})"
    if before < 0.1 * now:
        return f"{words} {'adds' if singular else 'add'} {now - before:.1f} ms"
    share = now / before
    takes = "takes" if singular else "take"
    times = f"{share:.{1 if share >= 1 else 2}f} x {'its' if singular else 'their'} float time"
    return f"{words} {takes} {times} ({difference})"


def _in_float(found: Beside) -> str:
    """What of the int8 network still computes in float, and the conversions around it."""
    stays = [(WORDS[kind], found.int8.ms(kind, FLOAT)) for kind in KINDS]
    stays = sorted((one for one in stays if one[1] >= 0.05), key=lambda one: -one[1])
    if not stays:
        return ""
    total, conversions = sum(ms for _, ms in stays), found.int8.ms(CONVERSION)
    text = f"; {total:.1f} ms stay in float ({', '.join(f'{words} {ms:.1f}' for words, ms in stays[:_MOST])})"
    return f"{text}, with {conversions:.1f} ms of conversions" if conversions >= 0.05 else text


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
