"""MLflow's pages on this machine, served by a process of its own that ends with this one's work."""

import contextlib
import os
import signal
import subprocess
import types
from collections.abc import Iterator

from grid.run.options import Options
from grid.secrets import masked
from grid.storage.uri import local_root
from grid.tracking.uri import EXPERIMENT, UI_HOST, store_uri, ui_arguments, ui_environment
from model.errors import InputError

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK_EVERY_S = 0.2
_PATIENCE_S = 10.0


def open_pages(options: Options) -> int:
    """Serve the MLflow pages of a storage until Ctrl-C or SIGTERM; returns the exit status of a server that fails.

    Raises InputError where there is no database to show.
    """
    storage = local_root(options.storage)
    uri = options.tracking_uri or store_uri(storage)
    if uri.startswith("http"):
        raise InputError("--ui", f"{masked(uri)} is a server with pages of its own", "a database")
    if uri == store_uri(storage) and not (storage / "mlflow.db").is_file():
        raise InputError("--ui", f"{options.storage} holds no runs", "a storage in which a grid has run")
    from grid.tracking.mlflow_store import runs_page  # imports mlflow, as the server will

    print(f"MLflow     http://{UI_HOST}:{options.ui}{runs_page(uri, EXPERIMENT)}  (Ctrl-C ends it)", flush=True)
    return serve(ui_arguments(int(options.ui or 0)), os.environ | ui_environment(uri))


def serve(command: list[str], environment: dict[str, str]) -> int:
    """Run a command in a session of its own until it ends or a signal asks for the end; none of its processes stays.

    Returns 0 where a signal was the reason, else the command's exit status.
    """
    with _noted_signals() as noted:
        server = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            while not noted and server.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.wait(_LOOK_EVERY_S)
        finally:
            _end_session(server)
    return 0 if noted else server.returncode


@contextlib.contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """A list of the signals to end that came; a signal that raised might come before its process is known."""
    noted: list[int] = []

    def note(number: int, frame: types.FrameType | None) -> None:
        noted.append(number)

    before = {number: signal.signal(number, note) for number in _ENDING}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_session(leader: subprocess.Popen[bytes]) -> None:
    """End all processes of a session, those of a leader that has ended already too; first by a request."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            leader.wait(_PATIENCE_S)
