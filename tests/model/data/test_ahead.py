"""Results of threads in the order of what was asked for, and slices of images that are read ahead."""

import threading
from contextlib import closing

import pytest
import torch

from model.data.ahead import slices_ahead
from model.data.threads import in_order

CPU = torch.device("cpu")


def test_slices_are_all_of_the_images_in_their_order_and_none_goes_beyond_the_end():
    images, asked = torch.arange(11.0), []

    def read(where):
        asked.append((where.start, where.stop))
        return images[where]

    parts = list(slices_ahead(read, 10, 4, CPU))
    assert asked == [(0, 4), (4, 8), (8, 10)]
    assert torch.equal(torch.cat(parts), images[:10])
    assert list(slices_ahead(read, 0, 4, CPU)) == []


def test_results_come_in_the_order_of_the_items_though_threads_end_in_another():
    second = threading.Event()

    def work(item):
        if item == 0:
            assert second.wait(10)
        elif item == 1:
            second.set()
        return item

    with closing(in_order(work, range(6), readers=2, ahead=3)) as results:
        assert list(results) == list(range(6))


def test_no_more_than_asked_for_is_ahead_of_the_consumer():
    begun = []
    with closing(in_order(lambda item: begun.append(item) or item, range(20), readers=1, ahead=3)) as results:
        for number, _ in enumerate(results):
            assert len(begun) <= number + 4
    assert begun == list(range(20))


def test_an_error_is_raised_where_its_result_is_due_and_ends_the_threads():
    ended = threading.Event()

    def work(item):
        if item == 2:
            raise OSError("the disk")
        return item

    got = []
    with pytest.raises(OSError, match="the disk"):
        got += in_order(work, range(9), readers=2, ahead=4, beside=lambda event: event.wait(10) and ended.set())
    with closing(in_order(work, range(9), readers=2, ahead=4)) as results:
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(OSError, match="the disk"):
            next(results)
    assert ended.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pictures")]


def test_operators_of_pytorch_start_no_threads_in_a_reader_and_as_many_as_before_elsewhere():
    before = torch.get_num_threads()
    with closing(in_order(lambda item: torch.get_num_threads(), range(3), readers=1, ahead=1)) as counts:
        assert set(counts) == {1}
    assert torch.get_num_threads() == before
