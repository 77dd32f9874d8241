"""Whole objects below a URI of pyarrow.fs (s3, gs, abfs, hdfs, file): read, written and listed, with a few retries."""

import contextlib
import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from grid.storage.uri import masked_uri, split, without_secrets
from model.errors import InputError

CHUNK = 8 << 20
DELAYS_S = (0.5, 1.0, 2.0)
PATIENCE_S = 60.0
"""No further try once one has taken so long: the libraries below retry too, for 6 s where nobody listens."""
REFUSED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY|INVALID_CLIENT_TOKEN|SIGNATURE_DOES_NOT_MATCH|EXPIRED_TOKEN|UNRECOGNIZED_CLIENT"
    r"|MISSING_AUTHENTICATION|[Pp]ermission|[Cc]redential|[Uu]nauthenticated|[Uu]nauthorized|HTTP (status )?40[13]\b"
)
NO_BUCKET = re.compile(r"NO_SUCH_BUCKET|[Bb]ucket '[^']*' not found|ContainerNotFound|bucket does not exist")
_FINAL = (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)
_WITH_RENAME = ("local", "hdfs")
T = TypeVar("T")


class ObjectStoreError(OSError):
    """A storage behind a URI failed for longer than its retries; ``reason`` is what its library said, without secrets.

    ``no_bucket``: its bucket does not exist. ``refused``: the credentials are missing, wrong or not enough.
    """

    def __init__(self, text: str, reason: str = "", no_bucket: bool = False, refused: bool = False) -> None:
        super().__init__(text)
        self.reason, self.no_bucket, self.refused = reason, no_bucket, refused


class Objects:
    """What a URI holds, by path below it; paths are checked by the caller.

    The connection is made on first use and anew in a forked child; only the URI travels to another process.
    An error of the network is tried again a few times, then raised as ObjectStoreError.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._opened: tuple[int, Any, str] | None = None
        self._opening = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Objects, (self.uri,)

    def read(self, path: str) -> bytes | None:
        """The bytes of an object, None where there is none."""

        def action(system: Any, base: str) -> bytes | None:
            try:
                with system.open_input_stream(f"{base}/{path}", compression=None) as stream:
                    content: bytes = stream.read()
                    return content
            except FileNotFoundError:
                return None

        return self._retried(f"reading {path}", action)

    def write(self, path: str, data: bytes) -> None:
        """Write a small object, whole or not at all."""
        self._retried(f"writing {path}", lambda system, base: _put(system, f"{base}/{path}", (data,)))

    def upload(self, file: Path, path: str) -> str:
        """Write a file as an object; returns the SHA-256 of what was sent.

        Where the upload is broken off by an exception, object stores may keep its first part under ``path``.
        """

        def action(system: Any, base: str) -> str:
            digest = hashlib.sha256()
            _put(system, f"{base}/{path}", _chunks(file, digest))
            return digest.hexdigest()

        return self._retried(f"writing {path}", action)

    def download(self, path: str, file: Path) -> str | None:
        """Write an object to a file, which is replaced; returns its SHA-256, None where there is no object."""

        def action(system: Any, base: str) -> str | None:
            digest = hashlib.sha256()
            try:
                with system.open_input_stream(f"{base}/{path}", compression=None) as stream:
                    with file.open("wb") as out:
                        while chunk := stream.read(CHUNK):
                            digest.update(chunk)
                            out.write(chunk)
            except FileNotFoundError:
                return None
            return digest.hexdigest()

        return self._retried(f"reading {path}", action)

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of every object below ``folder``, by its path there."""

        def action(system: Any, base: str) -> dict[str, int]:
            from pyarrow.fs import FileSelector

            found = system.get_file_info(FileSelector(f"{base}/{folder}", recursive=True, allow_not_found=True))
            start = len(f"{base}/{folder}/")
            return {info.path[start:]: info.size for info in found if info.is_file}

        return self._retried(f"listing {folder}", action)

    def make_bucket(self) -> None:
        """Create the bucket of the URI, where its query allows that."""
        self._retried("making the bucket", lambda system, base: system.create_dir(base.partition("/")[0]))

    def _retried(self, what: str, action: Callable[[Any, str], T]) -> T:
        started = time.monotonic()
        for delay in (*DELAYS_S, None):
            try:
                return action(*self._open())
            except OSError as error:
                refused = isinstance(error, PermissionError) or REFUSED.search(str(error)) is not None
                no_bucket = NO_BUCKET.search(str(error)) is not None
                took = time.monotonic() - started
                if isinstance(error, _FINAL) or refused or no_bucket or delay is None or took > PATIENCE_S:
                    reason = without_secrets(str(error), self.uri)
                    text = f"{masked_uri(self.uri)}: {what} failed after {took:.0f} s ({reason})"
                    raise ObjectStoreError(text, reason, no_bucket, refused) from None
                time.sleep(delay * (1 + secrets.randbelow(1000) / 1000))
        raise AssertionError("unreachable")

    def _open(self) -> tuple[Any, str]:
        with self._opening:
            if self._opened is None or self._opened[0] != os.getpid():
                from pyarrow import ArrowException
                from pyarrow.fs import FileSystem

                try:
                    system, base = FileSystem.from_uri(_patient(self.uri))
                except (ArrowException, ValueError) as error:
                    problem = without_secrets(str(error), self.uri)
                    expected = "s3://bucket/prefix, or gs://, abfs://, hdfs://, file:///folder"
                    raise InputError(f"--storage {masked_uri(self.uri)}", problem, expected) from None
                if not base and system.type_name != "local":
                    raise InputError(f"--storage {masked_uri(self.uri)}", "names no bucket", "s3://bucket/prefix")
                self._opened = os.getpid(), system, base.rstrip("/")
            return self._opened[1:]


def _patient(uri: str) -> str:
    """The URI as pyarrow takes it; its Google client would retry for a quarter of an hour."""
    scheme, _, _, query = split(uri)
    if scheme in ("gs", "gcs") and "retry_limit_seconds" not in query:
        return uri + ("&" if query else "?") + "retry_limit_seconds=20"
    return uri


def _chunks(file: Path, digest: Any) -> Iterable[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            yield chunk


def _put(system: Any, path: str, chunks: Iterable[bytes]) -> None:
    """Write an object: aside first where there are renames; an object store shows it when it is closed."""
    if system.type_name not in _WITH_RENAME:
        with system.open_output_stream(path, compression=None) as stream:
            for chunk in chunks:
                stream.write(chunk)
        return
    system.create_dir(path.rpartition("/")[0], recursive=True)
    aside = f"{path}.tmp-{secrets.token_hex(4)}"
    try:
        with system.open_output_stream(aside, compression=None) as stream:
            for chunk in chunks:
                stream.write(chunk)
        if system.type_name == "hdfs":  # its rename does not replace
            with contextlib.suppress(FileNotFoundError):
                system.delete_file(path)
        system.move(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            system.delete_file(aside)
        raise
