"""How long work says where it stands."""

from collections.abc import Callable

Progress = Callable[[dict[str, float]], None]
"""Called again and again with figures by name, such as step and steps, epoch and epochs, loss."""


def ignore_progress(figures: dict[str, float]) -> None:
    """Show nothing."""
