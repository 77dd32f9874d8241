"""Which epoch comes back, and a training that is cut short."""

import copy
from dataclasses import replace

import pytest
import torch

from model.images import normalize
from model.step_memory import saved_bytes
from model.training import validate
from quant.prepare import quantizers
from quant.qat import finetune as qat
from quant.qat.finetune import prepare_for_qat
from quant.recipe import QatSpec
from quant.state import require_state
from tests.quant.networks import (
    reference,
    same_tensors,
)
from tests.quant.qat.training import CALIBRATE, CPU, SPEC, run, train, warm


def test_the_best_epoch_is_kept_and_not_the_last(network, pack, monkeypatch):
    prepared, states = warm(network, pack), []
    scores = iter([0.2, 0.3, 0.9, 0.5])

    def validate(validated, *_):
        states.append({name: value.clone() for name, value in validated.state_dict().items()})
        return {"ssim": next(scores)}

    monkeypatch.setattr(qat, "validate", validate)
    history, _ = run(prepared, pack, network)
    assert [(row["epoch"], row["val_ssim"]) for row in history] == [(0, 0.2), (1, 0.3), (2, 0.9), (3, 0.5)]
    assert same_tensors(prepared.state_dict(), states[2]), "what is handed on is what was validated"
    assert not same_tensors(states[2], states[3])


@pytest.mark.parametrize("learned_scales", [False, True])
def test_a_training_that_helps_nowhere_gives_back_its_start(network, pack, monkeypatch, learned_scales):
    prepared, scores = warm(network, pack), iter([0.9, 0.9, 0.2, 0.3])
    monkeypatch.setattr(qat, "validate", lambda *_: {"ssim": next(scores)})
    before = copy.deepcopy(prepared)
    history, _ = run(prepared, pack, network, replace(SPEC, learned_scales=learned_scales))
    assert max(history, key=lambda row: row["val_ssim"])["epoch"] == 0
    images = normalize(pack.images("test"))
    assert torch.equal(reference(prepared, images), reference(before, images))
    assert {name: q.mode for name, q in quantizers(prepared).items()} == dict.fromkeys(quantizers(before), "freeze")


def test_the_network_that_comes_back_has_the_metrics_of_its_best_epoch(source, network, pack):
    prepared = prepare_for_qat(source, "per_tensor", CALIBRATE)
    history, _ = run(prepared, pack, network)
    best = max(history, key=lambda row: row["val_ssim"])
    assert not prepared.training
    assert require_state(prepared, "evaluate")
    again = validate(prepared, pack, CPU)
    assert {f"val_{name}": value for name, value in again.items()}.items() <= best.items()


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize(
    ("start", "finished"),
    [
        ("cold", 0),
        ("cold", 1),
        ("cold", 2),
        ("cold", 3),
        ("calibrated", 1),
        ("calibrated", 3),
        ("learned", 2),
        ("cold learned", 2),
    ],
)
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(network, pack, tmp_path, finished, start):
    # Activations freeze in the second epoch and all the rest in the third.
    spec = QatSpec(epochs=4, batch_size=4, travel=2.0, freeze_ranges_after=0.34, freeze_bn_after=0.67)
    spec = replace(spec, learned_scales="learned" in start)

    def fresh():
        return prepare_for_qat(network, "per_channel", CALIBRATE) if "cold" in start else warm(network, pack)

    def kill(info):
        if info["epoch"] == finished + 1 and info.get("step") == 2:
            raise Killed

    whole, resumed = fresh(), fresh()
    expected, _ = run(whole, pack, network, spec)
    with pytest.raises(Killed):
        run(resumed, pack, network, spec, scratch=tmp_path, progress=kill)
    resumed, epochs = fresh(), set()
    history, _ = run(resumed, pack, network, spec, scratch=tmp_path, progress=lambda info: epochs.add(info["epoch"]))
    assert min(epochs) == finished + 1, "finished epochs are not done again"
    assert history == expected
    assert same_tensors(whole.state_dict(), resumed.state_dict())


def test_a_training_that_began_when_a_mode_had_another_name_is_resumed(network, pack, tmp_path):
    spec = QatSpec(epochs=3, batch_size=4, travel=2.0, freeze_ranges_after=1.0)

    def fresh():
        return prepare_for_qat(network, "per_channel", CALIBRATE)

    def kill(info):
        if info["epoch"] == 2:
            raise Killed

    whole, resumed = fresh(), fresh()
    expected, _ = run(whole, pack, network, spec)
    with pytest.raises(Killed):
        run(fresh(), pack, network, spec, scratch=tmp_path, progress=kill)
    state = torch.load(tmp_path / "epoch.pt", weights_only=True)
    assert "moving_average" in state["modes"].values()
    former = {name: "follow" if mode == "moving_average" else mode for name, mode in state["modes"].items()}
    torch.save(state | {"modes": former}, tmp_path / "epoch.pt")
    assert run(resumed, pack, network, spec, scratch=tmp_path)[0] == expected
    assert same_tensors(whole.state_dict(), resumed.state_dict())


def test_a_finished_training_that_is_asked_for_again_is_only_read(network, pack, tmp_path):
    first, again = (prepare_for_qat(network, "per_channel", CALIBRATE) for _ in range(2))
    spec = QatSpec(epochs=1, batch_size=8)
    expected, _ = run(first, pack, network, spec, scratch=tmp_path)
    seen = []
    assert run(again, pack, network, spec, scratch=tmp_path, progress=seen.append)[0] == expected
    assert not seen
    assert same_tensors(first.state_dict(), again.state_dict())


def test_one_seed_gives_one_network_and_another_another(network, pack):
    spec = QatSpec(epochs=1, batch_size=4, travel=2.0)
    results = []
    for seed in (3, 3, 4):
        prepared = prepare_for_qat(network, "per_channel", CALIBRATE)
        torch.manual_seed(len(results))
        history, _ = run(prepared, pack, network, spec, seed=seed)
        results.append((history, prepared.state_dict()))
    assert results[0][0] == results[1][0]
    assert same_tensors(results[0][1], results[1][1])
    assert not same_tensors(results[0][1], results[2][1])


@pytest.mark.parametrize("cold", [False, True])
def test_an_epoch_without_room_begins_again_as_it_was_also_behind_the_step_that_froze_batchnorm(network, pack, cold):
    results = []
    for failing in (5, 8):  # the first step of epoch 2, or its last: BatchNorm freezes in its third
        prepared = prepare_for_qat(network, "per_channel", CALIBRATE) if cold else warm(network, pack)
        calls = []

        def no_room(module, args, calls=calls, failing=failing):
            if module.training:
                calls.append(len(args[0]))
                if len(calls) >= failing and len(args[0]) > 2:
                    raise torch.OutOfMemoryError("CUDA out of memory")

        hook = prepared.register_forward_pre_hook(no_room)
        results.append(train(prepared, pack, network))
        hook.remove()
        assert calls[-1] == 2
        assert [row.get("images_at_a_time") for row in results[-1].history] == [None, None, 2, 2]
        results.append(prepared.state_dict())
    assert results[0] == results[2]
    assert results[0].history[2]["bn_live_steps"] == 2
    assert same_tensors(results[1], results[3])


@pytest.mark.parametrize("cold", [False, True])
def test_what_a_step_wants_is_told_of_a_network_in_training_which_stays_as_it_is(network, pack, cold):
    prepared = prepare_for_qat(network, "per_channel", CALIBRATE) if cold else warm(network, pack)
    prepared.train()
    before = {name: value.clone() for name, value in prepared.state_dict().items()}
    assert saved_bytes(prepared, pack.input_shape) > saved_bytes(network, pack.input_shape) > 0
    assert prepared.training
    assert same_tensors(prepared.state_dict(), before)
