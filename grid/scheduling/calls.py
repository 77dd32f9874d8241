"""How a worker that waits without a stage is called: by a file on one machine, by an actor on several."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_LOOK_EVERY_S = 0.05


class Calls(Protocol):
    """The driver's side: which trials wait, and the end of their waiting."""

    def opened(self, trial_id: str) -> dict[str, str]:
        """What a trial that is to wait needs to know: part of its config."""

    def waits(self, trial_id: str) -> bool:
        """Whether it was not called yet."""

    def call(self, trial_id: str) -> None:
        """End its waiting."""


class FileCalls:
    """A file a trial in a folder that driver and workers see, which is removed as a call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def opened(self, trial_id: str) -> dict[str, str]:
        """The file."""
        file = self.folder / trial_id
        file.touch()
        return {"until_gone": str(file)}

    def waits(self, trial_id: str) -> bool:
        """Whether the file is there."""
        return (self.folder / trial_id).exists()

    def call(self, trial_id: str) -> None:
        """Remove it."""
        (self.folder / trial_id).unlink(missing_ok=True)


class ActorCalls:
    """An actor on the driver's node, which answers a waiting trial when it is called: for machines without a folder."""

    def __init__(self) -> None:
        self.name, self.waiting = f"calls-{secrets.token_hex(4)}", set[str]()
        home = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor: Any = ray.remote(Desk).options(
            name=self.name, num_cpus=0, max_concurrency=1000, scheduling_strategy=home
        )
        self.desk = actor.remote()

    def opened(self, trial_id: str) -> dict[str, str]:
        """The name of the actor, and that of the trial."""
        self.waiting.add(trial_id)
        return {"desk": self.name, "until_called": trial_id}

    def waits(self, trial_id: str) -> bool:
        """Whether it was not called yet."""
        return trial_id in self.waiting

    def call(self, trial_id: str) -> None:
        """Tell the actor."""
        self.waiting.discard(trial_id)
        self.desk.call.remote(trial_id)


class Desk:
    """Where trials wait until they are called, whichever comes first."""

    def __init__(self) -> None:
        self.events: dict[str, asyncio.Event] = {}

    async def wait(self, trial_id: str) -> None:
        """Return when the trial is called."""
        await self.events.setdefault(trial_id, asyncio.Event()).wait()
        del self.events[trial_id]

    async def call(self, trial_id: str) -> None:
        """Let it return."""
        self.events.setdefault(trial_id, asyncio.Event()).set()


def wait_until_called(config: Mapping[str, Any]) -> None:
    """The worker's side: return when the trial of ``config`` is called, or nobody is left to call it."""
    if "until_gone" in config:
        while Path(config["until_gone"]).exists():
            time.sleep(_LOOK_EVERY_S)
        return
    with contextlib.suppress(RayError, ValueError):  # the driver, or its node, is gone
        ray.get(ray.get_actor(config["desk"]).wait.remote(config["until_called"]))
