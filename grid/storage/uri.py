"""A storage that is a URI, as text: shown without its secrets, and the folder that this machine keeps for it."""

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import unquote

from grid.secrets import MASK, masked

CACHE = "QUANTIZATION_GRID_CACHE"
_MATTERS = ("endpoint_override", "region", "blob_storage_authority", "dfs_storage_authority")


def is_uri(storage: str) -> bool:
    """Whether a storage is a URI and no path."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", storage))


def local_root(storage: str) -> Path:
    """The folder of this machine for a storage: a path is its own, a URI has one in ``$QUANTIZATION_GRID_CACHE``.

    Without that variable it is in ``~/.cache/quantization-grid``. Its name holds no secret of the URI.
    """
    if not is_uri(storage):
        return Path(storage).absolute()
    cache = Path(os.environ.get(CACHE) or Path.home() / ".cache" / "quantization-grid").absolute()
    whole = identity(storage)
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", whole.partition("?")[0])[:60].strip("-.")
    return cache / f"{readable}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def masked_uri(uri: str) -> str:
    """The URI without its secrets, fit to be shown."""
    scheme, user, rest, query = split(uri)
    return masked(f"{scheme}://{f'{MASK}@' if user else ''}{rest}{'?' if query else ''}{query}")


def without_secrets(text: str, uri: str) -> str:
    """A text about the URI (an error of a library) without the URI's secrets, on one line."""
    _, user, _, query = split(uri)
    hidden = [*user.split(":"), user, *re.findall(r"(?:key|token|secret|password)[^=&]*=([^&]+)", query)]
    text = text.replace(uri, masked_uri(uri))
    for secret in sorted(filter(None, hidden), key=len, reverse=True):
        for form in (secret, unquote(secret)):
            text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", MASK, text)
    return " ".join(masked(text).split())


def identity(uri: str) -> str:
    """What tells one storage from another: the URI without secrets, user names and options."""
    scheme, user, rest, query = split(uri)
    container = f"{user.partition(':')[0]}@" if scheme.startswith("abfs") and user else ""
    options = sorted(one for one in query.split("&") if one.partition("=")[0] in _MATTERS)
    return f"{scheme}://{container}{rest.rstrip('/')}" + (f"?{'&'.join(options)}" if options else "")


def split(uri: str) -> tuple[str, str, str, str]:
    """Scheme, user information, the rest, and the query of a URI; an S3 secret may hold a slash that nobody encoded."""
    scheme, _, rest = uri.partition("://")
    scheme, (rest, _, query) = scheme.lower(), rest.partition("?")
    user = re.match(r"[^/@]*:[^@]*@|[^/@]*@" if scheme == "s3" else r"[^/@]*@", rest)
    return scheme, (user[0][:-1] if user else ""), rest[user.end() if user else 0 :], query
