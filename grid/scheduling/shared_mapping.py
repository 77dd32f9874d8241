"""A mapping that workers look things up in: sent to each process once, whatever number of trials it runs."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import ray

T = TypeVar("T")
_known: dict[str, Mapping[str, Any]] = {}
"""What this process has been sent, by object id."""


class SharedMapping(Mapping[str, T]):
    """The mapping in Ray's object store; pickled as a reference alone.

    Tune unpickles the trainable for every trial, in the driver too: the nodes of a grid of thousands of cells would
    cost each of its trials a tenth of a second.
    """

    def __init__(self, values: Mapping[str, T]) -> None:
        self._reference: Any = ray.put(dict(values))

    def _values(self) -> Mapping[str, T]:
        name = self._reference.hex()
        if name not in _known:
            _known[name] = ray.get(self._reference)
        return _known[name]

    def __getitem__(self, key: str) -> T:
        return self._values()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self._values())
