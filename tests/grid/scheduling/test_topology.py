"""Hyper-threads: which CPUs are one physical core, and that a measurement leaves the siblings of its core idle."""

from pathlib import Path

import pytest

from grid.scheduling import cores as leases
from grid.scheduling.cores import CoreLease
from grid.scheduling.topology import physical_cores


def sysfs(folder: Path, siblings: dict[int, str]) -> Path:
    """A made-up /sys/devices/system/cpu."""
    for cpu, text in siblings.items():
        place = folder / f"cpu{cpu}" / "topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text(f"{text}\n")
    return folder


TWO_CORES = {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}


@pytest.fixture
def two_cores(tmp_path, monkeypatch) -> Path:
    """A machine of two physical cores with two hyper-threads each; the folder of its locks."""
    folder = sysfs(tmp_path / "sys", TWO_CORES)
    monkeypatch.setattr(leases, "physical_cores", lambda cpus: physical_cores(cpus, folder))
    return tmp_path / "locks"


@pytest.mark.parametrize(
    ("siblings", "cpus", "expected"),
    [
        (TWO_CORES, (0, 1, 2, 3), [(0, 2), (1, 3)]),
        ({0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}, (0, 1, 2, 3), [(0, 1), (2, 3)]),
        (TWO_CORES, (0, 1, 3), [(0,), (1, 3)]),  # CPU 2 is not ours
        ({}, (4, 7), [(4,), (7,)]),
        ({0: "nonsense", 1: ""}, (0, 1), [(0,), (1,)]),
    ],
)
def test_cpus_are_grouped_by_physical_core_as_far_as_the_system_says(tmp_path, siblings, cpus, expected):
    assert physical_cores(cpus, sysfs(tmp_path, siblings)) == expected


def test_a_whole_core_is_lent_with_its_siblings_and_one_of_them_is_named(two_cores):
    with CoreLease(two_cores, range(4), whole=True).lease(1) as measuring:
        assert measuring == [0]
        with CoreLease(two_cores, range(4)).lease(2, timeout_s=1) as others:
            assert others == [1, 3]
            with pytest.raises(TimeoutError), CoreLease(two_cores, range(4)).lease(1, timeout_s=0.1):
                pass
    with CoreLease(two_cores, range(4)).lease(4, timeout_s=1) as free:
        assert free == [0, 1, 2, 3]


def test_a_core_half_of_which_is_taken_is_left_to_whoever_has_it(two_cores):
    with CoreLease(two_cores, [2]).lease(1):
        with CoreLease(two_cores, range(4), whole=True).lease(1) as measuring:
            assert measuring == [1]
        with (
            CoreLease(two_cores, [3]).lease(1),
            pytest.raises(TimeoutError),
            CoreLease(two_cores, range(4), whole=True).lease(1, timeout_s=0.1),
        ):
            pass
        with CoreLease(two_cores, [0, 1, 3]).lease(3, timeout_s=1) as free:
            assert free == [0, 1, 3], "the one that gave up holds nothing"


@pytest.mark.parametrize(("cpus", "count"), [((0, 2), 1), ((0, 1, 2, 3), 3)])
def test_hyper_threads_are_lent_one_by_one_where_there_are_too_few_cores(two_cores, cpus, count):
    with CoreLease(two_cores, cpus, whole=True).lease(count, timeout_s=1) as lent:
        assert lent == list(cpus[:count])
