"""The files of a board's folder: its commands, the configuration of both ends of ssh, and the host's adb."""

import os
import pwd
import subprocess
from pathlib import Path

from tests.devices import parts, serving

NATIVE = """
[ awk basename bash cat chmod cksum cmp cp cut date dd df dirname du echo env expr false find flock free getconf grep
gzip head hostname id kill ln ls md5sum mkdir mktemp mv nice nohup nproc ps pwd readlink renice rm rmdir sed seq setsid
sh sha256sum sleep sort stat sync tail tar taskset tee test timeout touch tr true uniq uptime wc which xargs
"""
"""Commands of this machine that the board has."""


def commands(folder: Path, place: Path) -> None:
    """The board's PATH, and what sshd and adbd run for a command."""
    for name in NATIVE.split():
        link = folder / "bin" / name
        link.unlink(missing_ok=True)
        link.symlink_to(Path("/usr/bin") / name)
    emulated = (
        f'exec "{place}/qemu/usr/bin/qemu-aarch64" -cpu cortex-a76 -0 "$0" -L "{place}/root" "{place}/root%s" "$@"'
    )
    script(folder / "bin/uname", emulated % "/bin/uname")
    script(folder / "python/python3", emulated % "/usr/bin/python3.11")
    benchmark = f'"{parts.ROOT}/tests/devices/benchmark_model.py"'
    script(folder / "benchmark_model", (emulated % "/usr/bin/python3.11").replace('"$@"', f'{benchmark} "$@"'))
    script(
        folder / "login",
        f"""board="{folder}"
while [ -e "$board/faults/hang" ]; do sleep 0.05; done
path="$board/bin:$board/python"
if [ -e "$board/faults/no-python" ]; then path="$board/bin"; fi
cd "$board/home"
set -- "$(id -un)" "$SSH_ORIGINAL_COMMAND"
exec env -i HOME="$board/home" USER="$1" LOGNAME="$1" SHELL=/bin/sh LANG=C.UTF-8 PATH="$path" \\
    QUANTIZATION_GRID_SYSROOT="$board/sysroot" /bin/sh ${{2:+-c "$2"}}""",
    )


def adb(folder: Path, place: Path, port: int, server_port: int) -> None:
    """The host's adb, with a server and keys of its own."""
    libraries = ":".join(sorted({str(file.parent) for file in (place / "adb").rglob("lib*.so*")}))
    script(
        folder / "adb",
        f"""export LD_LIBRARY_PATH="{libraries}" ANDROID_ADB_SERVER_PORT={server_port} HOME="{folder}"
adb="{place}/adb/usr/lib/android-sdk/platform-tools/adb"
serial=127.0.0.1:{port} tab="$(printf '\\t')"
connected() {{ case "$("$adb" devices 2>/dev/null)" in *"$serial$tab"$1*) ;; *) false ;; esac }}
found() {{ connected device || connected unauthorized; }}
case "$1" in kill-server | disconnect) exec "$adb" "$@" ;; esac
# A phone on a cable is connected again by the kernel.
if ! found; then
    timeout 1 "$adb" disconnect $serial >/dev/null 2>&1
    timeout 1 "$adb" connect $serial >/dev/null 2>&1
    for _ in 1 2 3 4 5 6 7 8 9 10; do found && break; sleep 0.1; done
fi
exec "$adb" "$@\"""",
    )


def ssh(folder: Path, port: int) -> None:
    """Keys and configuration of both ends.

    sshd starts the command by the user's own shell; SHLVL keeps bash, and ZDOTDIR zsh, from reading the user's files.
    """
    for name in ("host_key", "other_host_key", "client_key"):
        if not (folder / name).exists():
            parts.ran(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)])
    key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}")
    (folder / "authorized_keys").write_text((folder / "client_key.pub").read_text())
    (folder / "ssh_config").write_text(f"""Host board
  HostName 127.0.0.1
  Port {port}
Host board 127.0.0.1
  User {pwd.getpwuid(os.getuid()).pw_name}
  IdentityFile "{folder}/client_key"
  IdentitiesOnly yes
  UserKnownHostsFile "{folder}/known_hosts"
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
""")
    (folder / "sshd_config").write_text(f"""ListenAddress 127.0.0.1
Port {port}
AuthorizedKeysFile "{folder}/authorized_keys"
AuthenticationMethods publickey
PermitRootLogin prohibit-password
PermitUserEnvironment no
UsePAM no
StrictModes no
PidFile none
MaxStartups 100
ForceCommand "{folder}/login"
SetEnv SHLVL=1 ZDOTDIR={folder}
Subsystem sftp /usr/lib/openssh/sftp-server
""")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd's empty folder, which its service makes


def script(file: Path, text: str) -> None:
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


def namespace(folder: Path) -> list[str]:
    """The command under which the home is a small file system of its own; nothing where this machine forbids that.

    sshd must not run as a user namespace's root: it would try to become another user.
    """
    user, group = os.getuid(), os.getgid()
    mount = f'mount -t tmpfs -o size={serving.DISK_BYTES},mode=700 board "$0/home" && exec "$@"'
    for unshare, back in (
        (["unshare", "--mount"], ""),
        (["unshare", "--mount", "--map-root-user"], f"unshare --user --map-user={user} --map-group={group}"),
    ):
        command = [*unshare, "sh", "-c", mount, str(folder)]
        if subprocess.run([*command, *back.split(), "true"], capture_output=True, check=False).returncode == 0:
            (folder / "as_user").write_text(back)
            return command
    (folder / "as_user").write_text("")
    return []
