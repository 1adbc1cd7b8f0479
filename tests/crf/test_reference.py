"""The CRF by definition against recorded numbers."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.crf_scene import RECORDED_SIZE, at_recorded_places, recorded_scene, two_kernels
from helpers.papers import number
from pixelwise.crf import Parameters, position_features
from pixelwise.crf.reference import gaussian, mean_field


def test_the_gaussian_is_the_recorded_one() -> None:
    sums = gaussian(position_features(RECORDED_SIZE, 2)).sum(1).reshape(RECORDED_SIZE)
    corner, inner, edge, total = number("exact Gaussian", "K1 of ones")
    assert [sums[0, 0], sums[2, 3], sums[3, 0], sums.sum()] == pytest.approx([corner, inner, edge, total], abs=1e-5)


@pytest.mark.parametrize(("normalization", "iterations"), [("symmetric", 1), ("symmetric", 5), ("after", 1)])
def test_mean_field_is_the_recorded_one(normalization: str, iterations: int) -> None:
    image, probs = recorded_scene()
    parameters = Parameters(w1=10, theta_alpha=80, theta_beta=13, w2=3, theta_gamma=3, normalization=normalization)
    exact = mean_field(probs, two_kernels(image, parameters), iterations=iterations)
    recorded = number(
        f"exact (brute-force) mean field {normalization}", f"Q at (0,0),(3,2),(7,5) after {iterations} iteration(s)"
    )
    np.testing.assert_allclose(at_recorded_places(exact), recorded, atol=6e-6)
