"""How a plan ended; nothing here needs Ray."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RunOutcome:
    """Reasons by the id of each failed node, and why the plan ended before all was tried, if it did.

    ``stopped``: the storage cannot be written to, or Ray failed. ``ray_died``: a Ray that was started here died, and
    another one may continue. ``interrupted``: somebody asked for the end.
    """

    failures: dict[str, str]
    stopped: str | None = None
    ray_died: bool = False
    interrupted: bool = False
