"""Where the tracking store is: checking the URI before work starts, and showing it without its secrets."""

import re
import shlex
import sys
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path

from grid.secrets import masked
from model.errors import InputError

EXPERIMENT = "quantization-grid"
UI_HOST, UI_PORT = "127.0.0.1", 5000


def store_uri(storage: Path) -> str:
    """The MLflow store of a storage folder that is given no other."""
    return f"sqlite:///{storage.absolute() / 'mlflow.db'}"


def checked_uri(uri: str) -> str:
    """Return the tracking URI; raises InputError when MLflow could not use it or no server answers."""
    if re.search(r"\s", uri) and not uri.startswith("sqlite:"):  # a path may hold one
        raise InputError("--tracking-uri", "holds a space, and is not shown here", "a URI, with %20 for a space")
    scheme, colon, _ = uri.partition("://")
    if not colon or scheme == "file":
        raise InputError(
            f"--tracking-uri {masked(uri)}",
            "is a folder, which MLflow keeps no runs in any more",
            "sqlite:////absolute/path/mlflow.db or http(s)://host:port",
        )
    if scheme in ("http", "https"):
        try:
            urllib.parse.urlsplit(uri).port  # noqa: B018, raises where a password holds a bare / or ?
        except ValueError:
            expected = "http(s)://user:password@host:port, with %2F for a / in the password"
            raise InputError(f"--tracking-uri {masked(uri)}", "names no host and port", expected) from None
        address = re.sub(r"://[^/?#]*@", "://", uri).rstrip("/")
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
        except urllib.error.HTTPError:
            pass  # someone answers; whether we may write shows at the first write
        except (OSError, HTTPException) as error:
            raise InputError(
                f"--tracking-uri {masked(uri)}", f"no server answers ({error})", "a running `mlflow server`"
            ) from None
    return uri


def ui_arguments(port: int) -> list[str]:
    """The command that serves MLflow's pages on this machine alone; the database is in ``ui_environment``."""
    return [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", UI_HOST, "--port", str(port)]


def ui_environment(uri: str) -> dict[str, str]:
    """Which database the pages show: not on the command line, which everybody on the machine can read.

    Without its job runner, which the pages do not need, the server starts in seconds and stops at once.
    """
    return {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def ui_command(uri: str, storage: Path) -> str:
    """How to look at the runs: a command for a storage's own database, else where they are."""
    if uri != store_uri(storage):
        return masked(uri)
    return "python runner.py --ui" + (
        "" if storage == Path("results").absolute() else f" --storage {shlex.quote(str(storage))}"
    )
