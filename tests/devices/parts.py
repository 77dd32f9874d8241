"""What the emulated board is made of, from Debian's and Python's package registries, kept between sessions.

Nothing of the machine is changed: apt works in a folder of its own, checks the archive's signatures as always, and its
packages are unpacked, not installed.  Only sshd must be there; where it is not, root installs it.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

MIRROR = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Python 3.11 is bookworm's; bookworm's own qemu 7.2 crashes ONNX Runtime and LiteRT.
BOARD = ("bookworm", "arm64", ("python3.11", "libstdc++6", "coreutils"))
EMULATOR = ("trixie", "", ("qemu-user",))
ADB = (
    "bookworm",
    "",
    ("adb", "android-libbase", "android-libboringssl", "android-libcutils", "android-liblog", "libusb-1.0-0"),
)
WHEELS = {"numpy": "2.4.6", "onnxruntime": "1.32.0", "ai-edge-litert": "2.3.0"}
"""Versions where no requirements file names one."""
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
SSHD = Path("/usr/sbin/sshd")

Say = Callable[[str], None]


class Unavailable(Exception):
    """The board cannot be set up on this machine, and why."""


def folder() -> Path:
    """Where the parts are kept: QUANTIZATION_GRID_BOARD, or a cache folder of the user's."""
    return Path(os.environ.get("QUANTIZATION_GRID_BOARD") or Path.home() / ".cache" / "quantization-grid-board")


def parts(say: Say) -> Path:
    """A folder with `root` (Debian arm64 with Python and the runtimes), `qemu` and `adb`; downloads about 125 MB once.

    Raises `Unavailable`.
    """
    recipe = repr((BOARD, EMULATOR, ADB, pins(), PLATFORMS))
    place = folder() / hashlib.sha256(recipe.encode()).hexdigest()[:12]
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sshd(say)
        if not place.exists():
            begun = place.with_suffix(".part")
            shutil.rmtree(begun, ignore_errors=True)
            for name, wanted in (("root", BOARD), ("qemu", EMULATOR), ("adb", ADB)):
                say(f"{name}: {', '.join(wanted[2])} of Debian {wanted[0]}")
                unpack(*wanted, begun / "apt" / name, begun / name)
            for emulator in (begun / "qemu/usr/bin").glob("[!.]*"):
                if emulator.name != "qemu-aarch64":
                    emulator.unlink()  # those of all other processors: 400 MB
            say(f"root: wheels {', '.join(pins())}")
            wheels(begun / "root/usr/local/lib/python3.11/dist-packages")
            shutil.rmtree(begun / "apt")
            begun.rename(place)
    return place


def sshd(say: Say) -> None:
    """Install OpenSSH's server where it is missing."""
    if SSHD.exists():
        return
    if os.geteuid() != 0:
        raise Unavailable(f"{SSHD} is missing; apt-get install openssh-server")
    say("sshd: openssh-server")
    environment = {**os.environ, "RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"}  # installed, not started
    ran(["apt-get", "-qq", "-y", "--no-install-recommends", "install", "openssh-server"], environment)


def unpack(suite: str, architecture: str, packages: Sequence[str], apt: Path, root: Path) -> None:
    """Fetch Debian packages and unpack them into `root`; those for the board with all that they depend on."""
    if not (KEYRING.exists() and shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Unavailable(f"apt-get, dpkg-deb and {KEYRING} are needed; apt-get install debian-archive-keyring")
    whole = bool(architecture)
    architecture = architecture or ran(["dpkg", "--print-architecture"]).strip()
    for name in ("state/lists/partial", "cache/archives/partial", "packages"):
        (apt / name).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(f"deb [signed-by={KEYRING}] {MIRROR} {suite} main\n")
    settings = {
        "Dir::Etc::SourceList": apt / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State": apt / "state",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Debug::NoLocking": "true",
    }
    command = ["apt-get", "-qq", *(part for name, value in settings.items() for part in ("-o", f"{name}={value}"))]
    ran([*command, "--error-on=any", "update"])
    if whole:
        ran([*command, "-y", "--no-install-recommends", "--download-only", "install", *packages])
    else:
        ran([*command, "download", *packages], cwd=apt / "packages")
    found = [*(apt / "cache/archives").glob("*.deb"), *(apt / "packages").glob("*.deb")]
    for package in sorted(found):
        ran(["dpkg-deb", "--extract", str(package), str(root)])


def wheels(site: Path) -> None:
    """Install the runtimes' aarch64 wheels, and what they depend on, into `site`."""
    platforms = [part for name in PLATFORMS for part in ("--platform", name)]
    python = ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--only-binary=:all:"]
    wanted = [f"{name}=={version}" for name, version in pins().items()]
    ran([sys.executable, "-m", "pip", "install", "--target", str(site), *platforms, *python, *wanted])


def pins() -> dict[str, str]:
    """The runtimes on the board: the versions of this host, so that outputs can be compared."""
    text = "\n".join(file.read_text() for file in sorted(ROOT.glob("requirements*.txt")))
    named = dict(re.findall(r"^([\w-]+)==(\S+)$", text, re.MULTILINE))
    return {name: named.get(name, version) for name, version in WHEELS.items()}


def ran(command: Sequence[str], environment: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{command[0]} ... {command[-1]}: {done.stderr.strip()[-400:]}")
    return done.stdout
