"""Who is told what happens to the nodes of a plan."""

from typing import Any, Protocol

from grid.planning.plan import Node


class Observer(Protocol):
    """Told by the driver about every node, in the driver's process."""

    def started(self, node: Node) -> None:
        """A worker has begun."""

    def progressed(self, node: Node, info: dict[str, Any]) -> None:
        """News from within a stage: step, steps, epoch, epochs, loss."""

    def finished(self, node: Node) -> None:
        """The node is in the store."""

    def retried(self, node: Node, reason: str) -> None:
        """An attempt came to nothing; the node will be tried again."""

    def failed(self, node: Node, reason: str) -> None:
        """The node will not be in the store; ``reason`` is one line and names the log."""
