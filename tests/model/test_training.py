"""The epoch loop: what a step sees, what is kept, and that a rerun goes on exactly where a killed run stopped."""

import copy
import dataclasses
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from model import training
from model.data.pack import Pack
from model.epochs import Steps, TrainingRun, load_epoch, save_epoch, shuffled_batches, train_epoch
from model.errors import InputError
from model.images import normalize
from model.metrics import depth_metrics
from model.network.depth_network import NetworkSpec, build_network
from model.training import TrainSpec, predict, train, validate

CPU = torch.device("cpu")
SPEC = TrainSpec(epochs=3, batch_size=4, learning_rate=5e-3, init="random")


class TinyDepth(nn.Module):
    """Depth at a quarter of the size in three convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.SiLU(),
            nn.Conv2d(8, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> Pack:
    return Pack(write(tmp_path_factory.mktemp("data") / "pack.h5", {"train": 18, "val": 8, "test": 4}))


def write(path: Path, sizes: dict[str, int], size: int = 64) -> Path:
    """Depth that follows from brightness, so that it can be learned."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "depth-pack-1", "fingerprint": "0" * 64, "origin": "rooms", "input_size": size})
        file.attrs.update({"output_size": size // 4, "skipped": 0, "origin_detail": "{}"})
        for split, count in sizes.items():
            coarse = torch.from_numpy(rng.uniform(0.1, 0.9, (count, 1, 4, 4)).astype(np.float32))
            depth = functional.interpolate(coarse, size=size // 4, mode="bilinear")
            light = functional.interpolate(1 - depth, size=size, mode="bilinear").numpy()
            image = (light * 220 + rng.uniform(0, 30, (count, 3, size, size))).astype(np.uint8)
            file[f"{split}/image"], file[f"{split}/depth"] = image, (depth[:, 0].numpy() * 10_000).astype(np.uint16)
            file[f"{split}/scene"], file[f"{split}/source"] = np.arange(count, dtype=np.int32), ["x"] * count
    return path


def tiny(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return TinyDepth()


def run(network, pack, spec=SPEC, seed=0, scratch=None, progress=lambda info: None):
    return train(network, spec, TrainingRun(pack, seed, CPU, scratch, progress))


def same(one: nn.Module | dict, other: nn.Module | dict) -> bool:
    a, b = (item.state_dict() if isinstance(item, nn.Module) else item for item in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# -- batches


def test_an_epoch_sees_every_image_once_in_an_order_of_its_seed():
    batches = shuffled_batches(18, 0, 4, seed=3)
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 2]
    assert sorted(torch.cat(batches).tolist()) == list(range(18))
    assert [b.tolist() for b in shuffled_batches(18, 0, 4, seed=3)] == [b.tolist() for b in batches]
    assert [b.tolist() for b in shuffled_batches(18, 0, 4, seed=4)] != [b.tolist() for b in batches]


def test_a_last_batch_of_one_image_is_dropped_for_batchnorm():
    assert [len(batch) for batch in shuffled_batches(9, 0, 4, seed=0)] == [4, 4]
    assert [len(batch) for batch in shuffled_batches(1, 0, 4, seed=0)] == [1], "but not the only one"


def test_images_per_epoch_takes_other_images_in_each_epoch():
    seen = [set(torch.cat(shuffled_batches(100, 20, 8, seed)).tolist()) for seed in range(3)]
    assert all(len(images) == 20 for images in seen)
    assert len(set.union(*seen)) > 30


# -- one epoch


def test_an_epoch_steps_once_a_batch_and_returns_the_mean_loss(pack):
    network, before, seen, losses = tiny().train(), [], [], []

    def loss(inputs, prediction, target):
        assert inputs.shape[1:] == (3, 64, 64)
        assert prediction.shape == target.shape == (len(inputs), 1, 16, 16)
        value = functional.l1_loss(prediction, target)
        losses.append(float(value.detach()))
        return value

    steps = Steps(torch.optim.SGD(network.parameters(), 0.0), loss, 1.0, bfloat16=True, before=before.append)
    mean = train_epoch(network, 2, SPEC, steps, TrainingRun(pack, 0, CPU, progress=seen.append))
    assert before == [0, 1, 2, 3, 4]
    assert {(info["epoch"], info["epochs"]) for info in seen} == {(2, SPEC.epochs)}
    assert [info["step"] for info in seen] == [1, 2, 3, 4, 5]
    assert {info["steps"] for info in seen} == {5}
    assert mean == pytest.approx(sum(losses) / 5)
    assert seen[1]["loss"] == pytest.approx(sum(losses[:2]) / 2)


def test_gradients_are_clipped(pack):
    network, norms = tiny().train(), []

    class Watch(torch.optim.SGD):
        def step(self, closure=None):
            gradients = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
            norms.append(float(torch.cat(gradients).norm()))
            return super().step(closure)

    for clip in (0.01, 1e9):
        steps = Steps(
            Watch(network.parameters(), 0.0),
            lambda _, prediction, target: 100 * functional.l1_loss(prediction, target),
            gradient_clip=clip,
            bfloat16=False,
        )
        spec = dataclasses.replace(SPEC, images_per_epoch=4)
        train_epoch(network, 1, spec, steps, TrainingRun(pack, 0, CPU))
    assert norms[0] == pytest.approx(0.01, rel=1e-3)
    assert norms[1] > 1.0


def test_a_loss_that_is_not_finite_stops_before_it_spoils_the_weights(pack):
    network = tiny().train()
    before = copy.deepcopy(network.state_dict())
    steps = Steps(
        torch.optim.SGD(network.parameters(), 1.0),
        lambda _, prediction, target: prediction.sum() * float("nan"),
        gradient_clip=1.0,
        bfloat16=False,
    )
    with pytest.raises(FloatingPointError, match="loss became nan at step 1 of 5"):
        train_epoch(network, 1, SPEC, steps, TrainingRun(pack, 0, CPU))
    parameters = dict(network.named_parameters())
    assert all(torch.equal(parameters[name], before[name]) for name in parameters)


# -- prediction and validation


def test_prediction_is_that_of_single_images_and_changes_nothing(pack):
    network, images, seen = tiny().eval(), pack.images("val"), []
    before = copy.deepcopy(network.state_dict())
    together = predict(network, images, device=CPU, batch_size=3, progress=seen.append)
    with torch.no_grad():
        alone = torch.cat([network(normalize(image[None])) for image in images])
    assert together.shape == (8, 1, 16, 16)
    assert together.dtype == torch.float32
    assert torch.allclose(together, alone, atol=1e-5)
    assert [info["step"] for info in seen] == [3, 6, 8]
    assert same(before, network)


@pytest.mark.parametrize("training_mode", [False, True])
def test_validation_uses_eval_mode_and_puts_the_mode_back(pack, training_mode):
    network = tiny().train(training_mode)
    before = copy.deepcopy(network.state_dict())
    metrics = validate(network, pack, CPU)
    assert network.training == training_mode
    assert same(before, network), "no statistics moved"
    expected = depth_metrics(predict(network.eval(), pack.images("val"), device=CPU), pack.depth("val"))
    assert metrics == expected


# -- training


def test_training_learns(pack):
    network = tiny()
    before = validate(network, pack, CPU)
    history = run(network, pack, TrainSpec(epochs=8, batch_size=4, learning_rate=2e-2, init="random"))
    assert history[-1]["train_loss"] < 0.7 * history[0]["train_loss"]
    after = validate(network, pack, CPU)
    assert after["ssim"] > before["ssim"] + 0.1
    assert after["rmse_m"] < before["rmse_m"]


def test_the_real_network_takes_a_step(pack):
    torch.manual_seed(0)
    network = build_network(NetworkSpec(input_size=64))
    before = copy.deepcopy(network.state_dict())
    spec = TrainSpec(epochs=1, batch_size=4, images_per_epoch=4, init="random")
    (row,) = run(network, pack, spec)
    assert row["train_loss"] > 0
    unchanged = [name for name, parameter in network.named_parameters() if torch.equal(parameter, before[name])]
    assert not unchanged
    assert not network.training


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


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("init", "imagenette"),
        ("epochs", 0),
        ("batch_size", 0),
        ("plateau_patience", 0),
        ("images_per_epoch", -1),
        ("learning_rate", -0.1),
        ("weight_decay", -1.0),
        ("gradient_clip", -1.0),
        ("freeze_bn_after", 0.0),
        ("freeze_bn_after", 1.5),
    ],
)
def test_a_wrong_setting_names_itself_and_its_value(field, value):
    with pytest.raises(InputError, match=rf"train\.{field}: {value!r}"):
        TrainSpec(**{field: value})
