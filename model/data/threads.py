"""Work done in threads, ahead of who asks for its results in their order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from threading import Event
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def threads(count: int) -> Generator[tuple[ThreadPoolExecutor, Event]]:
    """Threads that have ended when this ends: nothing that waits is begun, and the event is set.

    PyTorch's operators start no threads in them (a setting of the thread alone, as in its DataLoader).
    """
    pool, ended = ThreadPoolExecutor(count, "pictures", torch.set_num_threads, (1,)), Event()
    try:
        yield pool, ended
    finally:
        ended.set()
        pool.shutdown(wait=True, cancel_futures=True)


def in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    take: Callable[[Result], Result] = lambda result: result,
    *,
    readers: int,
    ahead: int,
    beside: Callable[[Event], object] | None = None,
) -> Generator[Result]:
    """The results of ``work`` on each of ``items``, at most ``ahead`` of them done or begun; close it when left early.

    ``take`` is done to each result by who asks for it. ``beside`` runs in a thread of its own meanwhile, and is told
    when to end. Raises what ``work`` raises, where its result is due.
    """
    waiting: deque[Future[Result]] = deque()
    with threads(readers + (beside is not None)) as (pool, ended):
        if beside is not None:
            pool.submit(beside, ended)
        following = iter(items)
        waiting.extend(pool.submit(work, item) for item in islice(following, ahead))
        while waiting:
            done = [take(waiting.popleft().result())]
            # Only now, so that the thread does not ask for Python's lock before the consumer goes on.
            waiting.extend(pool.submit(work, item) for item in islice(following, 1))
            yield done.pop()  # and nothing of it stays here
