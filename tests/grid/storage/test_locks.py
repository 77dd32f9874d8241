"""The holder of a lock is alone, and whoever waits is served when it goes."""

import threading

import pytest

from grid.storage.locks import locked


def test_who_does_not_wait_is_refused_while_it_is_held_and_not_afterwards(tmp_path):
    path = tmp_path / "a.lock"
    with locked(path):
        with pytest.raises(BlockingIOError), locked(path, wait=False):
            pass
        with locked(tmp_path / "b.lock", wait=False):
            pass
    with locked(path, wait=False):
        pass
    assert path.exists()


def test_a_lock_is_free_after_an_exception(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "a.lock"):
        _ = 1 / 0
    with locked(tmp_path / "a.lock", wait=False):
        pass


def test_many_threads_hold_a_lock_one_after_the_other(tmp_path):
    inside, most, served = [], [], []

    def work(number: int) -> None:
        for _ in range(20):
            with locked(tmp_path / "a.lock"):
                inside.append(number)
                most.append(len(inside))
                inside.remove(number)
                served.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(served) == 120
    assert max(most) == 1


def test_what_a_holder_writes_is_there_for_the_next(tmp_path):
    with locked(tmp_path / "a.lock") as file:
        file.write("process 1")
    with locked(tmp_path / "a.lock") as file:
        file.seek(0)
        assert file.read() == "process 1"
