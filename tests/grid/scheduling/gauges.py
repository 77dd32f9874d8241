"""Ray's gauges and the clock, in a test's hands."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class FakeGauge:
    """Keeps what it was set to, as strict with tags as Ray's own."""

    name: str
    description: str
    tag_keys: tuple[str, ...]
    values: dict[tuple[str, ...], float] = field(default_factory=dict)
    times: Counter = field(default_factory=Counter)

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert tuple(tags) == self.tag_keys
        assert all(isinstance(one, str) for one in tags.values())
        assert isinstance(value, float)
        self.values[tuple(tags.values())] = value
        self.times[tuple(tags.values())] += 1


class Clock:
    """A time that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now
