"""Where pictures are kept: by what there is room for, and by what will be read."""

import dataclasses

import pytest
import torch

from model.data import cache
from model.data.cache import CACHES, available_bytes, chosen_cache
from model.data.pack import PackSpec, prepare_pack
from model.errors import InputError

CPU, GPU = torch.device("cpu"), torch.device("cuda")
GB = 2**30


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    monkeypatch.setattr(cache, "available_bytes", lambda: 20 * GB)
    monkeypatch.setattr(cache, "free_gpu_bytes", lambda device: 24 * GB)


@pytest.mark.parametrize(
    ("size", "device", "chosen"),
    [(8, GPU, "gpu"), (9.9, GPU, "memory"), (10.1, GPU, "disk"), (8, CPU, "memory"), (10.1, CPU, "disk")],
)
def test_auto_takes_the_first_that_has_room(size, device, chosen):
    assert chosen_cache("auto", int(size * GB), 25.0, device) == chosen


def test_what_is_not_read_once_over_is_not_kept():
    assert chosen_cache("auto", GB, 0.9, GPU) == "disk"
    assert chosen_cache("auto", GB, 1.0, GPU) == "gpu"


@pytest.mark.parametrize("asked", ["gpu", "memory", "disk"])
def test_what_is_asked_for_is_taken_and_without_a_gpu_memory_is(asked):
    assert chosen_cache(asked, 100 * GB, 0.1, GPU) == asked
    assert chosen_cache(asked, 100 * GB, 0.1, CPU) == ("memory" if asked == "gpu" else asked)


def test_an_unknown_cache_is_refused_by_its_name():
    with pytest.raises(InputError, match=r"data\.cache: 'ram'.*auto, gpu, memory, disk"):
        PackSpec(cache="ram")


def computer(root, group: str, files: dict[str, dict[str, str]]):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal: 64 kB\nMemAvailable:   50000000 kB\n")
    (root / "proc/self/cgroup").write_text(group)
    for folder, contents in files.items():
        (root / "sys/fs/cgroup" / folder).mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            (root / "sys/fs/cgroup" / folder / name).write_text(text)
    return root


def test_available_memory_is_that_of_the_tightest_group_and_pages_of_files_count_as_left(tmp_path):
    inner = {
        "memory.max": "9000",
        "memory.current": "5000",
        "memory.stat": "anon 1\ninactive_file 700\nactive_file 300",
    }
    outer = {"memory.max": "7000", "memory.current": "6500", "memory.stat": "inactive_file 0\nactive_file 0"}
    own = computer(tmp_path, "0::/jobs/mine\n", {"jobs/mine": inner, "jobs": outer})
    assert available_bytes(own) == 500
    (own / "sys/fs/cgroup/jobs/memory.max").write_text("max\n")
    assert available_bytes(own) == 5000


def test_available_memory_knows_groups_of_version_1(tmp_path):
    limits = {
        "memory.limit_in_bytes": "9000",
        "memory.usage_in_bytes": "8000",
        "memory.stat": "total_inactive_file 100",
    }
    own = computer(tmp_path, "5:cpu:/x\n4:memory:/mine\n", {"memory/mine": limits})
    assert available_bytes(own) == 1100


def test_available_memory_without_a_limit_is_that_of_the_machine(tmp_path):
    assert available_bytes(computer(tmp_path, "0::/\n", {})) == 50_000_000 * 1024
    assert available_bytes() > 0


def test_the_cache_is_no_part_of_what_a_pack_is_known_by(tmp_path):
    spec = PackSpec(input_size=32, rooms_train=1, rooms_val=1, rooms_test=1)
    paths = {prepare_pack("rooms", tmp_path, dataclasses.replace(spec, cache=name)) for name in CACHES}
    assert len(paths) == 1
