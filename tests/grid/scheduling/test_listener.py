"""One list of listeners: each hears every event, in order, with all that it says."""

import subprocess
import sys
from typing import Any

from grid.planning.plan import Node
from grid.scheduling.listener import Listeners
from tests.grid.tiny import ROOT

NODE = Node("a" * 20, "evaluate", {}, (), (), "module:function")
EVENTS: dict[str, tuple[Any, ...]] = {
    "started": (NODE,),
    "progressed": (NODE, {"step": 1}),
    "finished": (NODE,),
    "retried": (NODE, "its worker died"),
    "failed": (NODE, "it broke", True),
}


class Heard:
    """A listener that notes what it hears in a list that it shares."""

    def __init__(self, name: str, heard: list[tuple[Any, ...]]) -> None:
        self.name, self.heard = name, heard

    def __getattr__(self, event: str) -> Any:
        return lambda *arguments: self.heard.append((self.name, event, *arguments))


def test_every_listener_hears_every_event_in_order():
    heard: list[tuple[Any, ...]] = []
    both = Listeners(Heard("first", heard), Heard("second", heard))
    for event, arguments in EVENTS.items():
        getattr(both, event)(*arguments)
    assert heard == [(name, event, *said) for event, said in EVENTS.items() for name in ("first", "second")]


def test_what_reports_and_delivers_a_run_needs_no_ray():
    modules = "grid.run.actions, grid.run.recorder, grid.run.live_results, grid.run.steps, grid.run.export, runner"
    code = f"import sys, {modules}; print([name for name in sys.modules if name.partition('.')[0] == 'ray'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
