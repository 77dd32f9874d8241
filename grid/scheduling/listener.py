"""Who hears what happens to the nodes of a plan; nothing here needs Ray."""

from typing import Any, Protocol

from grid.planning.plan import Node


class Listener(Protocol):
    """Hears of every node from the driver, in the driver's process."""

    def started(self, node: Node) -> None:
        """A worker has begun."""

    def progressed(self, node: Node, info: dict[str, Any]) -> None:
        """News from within a stage: step, steps, epoch, epochs, loss."""

    def finished(self, node: Node) -> None:
        """The node is in the store."""

    def retried(self, node: Node, reason: str) -> None:
        """The attempt failed and will be retried."""

    def failed(self, node: Node, reason: str, inherited: bool) -> None:
        """The node will not be in the store.

        ``reason`` is one line and names the log; where it is ``inherited``, it is that of a node that this one needs.
        """


class Listeners:
    """One listener that passes every event on to several, in their order."""

    def __init__(self, *listeners: Listener) -> None:
        self.listeners = listeners

    def started(self, node: Node) -> None:
        """A worker has begun."""
        for listener in self.listeners:
            listener.started(node)

    def progressed(self, node: Node, info: dict[str, Any]) -> None:
        """News from within a stage."""
        for listener in self.listeners:
            listener.progressed(node, info)

    def finished(self, node: Node) -> None:
        """The node is in the store."""
        for listener in self.listeners:
            listener.finished(node)

    def retried(self, node: Node, reason: str) -> None:
        """The attempt failed and will be retried."""
        for listener in self.listeners:
            listener.retried(node, reason)

    def failed(self, node: Node, reason: str, inherited: bool) -> None:
        """The node will not be in the store."""
        for listener in self.listeners:
            listener.failed(node, reason, inherited)
