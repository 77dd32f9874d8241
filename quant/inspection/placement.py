"""Where the operators of a network run on an engine, and what follows from it: shares, conversions, float islands."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from quant.inspection.operators import Operator

INT8, FLOAT, FOLDED, MOVES = "int8", "float", "folded", "moves data"
"""Where an operator runs; folded: the engine has made it part of another one, or needs it no more."""


@dataclass(frozen=True)
class Placement:
    """What an engine makes of a network: where each operator runs, and its conversions between float and int8.

    ``where`` has int8, float or folded by operator. ``conversions`` counts those at the network's input and output too.
    """

    engine: str
    where: Mapping[str, str]
    conversions: int

    def of(self, operator: Operator) -> str:
        """Where it runs; of what computes nothing that it moves data."""
        place = self.where[operator.name]
        return MOVES if operator.moves and place != FOLDED else place

    def in_float(self, operators: Iterable[Operator]) -> list[Operator]:
        """Those that compute in float."""
        return [operator for operator in operators if self.of(operator) == FLOAT]


@dataclass(frozen=True)
class Island:
    """Float operators between int8 ones: how many tensors are converted on the way in and out, of ``values`` in all.

    ``operators`` are those that compute, or, if none does, those that move data.
    """

    operators: tuple[Operator, ...]
    conversions: int
    values: int


def share(chosen: Iterable[float], everything: Iterable[float]) -> float:
    """The part that the chosen have of all, 0 where all is nothing."""
    total = sum(everything)
    return sum(chosen) / total if total else 0.0


def int8_macs(placement: Placement, operators: Sequence[Operator]) -> int:
    """The MACs that run in int8."""
    return sum(one.macs for one in operators if placement.where[one.name] == INT8)


def int8_weights(placement: Placement, operators: Sequence[Operator]) -> int:
    """The weights that are kept in int8."""
    return sum(one.weights for one in operators if placement.where[one.name] == INT8)


def islands(placement: Placement, operators: Sequence[Operator]) -> list[Island]:
    """Groups of connected float operators that read int8 values and whose results int8 operators read."""
    named = {operator.name: operator for operator in operators}
    in_float = set[str]()
    for operator in operators:  # what is folded goes with what it reads
        folded = placement.where[operator.name] == FOLDED
        if placement.where[operator.name] == FLOAT or (folded and in_float.intersection(operator.inputs)):
            in_float.add(operator.name)
    readers: dict[str, list[str]] = {name: [] for name in named}
    for operator in operators:
        for source in operator.inputs:
            readers[source].append(operator.name)
    found, seen = [], set[str]()
    for start in (operator.name for operator in operators if operator.name in in_float):
        if start in seen:
            continue
        group = _connected(start, in_float, named, readers)
        seen |= group
        read = {source for name in group for source in named[name].inputs if source not in in_float}
        given = {name for name in group if any(reader not in in_float for reader in readers[name])}
        computing = tuple(operator for operator in operators if operator.name in group and not operator.moves)
        if read and given:
            values = sum(named[name].values for name in (*read, *given))
            members = computing or tuple(operator for operator in operators if operator.name in group)
            found.append(Island(members, len(read) + len(given), values))
    return found


def _connected(
    start: str, within: set[str], named: Mapping[str, Operator], readers: Mapping[str, list[str]]
) -> set[str]:
    group, open_ends = {start}, [start]
    while open_ends:
        name = open_ends.pop()
        fresh = {other for other in (*named[name].inputs, *readers[name]) if other in within} - group
        group |= fresh
        open_ends += fresh
    return group


def kinds(operators: Iterable[Operator]) -> str:
    """Their kinds, most frequent first, such as ``20 Hardswish, 2 LayerNorm``."""
    return ", ".join(f"{count} {kind}" for kind, count in Counter(one.kind for one in operators).most_common())
