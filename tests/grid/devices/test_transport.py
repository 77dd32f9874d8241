"""What becomes of a command on a device, and what is said where it fails: with ssh and adb that are made up."""

import stat
import time

import pytest

from grid.devices.address import PROCESS, Device, read_devices
from grid.devices.transport import DeviceError, DeviceLost, Transport


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Put a shell script in the place of ssh and adb."""

    def put(script):
        for name in ("ssh", "adb"):
            path = tmp_path / name
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return put


def wire(address="ssh://pi@host:2222"):
    return Transport(read_devices([address])[0])


def test_ssh_is_the_systems_own_with_checked_host_keys_and_the_host_behind_the_options(tool):
    tool('echo "$@"')
    said = wire().run("uname").decode()
    assert "StrictHostKeyChecking=yes" in said
    assert "BatchMode=yes" in said
    assert said.endswith("-p 2222 -- pi@host uname\n")


RUNS_LAST = 'for last; do :; done; sh -c "$last"'
"""A script that runs what it is told on this machine."""


def test_a_phone_runs_the_command_and_gives_its_output_byte_for_byte(tool):
    tool(f'[ "$1 $2 $3 $4" = "-s R58M123 shell -T" ] || exit 9\n{RUNS_LAST}')
    phone = wire("adb:R58M123")
    assert phone.run("printf 'a\\nb'") == b"a\nb"
    assert phone.run("printf 'a\\n\\n'") == b"a\n\n"
    assert phone.run("true") == b""
    with pytest.raises(DeviceError, match="ended with status 7"):
        phone.run("exit 7")


def test_a_phone_that_goes_in_the_middle_is_lost_though_adb_says_all_is_well(tool):
    tool("echo half")
    with pytest.raises(DeviceLost, match="adb lost it in the middle"):
        wire("adb:R58M123").run("cat large")


@pytest.mark.parametrize(
    ("complaint", "kind", "message"),
    [
        ("ssh: connect to host host port 2222: Connection refused", DeviceLost, "ssh does not reach it"),
        ("Host key verification failed.", DeviceError, "ssh does not know its host key. Log in once by hand"),
        (
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
            DeviceError,
            "its host key is not the one that ssh knows; nothing was sent",
        ),
        ("pi@host: Permission denied (publickey).", DeviceError, "ssh is not let in"),
    ],
)
def test_what_ssh_complains_about_becomes_one_line(tool, complaint, kind, message):
    tool(f"printf '%s\\n' '{complaint}' >&2; exit 255")
    with pytest.raises(kind) as caught:
        wire().run("true")
    assert message in str(caught.value)
    assert str(caught.value).startswith("host: ")
    assert "\n" not in str(caught.value)


UNAUTHORIZED = """error: device unauthorized.
This adb server's \\$ADB_VENDOR_KEYS is not set
Otherwise check for a confirmation dialog on your device."""


@pytest.mark.parametrize(
    ("complaint", "message"),
    [
        ("error: device 'R58M123' not found", "(error: device 'R58M123' not found). `adb devices` lists those there."),
        ("error: device offline", "(error: device offline). `adb devices` lists those there."),
        (UNAUTHORIZED, "(error: device unauthorized). Allow this computer on its screen."),
    ],
)
def test_a_phone_that_adb_does_not_reach_is_lost(tool, complaint, message):
    tool(f'echo "{complaint}" >&2; exit 1')
    with pytest.raises(DeviceLost) as caught:
        wire("adb:R58M123").run("true")
    assert str(caught.value) == f"R58M123: adb does not reach it {message}"


def test_a_full_disk_is_told_with_the_folder_to_remove(tool):
    tool("echo 'cat: write error: No space left on device' >&2; exit 1")
    with pytest.raises(DeviceError, match=r"its disk is full .* remove \.cache/quantization-grid there"):
        wire().run("true")


def test_a_device_that_says_nothing_is_given_up_and_its_process_ended(tool):
    tool("sleep 60")
    started = time.monotonic()
    with pytest.raises(DeviceLost, match=r"said nothing for 0\.3 s"):
        wire().run("true", timeout_s=0.3)
    assert time.monotonic() - started < 10


def test_a_machine_without_the_tool_says_which_package_has_it(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DeviceError, match="no adb on this machine; apt-get install adb"):
        wire("adb:R58M123")


def test_a_file_arrives_whole_under_any_name(tmp_path):
    there = Transport(Device("host", PROCESS, "", folder=str(tmp_path / "it's here")))
    (tmp_path / "file").write_bytes(bytes(range(256)) * 500)
    there.put(tmp_path / "file", "a b;c")
    assert there.get("a b;c") == (tmp_path / "file").read_bytes()
    assert not list((tmp_path / "it's here").glob("*.part"))
