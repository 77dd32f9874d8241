"""Which epoch comes back, and a training that is cut short."""

import copy
import dataclasses
from itertools import pairwise

import pytest
import torch

from model import training
from model.epochs import load_epoch, save_epoch
from model.training import TrainSpec, validate
from tests.model.tiny_training import CPU, SPEC, run, same, tiny


@pytest.mark.parametrize(("freeze_bn_after", "best"), [(1.0, 1), (0.5, 2)])
def test_the_best_epoch_is_kept_and_not_the_last_nor_one_before_batchnorm_froze(
    pack, monkeypatch, freeze_bn_after, best
):
    scores, states, network = iter([0.2, 0.8, 0.5, 0.4]), [], tiny()
    monkeypatch.setattr(training, "validate", lambda *_: {"ssim": next(scores)})

    def progress(info):
        if "val_ssim" in info:
            states.append(copy.deepcopy(network.state_dict()))

    spec = dataclasses.replace(SPEC, epochs=4, freeze_bn_after=freeze_bn_after)
    history = run(network, pack, spec, progress=progress)
    assert spec.best_epoch(history)["epoch"] == best + 1
    assert same(network, states[best])
    assert not same(states[1], states[2])


def test_the_history_has_a_row_an_epoch_and_the_network_the_metrics_of_the_best(pack):
    network, seen = tiny(), []
    history = run(network, pack, progress=seen.append)
    assert [row["epoch"] for row in history] == [1, 2, 3]
    names = {"epoch", "train_loss", "learning_rate", *(f"val_{name}" for name in validate(network, pack, CPU))}
    assert all(row.keys() == names for row in history)
    best = max(history, key=lambda row: row["val_ssim"])
    assert validate(network, pack, CPU)["ssim"] == best["val_ssim"]
    assert not network.training
    assert [info["epoch"] for info in seen if "val_ssim" in info] == [1, 2, 3]
    assert all(info["epochs"] == 3 for info in seen)


def test_the_learning_rate_falls_when_validation_stands_still(pack, monkeypatch):
    monkeypatch.setattr(training, "validate", lambda *_: {"ssim": 0.5})
    history = run(
        tiny(), pack, TrainSpec(epochs=5, batch_size=8, learning_rate=1e-3, plateau_patience=1, init="random")
    )
    rates = [row["learning_rate"] for row in history]
    assert rates[0] == 1e-3
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 5e-4


def test_batchnorm_statistics_stand_still_in_the_last_part_and_the_rate_falls_there(pack):
    network, states = tiny(), []

    def progress(info):
        if "step" in info:
            states.append((info["epoch"], network.layers[1].running_mean.clone(), network.layers[1].weight.clone()))

    spec = TrainSpec(epochs=4, batch_size=4, learning_rate=5e-3, freeze_bn_after=0.5, plateau_patience=9, init="random")
    history = run(network, pack, spec, progress=progress)
    for (epoch, mean, weight), (next_epoch, next_mean, next_weight) in pairwise(states):
        assert torch.equal(mean, next_mean) == (next_epoch > 2), (epoch, next_epoch)
        assert not torch.equal(weight, next_weight), "factors go on learning"
    rates = [row["learning_rate"] for row in history]
    assert rates[:2] == [5e-3, 5e-3]
    assert rates[2] == rates[3] < 5e-3


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("finished", [1, 2, 3])
@pytest.mark.parametrize("freeze_bn_after", [0.5, 1.0])
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(pack, tmp_path, finished, freeze_bn_after):
    spec = TrainSpec(
        epochs=4,
        batch_size=4,
        learning_rate=5e-3,
        plateau_patience=1,
        freeze_bn_after=freeze_bn_after,
        init="random",
    )

    def kill(info):
        if info["epoch"] == finished + 1 and info.get("step") == 2:
            raise Killed

    whole = tiny()
    expected = run(whole, pack, spec)
    with pytest.raises(Killed):
        run(tiny(), pack, spec, scratch=tmp_path, progress=kill)
    resumed, epochs = tiny(seed=9), set()
    history = run(resumed, pack, spec, scratch=tmp_path, progress=lambda info: epochs.add(info["epoch"]))
    assert min(epochs) == finished + 1
    assert history == expected
    assert same(whole, resumed)


def test_a_resumed_training_knows_how_long_validation_stood_still(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "validate", lambda *_: {"ssim": 0.5})
    spec = TrainSpec(epochs=5, batch_size=8, plateau_patience=1, init="random")

    def kill(info):
        if info["epoch"] == 3:
            raise Killed

    expected = run(tiny(), pack, spec)
    with pytest.raises(Killed):
        run(tiny(), pack, spec, scratch=tmp_path, progress=kill)
    assert run(tiny(), pack, spec, scratch=tmp_path) == expected
    assert expected[-1]["learning_rate"] < expected[0]["learning_rate"]


def test_the_seed_decides_the_result_and_nothing_else_does(pack):
    results = []
    for number, seed in enumerate((1, 1, 2)):
        network = tiny()
        torch.manual_seed(100 + number)
        run(network, pack, TrainSpec(epochs=1, batch_size=4, init="random"), seed=seed)
        results.append(copy.deepcopy(network.state_dict()))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_an_epoch_is_kept_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "scratch"
    assert load_epoch(None) is None
    assert load_epoch(folder) is None
    save_epoch(None, history=[])
    save_epoch(folder, history=[{"epoch": 1}], best={"w": torch.ones(2)})
    with pytest.raises(AttributeError, match="pickle"):
        save_epoch(folder, history=[{"epoch": 2}], best={"w": lambda: None})
    assert [path.name for path in folder.iterdir()] == ["epoch.pt"]
    state = load_epoch(folder)
    assert state is not None
    assert state["history"] == [{"epoch": 1}]
    assert torch.equal(state["best"]["w"], torch.ones(2))
