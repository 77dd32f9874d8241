"""Whatever kills or races the writer of a stage, its result is in the store whole or not at all."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from grid.storage.result_store import StageStore, write_record
from tests.grid.storage.made_up_results import RECORD, leftovers, put

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def store(tmp_path) -> StageStore:
    return StageStore(tmp_path)


def python(code: str, *arguments: object) -> subprocess.Popen:
    """Another process with this store's code, and RECORD as the test has it."""
    preamble = "import os, signal, sys, time; from pathlib import Path\n"
    preamble += f"from grid.storage.result_store import StageStore, write_record; RECORD = {RECORD!r}\n"
    preamble += "store = StageStore(Path(sys.argv[1]))\n"
    return subprocess.Popen([sys.executable, "-c", preamble + code, *map(str, arguments)], cwd=ROOT)


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline, f"{file} never came"
        time.sleep(0.01)


KILLED = {
    "while it fills its folder": "os.kill(os.getpid(), signal.SIGKILL)",
    "while files are forced to disk": "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)",
    "just before the rename": "Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("moment", KILLED)
def test_a_writer_that_is_killed_leaves_no_result_and_the_next_one_succeeds(store, moment):
    code = f"""
with store.writer("ab12") as folder:
    (folder / "network.pt").write_bytes(b"x" * 100_000)
    (store.scratch("ab12") / "epoch.pt").write_bytes(b"1")
    write_record(folder, RECORD)
    {KILLED[moment]}
"""
    assert python(code, store.root).wait(60) == -signal.SIGKILL
    assert len(leftovers(store)) == 1  # it did get that far
    assert not store.has("ab12")
    assert not store.verify("ab12")
    assert (store.scratch("ab12") / "epoch.pt").exists()
    put(store, "ab12")
    assert store.verify("ab12")


def test_two_processes_that_finish_the_same_stage_both_succeed_and_one_result_stays(store):
    code = """
with store.writer("ab12") as folder:
    (folder / "network.pt").write_text(sys.argv[2])
    write_record(folder, RECORD)
    (store.root / f"ready-{sys.argv[2]}").touch()
    while not (store.root / "go").exists():
        time.sleep(0.001)
assert store.has("ab12")
"""
    racers = [python(code, store.root, name) for name in "ab"]
    for name in "ab":
        wait_for(store.root / f"ready-{name}")
    assert len(leftovers(store)) == 2
    (store.root / "go").touch()
    assert [racer.wait(60) for racer in racers] == [0, 0]
    assert store.verify("ab12")
    assert (store.path("ab12") / "network.pt").read_text() in ("a", "b")
    assert leftovers(store) == []


def test_the_first_writer_wins(store):
    with store.writer("ab12") as folder:
        put(store, "ab12", b"first")
        (folder / "network.pt").write_bytes(b"second")
        write_record(folder, RECORD)
    assert (store.path("ab12") / "network.pt").read_bytes() == b"first"
    assert store.verify("ab12")
    assert leftovers(store) == []


def test_a_second_claim_waits_and_then_finds_the_result(store):
    code = """
with store.claim("ab12") as done:
    assert not done
    (store.root / "claimed").touch()
    while not (store.root / "waiting").exists():
        time.sleep(0.001)
    time.sleep(0.2)
    with store.writer("ab12") as folder:
        write_record(folder, RECORD)
"""
    first = python(code, store.root)
    wait_for(store.root / "claimed")
    (store.root / "waiting").touch()
    with store.claim("ab12") as done:
        assert done
    assert first.wait(60) == 0
    with store.claim("cd34") as done:
        assert not done


def test_threads_of_one_process_exclude_each_other(store):
    order = []

    def second() -> None:
        with store.claim("ab12"):
            order.append("second")

    with store.claim("ab12"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_the_claim_of_a_killed_process_is_free(store):
    holder = python("with store.claim('ab12'): (store.root / 'claimed').touch(); time.sleep(600)", store.root)
    wait_for(store.root / "claimed")
    holder.kill()
    holder.wait(60)
    with store.claim("ab12") as done:
        assert not done


def test_a_claim_ends_although_a_child_that_was_forked_in_it_lives_on(store):
    with store.claim("ab12"):
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
    try:
        taken = threading.Event()

        def again() -> None:
            with store.claim("ab12"):
                taken.set()

        threading.Thread(target=again, daemon=True).start()
        assert taken.wait(10)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
