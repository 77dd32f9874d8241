"""Which devices there are: addresses of the command line, and files that list them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import yaml

from grid.space.settings import LOCAL
from model.errors import InputError

SSH, ADB, PROCESS = "ssh", "adb", "process"
"""How a device is reached; ``process``: as a process of this machine."""
FOLDERS = {SSH: ".cache/quantization-grid", ADB: "/data/local/tmp/quantization-grid"}
"""Where files go there; over ssh below the home folder."""
_EXAMPLES = "ssh://user@host[:port][?cores=4-7], adb:SERIAL[?cores=4-7], or a .yaml file that lists devices"
_OPTIONS = ("cores", "python", "benchmark", "folder", "cool_below_c")
_NAME, _HOST, _USER = r"[A-Za-z0-9][\w.-]{0,59}", r"[A-Za-z0-9][A-Za-z0-9._-]*|[0-9a-fA-F:]+", r"[A-Za-z_][\w.-]*"
_SERIAL = r"[A-Za-z0-9][A-Za-z0-9._:-]*"


@dataclass(frozen=True)
class Device:
    """How a device is reached and used.

    ``host`` is ``[user@]host`` or a serial number. ``cores`` are those that networks run on; none are given: the
    fastest cluster. ``python`` is the interpreter there, or ``benchmark`` LiteRT's ``benchmark_model`` where there is
    none; ``folder`` is where files go, and measurements begin below ``cool_below_c`` degrees Celsius.
    """

    name: str
    kind: str
    host: str
    port: int | None = None
    cores: tuple[int, ...] = ()
    python: str = "python3"
    benchmark: str = ""
    folder: str = ""
    cool_below_c: float = 60.0

    @property
    def label(self) -> str:
        """What settings and rows call it: the name, and the cores where they are given."""
        return f"{self.name}-cores{written(self.cores)}" if self.cores else self.name


def read_devices(texts: Iterable[str]) -> tuple[Device, ...]:
    """The devices of ``--device`` but for ``local``; raises one InputError that shows everything wrong."""
    found: list[Device] = []
    errors: list[InputError] = []
    for text in texts:
        try:
            if text.endswith((".yaml", ".yml")):
                found += _of_file(Path(text))
            elif text != LOCAL:
                found.append(_read("--device", text))
        except InputError as error:
            errors.append(error)
    labels = [device.label for device in found]
    for label in dict.fromkeys(labels):
        if labels.count(label) > 1:
            hint = f"Name them: --device NAME={found[labels.index(label)].kind}:..."
            errors.append(InputError("--device", f"{labels.count(label)} devices are called {label}", hint=hint))
    if errors:
        raise InputError.all(errors)
    return tuple(found)


def labels(texts: Iterable[str], devices: Iterable[Device]) -> tuple[str, ...]:
    """The values of the setting ``device`` that the command line asks for, in its order as far as it has one."""
    local = (LOCAL,) if LOCAL in texts else ()
    return (*local, *(device.label for device in devices))


def _of_file(path: Path) -> list[Device]:
    """``NAME: ADDRESS``, or ``NAME: {address: ..., cores: 4-7, python: ...}``, a device each."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"--device {path}", f"cannot be read ({error})", "a YAML file of devices") from error
    if not isinstance(document, dict) or not document:
        raise InputError(f"--device {path}", "lists no device", "NAME: ADDRESS, a device a line")
    return [_of_entry(f"{path}: {name}", str(name), entry) for name, entry in document.items()]


def _of_entry(where: str, name: str, entry: Any) -> Device:
    options: Mapping[str, Any] = entry if isinstance(entry, dict) else {"address": entry}
    address = options.get("address")
    if not isinstance(address, str):
        raise InputError(where, "has no address", _EXAMPLES)
    others = {str(key): str(value) for key, value in options.items() if key != "address"}
    return _with_options(where, _read(where, f"{name}={address}"), others)


def _read(where: str, text: str) -> Device:
    """``[NAME=]ssh://...`` or ``[NAME=]adb:SERIAL``."""
    match = re.fullmatch(rf"(?:({_NAME})=)?((?:ssh|adb):.*)", text, re.DOTALL)
    if match is None:
        raise InputError(where, "is not the address of a device", _EXAMPLES, value=repr(text))
    name, address = match.groups()
    device = _ssh(where, address) if address.startswith("ssh:") else _adb(where, address)
    return replace(device, name=name or device.name)


def _ssh(where: str, address: str) -> Device:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise InputError(where, f"is no address ({error})", _EXAMPLES, value=repr(address)) from None
    user = unquote(parts.username) if parts.username else ""
    if parts.password is not None:
        raise InputError(where, "holds a password", "a key that ssh knows", "`ssh-copy-id` puts one there.")
    if not re.fullmatch(_HOST, host) or (user and not re.fullmatch(_USER, user)) or parts.path not in ("", "/"):
        raise InputError(where, "is no address", _EXAMPLES, value=repr(address))
    given = f"{user}@{host}" if user else host
    name = re.sub(r"[^\w.-]", "_", host)
    return _with_options(where, Device(name, SSH, given, port, folder=FOLDERS[SSH]), dict(_query(where, parts.query)))


def _adb(where: str, address: str) -> Device:
    serial, _, query = address.removeprefix("adb:").partition("?")
    if not re.fullmatch(_SERIAL, serial):
        raise InputError(where, "is no serial number", "adb:SERIAL, as `adb devices` lists it", value=repr(address))
    device = Device(re.sub(r"[^\w.-]", "_", serial), ADB, serial, folder=FOLDERS[ADB])
    return _with_options(where, device, dict(_query(where, query)))


def _query(where: str, text: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text, strict_parsing=True) if text else []
    except ValueError:
        raise InputError(where, "cannot be read behind '?'", "such as ?cores=4-7", value=repr(text)) from None


def _with_options(where: str, device: Device, options: Mapping[str, str]) -> Device:
    for key, text in options.items():
        if key == "cores":
            device = replace(device, cores=_cores(where, text))
        elif key in ("python", "benchmark", "folder"):
            if not text or "\n" in text or text.startswith("-"):
                raise InputError(f"{where}: {key}", "is no path", "a path on the device", value=repr(text))
            device = replace(device, **{key: text})  # type: ignore[arg-type]  # text both
        elif key == "cool_below_c":
            if not re.fullmatch(r"\d{1,3}(\.\d+)?", text):
                raise InputError(f"{where}: {key}", "is no temperature", "degrees Celsius", value=repr(text))
            device = replace(device, cool_below_c=float(text))
        else:
            raise InputError(f"{where}: {key}", "is unknown", options=_OPTIONS)
    return device


def _cores(where: str, text: str) -> tuple[int, ...]:
    """``4-7`` or ``0,2-3``."""
    if not re.fullmatch(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*", text):
        raise InputError(f"{where}: cores", "are no cores", "such as 4-7 or 0,2", value=repr(text))
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    if not found or len(found) > 1024:
        raise InputError(f"{where}: cores", "are no cores", "such as 4-7 or 0,2", value=repr(text))
    return tuple(sorted(found))


def written(cores: tuple[int, ...]) -> str:
    """``4-7``, or the cores one by one (``0.2``) where there are gaps."""
    if cores == tuple(range(cores[0], cores[-1] + 1)) and len(cores) > 1:
        return f"{cores[0]}-{cores[-1]}"
    return ".".join(map(str, cores))
