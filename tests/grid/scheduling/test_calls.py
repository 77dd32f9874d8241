"""A worker that waits without a stage goes on when it is called, and not before."""

import asyncio
import threading

import pytest

from grid.scheduling.calls import Desk, FileCalls, wait_until_called


def test_a_trial_waits_at_the_desk_until_it_is_called_and_others_go_on_waiting():
    async def played() -> tuple[bool, bool, bool]:
        desk = Desk()
        one, other = (asyncio.create_task(desk.wait(name)) for name in ("one", "other"))
        await asyncio.sleep(0)
        before = one.done()
        await desk.call("one")
        await asyncio.wait_for(one, 10)
        seen = before, one.done(), other.done()
        other.cancel()
        return seen

    assert asyncio.run(played()) == (False, True, False)


def test_a_call_that_is_quicker_than_the_worker_is_not_lost():
    async def played() -> None:
        desk = Desk()
        await desk.call("one")
        await asyncio.wait_for(desk.wait("one"), 10)
        assert desk.events == {}, "nothing is kept of trials that are over"

    asyncio.run(played())


@pytest.mark.timeout(60)
def test_on_one_machine_a_file_is_the_call(tmp_path):
    calls = FileCalls(tmp_path)
    config = calls.opened("one")
    waiting = threading.Thread(target=wait_until_called, args=(config,))
    waiting.start()
    assert calls.waits("one")
    waiting.join(0.2)
    assert waiting.is_alive()
    calls.call("one")
    waiting.join(10)
    assert not waiting.is_alive()
    assert not calls.waits("one")
    calls.call("one")  # a second time does nothing
