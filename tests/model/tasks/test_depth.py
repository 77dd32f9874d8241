"""Depth metrics against values worked out by hand."""

import math

import pytest
import torch

from model.noise import noise_mse, sqnr_db
from model.tasks.depth import depth_loss, depth_metrics, image_metrics, ssim

GENERATOR = torch.Generator().manual_seed(0)
TRUTH = torch.rand(3, 1, 16, 16, generator=GENERATOR) * 0.8 + 0.1


def test_a_perfect_prediction_has_perfect_metrics():
    metrics = depth_metrics(TRUTH, TRUTH)
    assert metrics == pytest.approx({"mse": 0.0, "ssim": 1.0, "abs_rel": 0.0, "rmse_m": 0.0, "delta1": 1.0}, abs=1e-6)
    assert float(depth_loss(TRUTH, TRUTH)) == pytest.approx(0.0, abs=1e-6)


def test_metrics_of_a_constant_error_are_those_by_hand():
    truth = torch.full((2, 1, 16, 16), 0.4)
    metrics = depth_metrics(truth + 0.1, truth)
    assert metrics["mse"] == pytest.approx(0.01, rel=1e-4)
    assert metrics["abs_rel"] == pytest.approx(0.25, rel=1e-4)
    assert metrics["rmse_m"] == pytest.approx(1.0, rel=1e-4)
    c1, mean = 0.01**2, (2 * 0.5 * 0.4, 0.5**2 + 0.4**2)
    assert metrics["ssim"] == pytest.approx((mean[0] + c1) / (mean[1] + c1), rel=1e-3)


@pytest.mark.parametrize(("factor", "delta1"), [(1.24, 1.0), (1.26, 0.0), (1 / 1.24, 1.0), (1 / 1.26, 0.0)])
def test_delta1_counts_ratios_below_a_quarter_in_both_directions(factor, delta1):
    truth = torch.full((1, 1, 16, 16), 0.4)
    assert depth_metrics(factor * truth, truth)["delta1"] == delta1


def test_delta1_is_a_fraction_of_pixels():
    truth = torch.full((1, 1, 16, 16), 0.4)
    prediction = truth.clone()
    prediction[..., :4, :] = 0.8
    assert depth_metrics(prediction, truth)["delta1"] == 0.75


def test_pixels_of_unknown_depth_count_in_mse_and_ssim_alone():
    truth, prediction = TRUTH.clone(), TRUTH.clone()
    truth[..., :4, :] = 0.0
    metrics = depth_metrics(prediction, truth)
    assert (metrics["abs_rel"], metrics["rmse_m"], metrics["delta1"]) == (0.0, 0.0, 1.0)
    assert metrics["mse"] > 0.01
    assert all(math.isfinite(value) for value in metrics.values())


def test_predictions_outside_the_range_are_clipped_for_the_metric_errors_and_not_for_mse():
    truth = torch.full((1, 1, 16, 16), 1.0)
    metrics = depth_metrics(truth + 0.5, truth)
    assert (metrics["abs_rel"], metrics["rmse_m"]) == (0.0, 0.0)
    assert metrics["mse"] == pytest.approx(0.25)
    negative = depth_metrics(torch.full_like(truth, -3.0), truth)
    assert negative["rmse_m"] == pytest.approx(9.99, rel=1e-3)
    assert negative["mse"] == pytest.approx(16.0)


def test_metrics_are_means_over_images():
    error = torch.tensor([0.0, 0.1, 0.3]).reshape(3, 1, 1, 1)
    together = depth_metrics(TRUTH + error, TRUTH)
    alone = [depth_metrics(TRUTH[i : i + 1] + error[i], TRUTH[i : i + 1]) for i in range(3)]
    for name in together:
        assert together[name] == pytest.approx(sum(one[name] for one in alone) / 3, rel=1e-4)
    by_image = image_metrics(TRUTH + error, TRUTH)
    assert {name: list(found) for name, found in by_image.items()} == {
        name: pytest.approx([one[name] for one in alone], rel=1e-4) for name in together
    }


def test_an_image_of_unknown_depth_has_no_figures_in_metres_and_is_left_out_of_their_means():
    truth = torch.cat([TRUTH[:1], torch.zeros(1, 1, 16, 16)])
    by_image = image_metrics(truth + 0.1, truth)
    assert by_image["rmse_m"].isnan().tolist() == [False, True]
    assert depth_metrics(truth + 0.1, truth)["rmse_m"] == pytest.approx(float(by_image["rmse_m"][0]))
    assert not by_image["mse"].isnan().any()


def test_the_noise_of_each_image_gives_the_decibels_of_all():
    quantized = TRUTH + torch.tensor([0.0, 0.01, 0.02]).reshape(3, 1, 1, 1)
    by_image = noise_mse(TRUTH, quantized)
    assert by_image.tolist() == pytest.approx([0.0, 1e-4, 4e-4], rel=1e-4)
    decibels = 10 * math.log10(float(TRUTH.double().var(correction=0)) / float(by_image.mean()))
    assert sqnr_db(TRUTH, quantized) == pytest.approx(decibels, abs=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_predictions_that_are_not_finite_are_no_result(bad):
    prediction = TRUTH.clone()
    prediction[0, 0, :2, 0] = bad
    with pytest.raises(FloatingPointError, match="2 predicted values are not finite"):
        depth_metrics(prediction, TRUTH)


def test_worse_predictions_have_worse_metrics():
    noise = torch.randn(TRUTH.shape, generator=GENERATOR)
    little, much = (depth_metrics(TRUTH + scale * noise, TRUTH) for scale in (0.02, 0.2))
    assert little["ssim"] > much["ssim"]
    assert little["delta1"] > much["delta1"]
    assert all(little[name] < much[name] for name in ("mse", "abs_rel", "rmse_m"))


def test_the_loss_is_l1_and_half_of_the_missing_similarity_and_has_a_gradient():
    prediction = (TRUTH + 0.05 * torch.randn(TRUTH.shape, generator=GENERATOR)).requires_grad_()
    loss = depth_loss(prediction, TRUTH)
    expected = (prediction - TRUTH).abs().mean() + 0.5 * (1 - ssim(prediction, TRUTH))
    assert float(loss) == pytest.approx(float(expected))
    loss.backward()
    assert torch.isfinite(prediction.grad).all()
    assert prediction.grad.abs().max() > 0


def test_ssim_measures_structure():
    assert float(ssim(TRUTH, TRUTH)) == pytest.approx(1.0)
    assert float(ssim(TRUTH.flip(-1), TRUTH)) < 0.5
    assert float(ssim(TRUTH, TRUTH.flip(-1))) == pytest.approx(float(ssim(TRUTH.flip(-1), TRUTH)))


@pytest.mark.parametrize("noise_db", [6.0, 30.0, 60.0])
def test_sqnr_is_the_ratio_of_signal_variance_to_noise_power_in_db(noise_db):
    reference = torch.randn(100_000, generator=GENERATOR) + 5.0
    noise = torch.randn(100_000, generator=GENERATOR) * 10 ** (-noise_db / 20)
    assert sqnr_db(reference, reference + noise) == pytest.approx(noise_db, abs=0.1)


def test_sqnr_counts_a_constant_offset_as_noise_and_is_finite_without_any():
    reference = torch.tensor([-1.0, 1.0])
    assert sqnr_db(reference, reference + 0.1) == pytest.approx(20.0, abs=1e-5)
    assert sqnr_db(reference, 2 * reference) == pytest.approx(0.0)
    assert 200 < sqnr_db(reference, reference) < 400
