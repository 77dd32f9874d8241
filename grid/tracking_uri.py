"""Where the tracking store is: checking the URI before work starts, and showing it without its secrets."""

import re
import urllib.error
import urllib.request

from model.errors import InputError


def masked(uri: str) -> str:
    """Return a URI, or a text with URIs, without its user names, passwords and query values: fit to be shown."""
    without_user = re.sub(r"(://)[^/?#\s]*@", r"\1***@", uri)
    return re.sub(r"([?&][^=&\s]+=)[^&\s]+", r"\1***", without_user)


def checked_uri(uri: str) -> str:
    """Return the tracking URI; raises InputError when MLflow could not use it or no server answers."""
    scheme, colon, _ = uri.partition("://")
    if not colon or scheme == "file":
        raise InputError(
            f"--tracking-uri {masked(uri)}",
            "is a folder, which MLflow keeps no runs in any more",
            "sqlite:////absolute/path/mlflow.db or http(s)://host:port",
        )
    if scheme in ("http", "https"):
        address = re.sub(r"://[^/?#\s]*@", "://", uri).rstrip("/")
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
        except urllib.error.HTTPError:
            pass  # someone answers; whether we may write shows at the first write
        except OSError as error:
            raise InputError(
                f"--tracking-uri {masked(uri)}", f"no server answers ({error})", "a running `mlflow server`"
            ) from None
    return uri


def ui_command(uri: str) -> str:
    """Return how to look at the runs: a command for a database, the address of a server."""
    if uri.startswith("http"):
        return masked(uri)
    options = "--workers 1 --host 127.0.0.1 --port 5000"
    return f"MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow server --backend-store-uri {masked(uri)} {options}"
