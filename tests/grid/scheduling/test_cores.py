"""The rules of cores: one holder a core, freed whatever happens, no deadlock, every thread pinned."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from grid.scheduling.cores import CoreLease, own_cores, pin_process, pinned
from model.errors import InputError

ROOT = Path(__file__).resolve().parents[3]


def child(code: str, *arguments: object) -> subprocess.Popen:
    """A process that prints ``ready`` when it holds what it should hold."""
    command = [sys.executable, "-c", f"import sys\n{code}", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    return process


HOLD = """
import time
from pathlib import Path
from grid.scheduling.cores import CoreLease
with CoreLease(Path(sys.argv[1]), [0, 1]).lease(int(sys.argv[2])):
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_core_has_one_holder_and_is_free_again_after_the_body(tmp_path):
    first, second = CoreLease(tmp_path, [4, 7]), CoreLease(tmp_path, [4, 7])
    with first.lease(1) as a, second.lease(1) as b:
        assert sorted(a + b) == [4, 7]
        with pytest.raises(TimeoutError), first.lease(1, timeout_s=0.1):
            pass
    with first.lease(2, timeout_s=0.1) as both:
        assert both == [4, 7]


def test_cores_are_freed_when_the_body_raises(tmp_path):
    lease = CoreLease(tmp_path, [0])
    with pytest.raises(ZeroDivisionError), lease.lease(1):
        _ = 1 / 0
    with lease.lease(1, timeout_s=0.1):
        pass


def test_an_unsuccessful_wait_gives_back_what_it_had_collected(tmp_path):
    lease = CoreLease(tmp_path, [0, 1])
    with lease.lease(1):
        with pytest.raises(TimeoutError), lease.lease(2, timeout_s=0.1):
            pass
        with lease.lease(1, timeout_s=0.1):
            pass


def test_a_waiting_lease_goes_on_when_the_cores_become_free(tmp_path):
    lease = CoreLease(tmp_path, [0, 1])
    got: list[list[int]] = []

    def wait() -> None:
        with lease.lease(2, timeout_s=20) as cores:
            got.append(cores)

    waiting = threading.Thread(target=wait)
    with lease.lease(1):
        waiting.start()
        time.sleep(0.2)
        assert not got
    waiting.join(20)
    assert got == [[0, 1]]


def test_leases_that_wait_for_several_cores_do_not_block_each_other_half_filled(tmp_path):
    served = []

    def work(number: int) -> None:
        with CoreLease(tmp_path, [0, 1]).lease(2, timeout_s=20):
            served.append(number)

    waiting = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    with CoreLease(tmp_path, [0, 1]).lease(1):
        waiting[0].start()
        time.sleep(0.2)  # it has one core now; whoever took the other one before it would wait for ever
        for thread in waiting[1:]:
            thread.start()
        time.sleep(0.2)
    for thread in waiting:
        thread.join(20)
    assert sorted(served) == list(range(6))


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_a_holder_that_is_killed_frees_its_cores(tmp_path, death):
    holder = child(HOLD, tmp_path, 2)
    try:
        with pytest.raises(TimeoutError), CoreLease(tmp_path, [0, 1]).lease(1, timeout_s=0.2):
            pass
    finally:
        holder.send_signal(death)
        holder.wait(20)
    with CoreLease(tmp_path, [0, 1]).lease(2, timeout_s=5) as cores:
        assert cores == [0, 1]


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    lease = CoreLease(tmp_path, [0])
    with lease.lease(1):
        pid = os.fork()
        if pid == 0:
            time.sleep(30)
            os._exit(0)
    try:
        with lease.lease(1, timeout_s=1) as cores:
            assert cores == [0]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_more_cores_than_there_are_is_an_error_and_not_a_wait_for_ever(tmp_path):
    for count in (3, 0):
        with pytest.raises(InputError, match=f"{count} cores"), CoreLease(tmp_path, [0, 1]).lease(count):
            pass


PIN = """
import os, threading
import torch
from grid.scheduling.cores import own_cores, pin_process
torch.set_num_threads(3)
image = torch.rand(64, 3, 64, 64)
torch.nn.functional.conv2d(image, torch.rand(32, 3, 3, 3))  # starts torch's pool
stop = threading.Event()
threading.Thread(target=stop.wait, daemon=True).start()
pin_process([int(sys.argv[1])])
masks = {tuple(os.sched_getaffinity(int(name))) for name in os.listdir("/proc/self/task")}
print("ready")
print(len(os.listdir("/proc/self/task")), masks, torch.get_num_threads(), own_cores())
stop.set()
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no processes")
def test_pinning_moves_every_thread_of_the_process():
    core = own_cores()[0]
    process = child(PIN, core)
    assert process.stdout is not None
    told = process.stdout.read()
    process.wait(60)
    threads, rest = told.strip().split(" ", 1)
    assert int(threads) > 2, "there were threads to pin"
    assert rest == f"{{({core},)}} 1 ({core},)"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no processes")
def test_pinned_gives_the_cores_and_the_thread_count_back_also_after_an_error():
    home, threads = own_cores(), torch.get_num_threads()
    seen = []

    def fail() -> None:
        with pinned(home[:1]):
            seen.append((own_cores(), torch.get_num_threads()))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [(home[:1], 1)]
    assert own_cores() == home
    assert torch.get_num_threads() == threads


def test_one_torch_thread_a_core():
    threads = torch.get_num_threads()
    try:
        pin_process(own_cores())
        assert torch.get_num_threads() == len(own_cores())
    finally:
        torch.set_num_threads(threads)
