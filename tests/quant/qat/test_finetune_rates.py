"""How long and how fast a training goes."""

import math

import pytest

from quant.qat import finetune as qat
from quant.qat.schedule import learning_rates
from quant.recipe import QatSpec
from tests.quant.qat.training import run, warm


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
@pytest.mark.parametrize("total", [1, 7, 32, 1000])
def test_the_rates_add_up_to_the_travel_however_many_steps_there_are(schedule, total):
    rates = learning_rates(QatSpec(travel=3.0, schedule=schedule), total)
    assert len(rates) == total
    assert sum(rates) == pytest.approx(3.0)


def test_the_learning_rate_rises_and_falls_along_a_cosine_to_a_hundredth(network, pack):
    rates = learning_rates(QatSpec(travel=1.0), 100)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[50] / rates[10] == pytest.approx(0.505 / (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi / 10))))
    assert rates[-1] < 0.011 * max(rates)
    history, _ = run(warm(network, pack), pack, network, QatSpec(epochs=4, batch_size=4, travel=1.0))
    assert [row["learning_rate"] for row in history[1:]] == learning_rates(QatSpec(travel=1.0), 16)[3::4]


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
    spec = QatSpec(epochs=7, batch_size=8, travel=1.35, schedule="plateau")
    history, _ = run(warm(network, pack), pack, network, spec)
    assert [row["learning_rate"] for row in history[1:]] == pytest.approx([0.1] * 4 + [0.03] * 3)
