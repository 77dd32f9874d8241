"""Noise by depth: each pixel of known depth counts once, in the range that holds its depth."""

import numpy as np
import pytest

from grid.results.noise_by_depth import BINS, depth_edges, rms_by_depth


def test_ranges_hold_equally_many_pixels_of_known_depth():
    truth = np.random.default_rng(0).gamma(3.0, 1.0, (16, 1, 20, 20))
    truth[:3] = 0.0
    edges = depth_edges(truth)
    counts, _ = np.histogram(truth[truth > 0], edges)
    assert len(edges) == BINS + 1
    assert counts.sum() == 13 * 400
    assert counts.min() > 0.95 * counts.max()


def test_the_rms_of_all_ranges_together_is_that_of_all_known_pixels():
    draw = np.random.default_rng(1)
    truth, noise = draw.uniform(0.5, 9.0, (4, 1, 8, 8)), draw.normal(0, 0.03, (4, 1, 8, 8))
    truth[0, 0, :2] = 0.0
    edges = depth_edges(truth)
    counts, _ = np.histogram(truth[truth > 0], edges)
    rms = rms_by_depth(noise, truth, edges)
    whole = np.sqrt(np.mean(noise[truth > 0] ** 2))
    assert np.sqrt((counts * rms**2).sum() / counts.sum()) == pytest.approx(whole)


def test_noise_far_away_is_found_far_away():
    truth = np.repeat([1.0, 2.0, 8.0], 100)
    noise = np.where(truth > 5, 0.5, 0.01)
    edges = np.array([0.5, 3.0, 8.0])
    assert rms_by_depth(noise, truth, edges) == pytest.approx([0.01, 0.5]), "the last edge is in the last range"


def test_where_no_depth_is_known_there_are_no_ranges_and_one_depth_alone_is_none():
    assert len(depth_edges(np.zeros((2, 1, 4, 4)))) == 0
    assert len(depth_edges(np.full((2, 1, 4, 4), 3.0))) == 1
