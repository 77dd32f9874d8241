"""In which order nodes run, and what each asks for."""

import pytest

from grid.scheduling.cores import own_cores
from grid.scheduling.tune import Resources
from tests.grid.scheduling.machine import FULL
from tests.grid.tiny import put, space_of, world

ON_DEVICE = "{method: [ptq], granularity: [per_channel, per_tensor], fuse_bn: [true], engine: [onnxruntime]}"


def test_the_longest_chain_goes_first(machine, plan, store):
    tune = machine(plan, 16)
    tune.fill()
    tune.end(min(tune.trials))
    tune.fill()
    first = [next(node for node in plan.nodes if node.id == one).stage for one in tune.order[1:]]
    assert first[0] == "fuse", "fusing comes before two trainings, an evaluation before none"
    assert first[1:3] == ["equalize"] * 2
    assert set(first[3:]) == {"evaluate", "profile"}


def test_training_goes_before_calibration_alone_and_measuring_comes_last(machine, store, tmp_path, tmp_path_factory):
    plan = world(tmp_path_factory).plan(space_of(tmp_path, FULL, overrides=("qat.images_per_epoch=1000",)))
    ready = ("load", "fuse", "equalize")
    for node in plan.nodes:
        if node.stage in ready:
            put(store, node)
    tune = machine(plan, 16)
    tune.fill()
    order = [next(node for node in plan.nodes if node.id == one).stage for one in tune.order]
    assert order[:4] == ["calibrate"] * 4, "a tuning follows each of them"
    assert order[4:8] == ["finetune"] * 4
    assert set(order[8:]) == {"evaluate", "profile"}


@pytest.mark.parametrize("cpus", [1, 2, 3])
def test_on_few_cores_measuring_waits_until_nothing_else_waits_or_runs(machine, plan, cpus):
    tune = machine(plan, cpus)
    others = {node.id for node in plan.nodes if node.stage != "profile"}
    while not tune.over:
        tune.fill(most=cpus)
        if "profile" in tune.stages():
            assert set(tune.order) >= others
            assert set(tune.stages()) == {"profile"}
        if tune.trials:
            tune.end(max(tune.trials))
    assert set(tune.order) == {node.id for node in plan.nodes}


def test_on_few_cores_a_measurement_runs_alone_in_a_worker_as_the_others(machine, plan, store):
    for node in plan.nodes:
        if node.stage != "profile":
            put(store, node)
    tune = machine(plan, 3)
    tune.fill()
    assert [config["resources"] for config in tune.trials.values()] == [{"CPU": 1.0}]


@pytest.mark.parametrize("cpus", [4, 64])
def test_on_many_cores_measuring_does_not_wait_and_takes_its_own_threads_alone(machine, plan, cpus):
    tune = machine(plan, cpus)
    tune.fill()
    tune.end(min(tune.trials))
    tune.fill()
    assert tune.stages() == ["equalize", "equalize", "evaluate", "fuse", "profile"]
    measuring = next(config for config in tune.trials.values() if config["stage"] == "profile")
    assert measuring["resources"] == {"CPU": 1.0}


def test_machines_that_measure_by_a_resource_get_two_measurements_each_before_anything_else(machine, plan, store):
    for node in plan.nodes:
        if node.stage not in ("profile", "finetune", "evaluate"):
            put(store, node)
    for node in [node for node in plan.nodes if node.stage == "finetune"][:4]:
        put(store, node)
    measured = [node for node in plan.nodes if node.stage == "profile"]
    tune = machine(plan, 16, profilers=2)
    tune.fill(most=8)
    assert len(measured) > 4, "there are more than may run ahead"
    assert [config["stage"] for config in tune.trials.values()][:4] == ["profile"] * 4
    assert "profile" not in [config["stage"] for config in tune.trials.values()][4:]
    assert next(iter(tune.trials.values()))["resources"] == {"profiler": 1.0}
    tune.end(next(iter(tune.trials)))
    tune.fill(most=8)
    assert [config["stage"] for config in tune.trials.values()][-1] == "profile", "one ended, the next follows"


def test_only_what_trains_or_calibrates_asks_for_a_gpu(machine, tmp_path, tmp_path_factory):
    every = ("rounding=true", "mixed_precision=true", "analyze=true")
    plan = world(tmp_path_factory).plan(space_of(tmp_path, FULL, overrides=every))
    tune = machine(plan, 8, gpus=1, resources=Resources(min(2, len(own_cores())), 0.25))
    while not tune.over:
        tune.fill()
        for config in tune.trials.values():
            wanted = {"CPU": float(min(2, len(own_cores())))}
            if config["stage"] in ("equalize", "calibrate", "round", "correct_bias", "finetune"):
                wanted["GPU"] = 0.25
            assert config["resources"] == ({"CPU": 1.0} if config["stage"] == "profile" else wanted)
        if tune.trials:
            tune.end(min(tune.trials))


@pytest.mark.parametrize("gpus", [0, 1])
def test_no_gpu_is_asked_for_where_there_is_none_or_none_is_wanted(machine, plan, store, gpus):
    for node in plan.nodes:
        if node.stage in ("load", "fuse", "equalize"):
            put(store, node)
    tune = machine(plan, 8, gpus=gpus, resources=Resources(gpus_per_trial=0.0 if gpus else 1.0))
    tune.fill()
    assert "finetune" in tune.stages()
    assert not any("GPU" in config["resources"] for config in tune.trials.values())


@pytest.mark.parametrize("cpus", [2, 4])
def test_a_measurement_asks_for_no_more_cpus_than_there_are_and_would_wait_for_ever(
    machine, tmp_path, tmp_path_factory, cpus
):
    space = space_of(tmp_path, "{method: [ptq]}", overrides=("latency.threads=32",))
    tune = machine(world(tmp_path_factory).plan(space), cpus)
    while not tune.over:
        tune.fill(most=cpus)
        assert all(config["resources"]["CPU"] <= cpus for config in tune.trials.values())
        if tune.trials:
            tune.end(min(tune.trials))


pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("cpus", [2, 16])
def test_a_device_measures_as_soon_as_it_can_and_two_of_its_networks_are_at_hand(
    machine, store, tmp_path, tmp_path_factory, cpus
):
    pytest.importorskip("onnxruntime")
    overrides = ("device=[local, pi]", "equalize=false", "rounding=false")
    plan = world(tmp_path_factory).plan(space_of(tmp_path, ON_DEVICE, overrides=overrides))
    for node in plan.nodes:
        if node.stage in ("load", "fuse", "calibrate", "correct_bias", "convert"):
            put(store, node)
    tune = machine(plan, cpus, devices=("pi",))
    tune.fill(most=3)
    assert [config["stage"] for config in tune.trials.values()] == ["profile_on_device"] * 2 + ["evaluate"]
    assert [config["resources"] for config in tune.trials.values()][:2] == [{"device:pi": 1.0}] * 2


def test_on_few_cores_devices_wait_while_this_machine_measures(machine, store, tmp_path, tmp_path_factory):
    pytest.importorskip("onnxruntime")
    overrides = ("device=[local, pi]", "equalize=false", "rounding=false")
    plan = world(tmp_path_factory).plan(space_of(tmp_path, ON_DEVICE, overrides=overrides))
    for node in plan.nodes:
        if node.device == "cpu" or node.device == "gpu":
            put(store, node)
    tune = machine(plan, 2, devices=("pi",))
    while not tune.over:
        tune.fill(most=3)
        assert "profile" not in tune.stages() or len(tune.stages()) == 1
        if tune.trials:
            tune.end(min(tune.trials))
    assert set(tune.order) >= {node.id for node in plan.nodes if node.device in ("profiler", "device")}
