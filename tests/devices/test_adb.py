"""The emulated board is a phone, for Debian's adb."""

import os
import subprocess

import pytest

from tests.devices.board import until

pytestmark = pytest.mark.long


def test_shell_tells_output_errors_and_status_apart(board):
    assert board.run_adb("get-state").stdout == b"device\n"
    ran = board.run_adb("shell", "-T", "uname -m; echo err >&2;", "exit", "3")
    assert (ran.stdout, ran.stderr, ran.returncode) == (b"aarch64\n", b"err\n", 3)
    assert board.run_adb("shell", "-T", "cat", stdin=bytes(range(256))).stdout == bytes(range(256))


def test_arguments_are_interpreted_by_the_devices_shell(board):
    assert board.run_adb("shell", "-T", "echo", "a  b;", "echo $((1 + 1))").stdout == b"a b\n2\n"


def test_exec_out_and_exec_in_carry_bytes_and_no_status(board):
    data = os.urandom(300_000)
    assert board.run_adb("exec-in", "cat > /data/local/tmp/bytes", stdin=data).returncode == 0
    # adb does not wait until the device has written it all.
    until(lambda: board.run_adb("exec-out", "cat /data/local/tmp/bytes").stdout == data)
    failed = board.run_adb("exec-out", "echo out; echo err >&2; exit 3")
    assert (failed.stdout, failed.returncode) == (b"out\nerr\n", 0)


def test_push_and_pull_carry_bytes(board, tmp_path):
    data = os.urandom(3_000_000)
    (tmp_path / "sent").write_bytes(data)
    pushed = board.run_adb("push", str(tmp_path / "sent"), "/data/local/tmp/new/file")
    assert (pushed.returncode, b"1 file pushed, 0 skipped." in pushed.stdout) == (0, True)
    assert (board.home / "new/file").read_bytes() == data
    pulled = board.run_adb("pull", "/data/local/tmp/new/file", str(tmp_path / "back"))
    assert (pulled.returncode, b"1 file pulled, 0 skipped." in pulled.stdout) == (0, True)
    assert (tmp_path / "back").read_bytes() == data
    missing = board.run_adb("pull", "/data/local/tmp/nothing", str(tmp_path / "nothing"))
    assert (missing.returncode, b"does not exist" in missing.stdout + missing.stderr) == (1, True)


def test_a_push_to_a_full_disk_fails(board, tmp_path):
    if not board.has_small_disk:
        pytest.skip("no mount namespace on this machine")
    (tmp_path / "sent").write_bytes(bytes(2_000_000))
    with board.fault("disk-full", "100000"):
        full = board.run_adb("push", str(tmp_path / "sent"), "/data/local/tmp/full")
    assert (full.returncode, b"No space left on device" in full.stdout + full.stderr) == (1, True)
    assert not (board.home / "full").exists(), "adbd removes what it could not write"


@pytest.mark.parametrize(
    ("fault", "words"),
    [("unauthorized", b"device unauthorized"), ("offline", b"device offline"), ("refuse", b"' not found")],
)
def test_adb_says_why_there_is_no_device(board, fault, words):
    with board.fault(fault):
        for arguments in (("get-state",), ("shell", "-T", "true")):
            failed = board.run_adb(*arguments)
            assert (failed.returncode, failed.stderr.startswith(b"error: "), words in failed.stderr) == (1, True, True)
    assert board.run_adb("get-state").stdout == b"device\n"


def test_a_command_that_hangs_and_a_cable_that_is_pulled(board):
    with board.fault("hang"), pytest.raises(subprocess.TimeoutExpired):
        board.run_adb("shell", "-T", "true", timeout_s=2)
    line = [str(board.adb), "-s", board.serial, "shell", "-T", "echo begun; sleep 30"]
    with subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as running:
        assert running.stdout.readline() == b"begun\n"
        with board.fault("refuse"):
            # The shell of adb 29 gives no failure: whoever runs a command over adb needs a sign of its end.
            assert running.wait(10) == 0
