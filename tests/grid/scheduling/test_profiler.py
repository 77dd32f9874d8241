"""The rules of the profiling actor: its own cores while it measures, none in between, real figures in the store."""

import os
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from grid.planning.plan import Node
from grid.planning.stage import PROFILER
from grid.planning.stage_table import stage_named
from grid.scheduling.cores import CoreLease, own_cores
from grid.scheduling.profiler import Profiler, Profilers, profiler_of
from grid.stages.work import Context, StageError
from grid.storage.result_store import StageStore, write_record
from model.network.build import build_network
from model.network.spec import NetworkSpec
from quant.artifact import Form, save_network

SIZE = 64
needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no processes")


def profile_node(threads: int = 1, network: str = "a" * 20) -> Node:
    latency: dict = {"latency.seconds": 0.2, "latency.loads": 3, "latency.warmup": 1, "latency.threads": threads}
    latency["float_runtime"] = "eager"
    inputs = (("network", network), ("reference", "b" * 20))
    return Node("c" * 20, "profile", latency, inputs, ("cell",), stage_named("profile").function, PROFILER)


@pytest.fixture
def context(tmp_path) -> Context:
    """A store with two tiny float networks and a pack with one test picture."""
    pack = tmp_path / "pack.h5"
    with h5py.File(pack, "w") as file:
        for split in ("train", "val", "test"):
            group = file.create_group(split)
            group["image"] = np.full((1, 3, SIZE, SIZE), 99, np.uint8)
            group["depth"] = np.full((1, SIZE // 4, SIZE // 4), 2500, np.uint16)
            group["scene"] = np.zeros(1, np.int32)
            group["source"] = np.array(["made up"], object)
        file.attrs.update(format="depth-pack-1", input_size=SIZE, fingerprint="f", origin="rooms", skipped=0)
        file.attrs["origin_detail"] = "{}"
    store = StageStore(tmp_path / "storage")
    spec = NetworkSpec(input_size=SIZE)
    for node_id in ("a" * 20, "b" * 20):
        with store.writer(node_id) as folder:
            save_network(folder, build_network(spec).eval(), Form(spec, fused=False, form="float"))
            empty = {"settings": {}, "inputs": [], "metrics": {}, "asserted": {}, "history": [], "seconds": 0.0}
            write_record(folder, {"stage": "load", **empty})
    return Context(store.root, pack)


def seen_while_running(monkeypatch) -> list:
    """Record where the process runs instead of measuring."""
    seen: list = []

    def look(node: Node, context: Context, place: Callable[[], Any]) -> dict:
        with place():
            seen.append((own_cores(), torch.get_num_threads()))
        return {"metrics": {}}

    monkeypatch.setattr("grid.scheduling.profiler.run_node", look)
    return seen


@needs_affinity
def test_it_measures_on_leased_cores_and_frees_them_afterwards(tmp_path, monkeypatch):
    seen = seen_while_running(monkeypatch)
    home = own_cores()
    Profiler().run(profile_node(), Context(tmp_path, tmp_path))
    assert seen == [(home[:1], 1)]
    assert own_cores() == home
    with CoreLease(tmp_path / "cores").lease(len(home), timeout_s=0.1) as cores:
        assert cores == list(home)


@needs_affinity
def test_it_takes_as_many_cores_as_the_node_has_threads(tmp_path, monkeypatch):
    seen = seen_while_running(monkeypatch)
    cores = own_cores()
    if len(cores) < 2:
        monkeypatch.setattr("grid.scheduling.cores.pin_process", lambda wanted: seen.append(len(set(wanted))))
        Profiler([0, 1]).run(profile_node(threads=2), Context(tmp_path, tmp_path))
        assert seen[0] == 2
    else:
        Profiler(cores).run(profile_node(threads=2), Context(tmp_path, tmp_path))
        assert seen == [(cores[:2], 2)]


def test_it_waits_while_a_training_worker_holds_the_core(tmp_path, monkeypatch):
    seen = seen_while_running(monkeypatch)
    profiler = Profiler(own_cores()[:1])

    lease = CoreLease.lease
    monkeypatch.setattr(CoreLease, "lease", lambda self, count: lease(self, count, timeout_s=0.2))
    with CoreLease(tmp_path / "cores", own_cores()[:1]).lease(1):
        with pytest.raises(TimeoutError):
            profiler.run(profile_node(), Context(tmp_path, tmp_path))
        assert not seen
    profiler.run(profile_node(), Context(tmp_path, tmp_path))
    assert len(seen) == 1


def test_cores_are_free_after_a_failed_measurement(tmp_path, context):
    with pytest.raises(StageError, match=r"network d{20} is missing"):
        Profiler().run(profile_node(network="d" * 20), context)
    with CoreLease(context.storage / "cores").lease(len(own_cores()), timeout_s=0.1):
        pass


def test_the_actor_measures_a_real_network_into_the_store_without_claiming_a_cpu(ray_cluster, context):
    import ray

    profilers = Profilers(own_cores())
    profilers.refresh()
    try:
        actor = profiler_of(profilers.home)
        record = ray.get(actor.run.remote(profile_node(), context), timeout=120)
        assert ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"]
    finally:
        profilers.stop()
    metrics = record["metrics"]
    assert metrics["pairs"] >= 15, "five of each load"
    assert len(metrics["load_ratios"]) == 3
    assert metrics["latency_ratio_low"] <= metrics["latency_ratio"] <= metrics["latency_ratio_high"]
    assert 0 < metrics["latency_ms_p50"] <= metrics["latency_ms_p90"]
    store = StageStore(context.storage)
    assert store.verify("c" * 20)
    assert "ProfilerStep*" in (store.path("c" * 20) / "operators.txt").read_text()
