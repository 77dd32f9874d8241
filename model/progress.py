"""How long work says where it stands."""

from collections.abc import Callable

Progress = Callable[[dict[str, float]], None]
"""Called again and again with figures by name, such as step and steps, epoch and epochs, loss."""


def ignore_progress(figures: dict[str, float]) -> None:
    """Show nothing."""


def duration(seconds: float) -> str:
    """``40 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
