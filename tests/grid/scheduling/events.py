"""A listener that remembers what it hears."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from grid.planning.plan import Node


@dataclass
class Events:
    """A listener that remembers."""

    seen: list[tuple[str, str]] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    own: set[str] = field(default_factory=set)
    reasons_again: dict[str, str] = field(default_factory=dict)
    news: list[dict[str, Any]] = field(default_factory=list)

    def started(self, node: Node) -> None:
        self.seen.append(("started", node.id))

    def progressed(self, node: Node, info: dict[str, Any]) -> None:
        self.news.append(info)

    def finished(self, node: Node) -> None:
        self.seen.append(("finished", node.id))

    def retried(self, node: Node, reason: str) -> None:
        self.seen.append(("retried", node.id))
        self.reasons_again[node.id] = reason

    def failed(self, node: Node, reason: str, inherited: bool) -> None:
        self.seen.append(("failed", node.id))
        self.reasons[node.id] = reason
        self.own |= {node.id} if not inherited else set()

    def times(self, kind: str) -> Counter:
        return Counter(node for what, node in self.seen if what == kind)
