"""How long and how fast a training goes."""

import math

import pytest

from quant.qat import finetune as qat
from quant.recipe import QatSpec
from tests.quant.qat.training import run, warm


def test_the_learning_rate_falls_along_a_cosine_to_a_hundredth(network, pack):
    prepared = warm(network, pack)
    history, _ = run(prepared, pack, network, QatSpec(epochs=4, batch_size=4, learning_rate=1e-3))
    rates = [row["learning_rate"] for row in history[1:]]
    assert rates == sorted(rates, reverse=True)
    assert rates[1] == pytest.approx(1e-3 * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * 7 / 16))))
    assert 1e-5 < rates[-1] < 3e-5


def test_images_per_epoch_limits_the_steps(network, pack):
    seen = []
    run(warm(network, pack), pack, network, QatSpec(epochs=1, batch_size=4, images_per_epoch=8), progress=seen.append)
    assert [info["step"] for info in seen if "step" in info] == [1, 2]
    assert seen[0].items() >= {"epoch": 0, "epochs": 1}.items()
    assert "val_ssim" in seen[0]
    assert seen[1].keys() >= {"epoch", "epochs", "step", "steps", "loss"}
    assert seen[-1].keys() >= {"epoch", "epochs", "train_loss", "val_ssim", "val_rmse_m", "learning_rate"}


def test_the_learning_rate_falls_on_a_plateau(network, pack, monkeypatch):
    scores = iter([0.1, 0.2, 0.2, 0.2, 0.2, 0.1, 0.3, 0.3])
    monkeypatch.setattr(qat, "validate", lambda *_: {"ssim": next(scores)})
    spec = QatSpec(epochs=7, batch_size=8, learning_rate=1e-3, schedule="plateau")
    history, _ = run(warm(network, pack), pack, network, spec)
    assert [row["learning_rate"] for row in history[1:]] == pytest.approx([1e-3] * 4 + [3e-4] * 3)
