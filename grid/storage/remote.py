"""A storage that is a URI: what machines without a common folder share, each with a local folder as its copy."""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from grid.storage.locks import locked
from grid.storage.manifest import are_files, inside, is_sha256, parsed_json
from grid.storage.object_store import Objects, ObjectStoreError
from grid.storage.uri import is_uri, local_root, masked_uri
from model.errors import InputError
from model.files import file_sha256, replacing

RESULT = "result.json"
_MARK, _MARK_TEXT = "quantization-grid.json", b'{"storage": 1}\n'
_FOLDER_FILES = ".files.json"
_TRIES = 3


class Remote:
    """A storage behind a URI, and ``root``, this machine's copy of it.

    No renames and no locks are asked of it, only that an object is written whole. So files go to a place named by
    their SHA-256, where writers cannot mix, and what names them, a stage's ``result.json``, goes last: a stage is
    there when its record is. Travels to another process or machine as its URI (and ``root``, if that was given).
    """

    def __init__(self, uri: str, root: Path | None = None) -> None:
        self.uri, self._given = uri, root
        self.objects = Objects(uri)

    def __reduce__(self) -> tuple[Any, ...]:
        return Remote, (self.uri, self._given)

    def __str__(self) -> str:
        return masked_uri(self.uri)

    @property
    def root(self) -> Path:
        """The local folder, on whichever machine this is."""
        return Path(self._given).absolute() if self._given is not None else local_root(self.uri)

    def check(self) -> None:
        """Write and read one object; raises InputError where the URI cannot be used."""
        where = f"--storage {self}"
        try:
            try:
                self.objects.write(_MARK, _MARK_TEXT)
            except ObjectStoreError as error:
                if not error.no_bucket or "allow_bucket_creation=true" not in self.uri:
                    raise
                self.objects.make_bucket()
                self.objects.write(_MARK, _MARK_TEXT)
            found = self.objects.read(_MARK)
        except ObjectStoreError as error:
            if error.no_bucket:
                hint = "Make it, or add ?allow_bucket_creation=true (s3)."
                raise InputError(where, f"its bucket does not exist ({error.reason})", "a bucket", hint) from None
            if error.refused:
                hint = "For s3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials, on every machine."
                expected = "credentials that may list, read and write"
                raise InputError(where, f"may not be written to ({error.reason})", expected, hint) from None
            raise InputError(where, f"cannot be used ({error.reason})", "a storage that answers") from None
        if found != _MARK_TEXT:
            raise InputError(where, "does not give back what was written to it", "a storage of one's own")

    # ---- stages

    def stages(self) -> dict[str, dict[str, int]]:
        """All objects of all stages: bytes by path, by stage id; one listing."""
        found: dict[str, dict[str, int]] = {}
        for path, size in self.objects.sizes("stages").items():
            node_id, _, name = path.partition("/")
            found.setdefault(node_id, {})[name] = size
        return found

    def holds(self, folder: Path, listed: dict[str, int]) -> bool:
        """Whether the objects of a stage (``stages``) can be those of the local result in ``folder``, by size."""
        data = (folder / RESULT).read_bytes()
        record = _record(data, folder.name)
        expected = {RESULT: len(data), **_objects(folder, record)} if record else {}
        return record is not None and all(listed.get(name) == size for name, size in expected.items())

    def push_stage(self, node_id: str, folder: Path) -> bool:
        """Make the result in ``folder`` the one of the URI; False where another's is there, which stays.

        Raises OSError where the storage fails for longer than its retries.
        """
        data = (folder / RESULT).read_bytes()
        record = _record(data, node_id)
        if record is None:
            raise ValueError(f"{node_id}: {folder} is not a whole result")
        if (there := self._there(node_id, folder, record)) is None:
            for name, sha256 in record["files"].items():
                if self.objects.upload(folder / name, f"stages/{node_id}/{sha256}/{name}") != sha256:
                    raise OSError(f"{folder / name} changed while it was uploaded")
            there = self._there(node_id, folder, record)  # another machine may have been quicker meanwhile
        if there is None:
            self.objects.write(f"stages/{node_id}/{RESULT}", data)
        return there in (None, data)

    def pull_stage(self, node_id: str, into: Path) -> bool:
        """Fill the empty folder ``into`` with a result, checked; False where there is none, or a broken one.

        A broken one gets an empty record, so that it is missing for everybody until it is pushed again.
        """
        for _ in range(_TRIES):
            data = self.objects.read(f"stages/{node_id}/{RESULT}")
            record = _record(data, node_id)
            if data is None or record is None:
                return False
            if all(self._pulled(node_id, into, name, sha256) for name, sha256 in record["files"].items()):
                (into / RESULT).write_bytes(data)
                return True
            if self.objects.read(f"stages/{node_id}/{RESULT}") == data:
                self.objects.write(f"stages/{node_id}/{RESULT}", b"")
                return False
        return False

    def _pulled(self, node_id: str, into: Path, name: str, sha256: str) -> bool:
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        return self.objects.download(f"stages/{node_id}/{sha256}/{name}", into / name) == sha256

    def _there(self, node_id: str, folder: Path, own: dict[str, Any]) -> bytes | None:
        """The record of a stage that is there with all its files; sizes are compared where we have the file."""
        data = self.objects.read(f"stages/{node_id}/{RESULT}")
        record = _record(data, node_id)
        if record is None:
            return None
        sizes, known = self.objects.sizes(f"stages/{node_id}"), _objects(folder, own)
        names = [f"{sha256}/{name}" for name, sha256 in record["files"].items()]
        return data if all(name in sizes and sizes[name] == known.get(name, sizes[name]) for name in names) else None

    # ---- files that every machine needs: packs, networks, checkpoints

    def push_file(self, relative: str) -> None:
        """Upload a file of the local folder, unless the same is there."""
        file = inside(self.root, relative)
        with locked(self._lock_path(relative, "lock")):
            mark = {"bytes": file.stat().st_size, "sha256": self._sha256(file, relative)}
            if parsed_json(self.objects.read(f"{relative}.json")) == mark:
                return
            if self.objects.upload(file, f"{relative}.{mark['sha256']}") != mark["sha256"]:
                raise OSError(f"{file} changed while it was uploaded")
            self.objects.write(f"{relative}.json", json.dumps(mark).encode())

    def pull_file(self, relative: str) -> Path:
        """Download a file into the local folder, unless the same is there; several processes download it once.

        Returns its path; raises FileNotFoundError where the URI has none, OSError where what it has is broken.
        """
        file = inside(self.root, relative)
        with locked(self._lock_path(relative, "lock")):
            mark = parsed_json(self.objects.read(f"{relative}.json"))
            if not (isinstance(mark, dict) and is_sha256(mark.get("sha256"))):
                raise FileNotFoundError(f"{self}: {relative} is not there")
            if not (file.is_file() and self._sha256(file, relative) == mark["sha256"]):
                self._download(f"{relative}.{mark['sha256']}", file, mark["sha256"])
        return file

    def pull_files(self, folder: str) -> None:
        """Download all files below ``folder`` that the local one lacks."""
        for name in self.objects.sizes(folder):
            if name.endswith(".json"):
                self.pull_file(f"{folder}/{name.removesuffix('.json')}")

    def _download(self, path: str, file: Path, sha256: str) -> None:
        with replacing(file) as aside:
            found = self.objects.download(path, aside)
            if found != sha256:
                raise OSError(f"{self}: {path} is {'broken' if found else 'missing'}")

    def _sha256(self, file: Path, relative: str) -> str:
        """Of a large file, remembered while its size and time stay."""
        known, stat = self._lock_path(relative, "json"), file.stat()
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(known.read_bytes())
            if found["stamp"] == stamp and is_sha256(found["sha256"]):
                return str(found["sha256"])
        sha256 = file_sha256(file)
        known.write_text(json.dumps({"stamp": stamp, "sha256": sha256}))
        return sha256

    def _lock_path(self, relative: str, suffix: str) -> Path:
        folder = self.root / "locks" / "files"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{hashlib.sha256(relative.encode()).hexdigest()[:20]}.{suffix}"

    # ---- folders of runs

    def push_folder(self, name: str) -> None:
        """Upload what changed in a folder of the local one, under its own names; hidden files are left out."""
        folder, files = inside(self.root, name), {}
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            relative = file.relative_to(folder)
            if not any(part.startswith(".") for part in relative.parts):
                files[relative.as_posix()] = file_sha256(file)
        known = _files(self.objects.read(f"{name}/{_FOLDER_FILES}")) or {}
        for relative_name, sha256 in files.items():
            if known.get(relative_name) != sha256:
                files[relative_name] = self.objects.upload(folder / relative_name, f"{name}/{relative_name}")
        if files != known:
            self.objects.write(f"{name}/{_FOLDER_FILES}", json.dumps(files, indent=1).encode())

    def pull_folder(self, name: str) -> bool:
        """Download what differs in a folder that was pushed; False where there is none.

        Raises OSError where its files are not those that it lists, as while another machine writes them.
        """
        folder = inside(self.root, name)
        files = _files(self.objects.read(f"{name}/{_FOLDER_FILES}"))
        for relative, sha256 in (files or {}).items():
            file = inside(folder, relative)
            if not (file.is_file() and file_sha256(file) == sha256):
                self._download(f"{name}/{relative}", file, sha256)
        return files is not None


def open_storage(storage: str) -> tuple[Path, Remote | None]:
    """The folder of a storage on this machine and, if the storage is a URI, what it is a copy of.

    Raises InputError where the URI cannot be used.
    """
    remote = Remote(storage) if is_uri(storage) else None
    if remote is not None:
        remote.check()
    return local_root(storage), remote


def _record(data: bytes | None, node_id: str) -> dict[str, Any] | None:
    """A stage's record, if it is whole and names only files inside of it."""
    record = parsed_json(data)
    if not isinstance(record, dict) or record.get("id") != node_id:
        return None
    files = record.get("files")
    return record if isinstance(files, dict) and are_files(files) else None


def _objects(folder: Path, record: dict[str, Any]) -> dict[str, int]:
    """Bytes of the objects of a local result, by path below its stage."""
    return {f"{sha256}/{name}": (folder / name).stat().st_size for name, sha256 in record["files"].items()}


def _files(data: bytes | None) -> dict[str, str] | None:
    files = parsed_json(data)
    return files if isinstance(files, dict) and are_files(files) else None
