"""The epoch loop: what a step sees, what is kept, and that a rerun goes on exactly where a killed run stopped."""

import copy
import dataclasses

import pytest
import torch
from torch.nn import functional

from model.epochs import Steps, TrainingRun, shuffled_batches, train_epoch
from model.errors import InputError
from model.images import normalize
from model.network.build import build_network
from model.network.spec import NetworkSpec
from model.tasks.depth import depth_metrics
from model.training import TrainSpec, predict, validate
from tests.model.tiny_training import CPU, SPEC, run, same, tiny

_COMPILE = torch.compile

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
    expected = depth_metrics(predict(network.eval(), pack.images("val"), device=CPU), pack.targets("val"))
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


def test_compiled_steps_train_the_same_network(pack, monkeypatch):
    compiled = []

    def without_a_compiler(network):
        compiled.append(network)
        return _COMPILE(network, backend="eager")

    monkeypatch.setattr(torch, "compile", without_a_compiler)
    plain, network = tiny(), tiny()
    expected = run(plain, pack, dataclasses.replace(SPEC, epochs=2))
    history = run(network, pack, dataclasses.replace(SPEC, epochs=2, compile=True))
    assert compiled == [network]
    assert history[-1]["train_loss"] == pytest.approx(expected[-1]["train_loss"], rel=1e-3)
    assert network.state_dict().keys() == plain.state_dict().keys()
