"""`refine` against the original's recorded numbers and mean field by definition; its properties."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.crf_scene import at_recorded_places, lattice_matrix, recorded_scene, scene, two_kernels
from helpers.papers import number
from pixelwise.crf import (
    NORMALIZATIONS,
    PRESETS,
    Kernel,
    Parameters,
    appearance_features,
    lattice,
    meanfield,
    reference,
    refine,
    refine_each,
)
from pixelwise.errors import ConfigError

# Both kernels reach over several pixels and colors of `scene`.
SMALL = Parameters(w1=4, theta_alpha=12, theta_beta=20, w2=3, theta_gamma=2, iterations=3)
RECORDED = {
    "symmetric": "pydensecrf C++ SYMMETRIC",
    "after": "pydensecrf C++ AFTER",
    "before": "pydensecrf C++ BEFORE",
    "none": "pydensecrf C++ NO_NORMALIZATION",
}


# The recorded numbers.


def test_marginals_are_the_originals() -> None:
    image, probs = recorded_scene()
    parameters = PRESETS["pydensecrf"]
    for normalization in NORMALIZATIONS:
        one_step = replace(parameters, iterations=1, normalization=normalization)
        expected = number(RECORDED[normalization], "Q at (0,0),(3,2),(7,5) after 1 iteration(s)")
        np.testing.assert_allclose(at_recorded_places(refine(image, probs, one_step)), expected, atol=6e-6)
    expected = number(RECORDED["symmetric"], "Q at (0,0),(3,2),(7,5) after 5 iteration(s)")
    np.testing.assert_allclose(at_recorded_places(refine(image, probs, "pydensecrf")), expected, atol=6e-6)


def test_presets_are_the_scripts() -> None:
    def values(name: str) -> dict[str, float]:
        p = PRESETS[name]
        return {
            "iter": p.iterations,
            "pos_w": p.w2,
            "pos_xy": p.theta_gamma,
            "bi_w": p.w1,
            "bi_xy": p.theta_alpha,
            "bi_rgb": p.theta_beta,
        }

    assert values("deeplabv1") == number("DeepLab run_densecrf", "parameters")
    assert values("deeplabv2") == number("DeepLab v2 ResNet-101 (kazuto1011)", "parameters")
    assert values("pydensecrf") == number("pydensecrf example", "parameters")
    assert list(values("deconvnet").values()) == [10, 3, 3, 5, 20, 3]


# Against the definition.


def test_mean_field_is_the_definition_on_the_lattice() -> None:
    image, probs = scene(1, (7, 9))
    for normalization in NORMALIZATIONS:
        parameters = replace(SMALL, normalization=normalization)
        kernels = two_kernels(image, parameters)
        expected = reference.mean_field(probs, kernels, iterations=3, gaussian=lattice_matrix)
        np.testing.assert_allclose(refine(image, probs, parameters), expected, atol=2e-4)


@pytest.mark.parametrize("iterations", [1, 5])
def test_the_lattice_comes_close_to_all_pairs(iterations: int) -> None:
    image, probs = scene(2, (20, 30), 3)
    parameters = replace(SMALL, theta_gamma=3, iterations=iterations)
    exact = reference.mean_field(probs, two_kernels(image, parameters), iterations=iterations)
    found = refine(image, probs, parameters)
    assert float(np.abs(found - exact).mean()) < 0.02
    assert float((found.argmax(0) == exact.argmax(0)).mean()) > 0.97


def test_any_compatibility_and_any_kernel() -> None:
    image, probs = scene(3, (6, 8), 3)
    rng = np.random.default_rng(0)
    mu, own = rng.normal(size=(2, 3, 3))
    depth = rng.random((6, 8, 2))
    parameters = replace(SMALL, iterations=2)
    kernels = [
        *two_kernels(image, parameters),
        Kernel(appearance_features(depth, 5, (0.3, 0.5)), 2, compatibility=own, normalization="after"),
        Kernel(rng.normal(size=(48, 4)), 0.5, normalization="before"),
        Kernel(rng.normal(size=(48, 1)), 0.1, normalization="none"),
    ]
    expected = reference.mean_field(probs, kernels, iterations=2, compatibility=mu, gaussian=lattice_matrix)
    found = refine(image, probs, parameters, compatibility=mu, kernels=kernels[2:])
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1)])
def test_the_smallest_images(size: tuple[int, int]) -> None:
    image, probs = scene(10, size, 2)
    kernels = two_kernels(image, PRESETS["deeplabv2"])
    expected = reference.mean_field(probs, kernels, iterations=10, gaussian=lattice_matrix)
    np.testing.assert_allclose(refine(image, probs), expected, atol=1e-4)


# Properties.


@given(
    st.integers(0, 9999), st.integers(1, 9), st.integers(1, 12), st.integers(1, 18), st.sampled_from(sorted(PRESETS))
)
@settings(max_examples=25, deadline=None)
def test_probabilities_stay_probabilities(seed: int, height: int, width: int, num_classes: int, preset: str) -> None:
    image, probs = scene(seed, (height, width), num_classes)
    refined = refine(image, probs, preset)
    assert refined.shape == probs.shape
    assert refined.dtype == np.float32
    assert refined.min() >= 0
    np.testing.assert_allclose(refined.sum(0), 1, atol=1e-5)


@given(st.integers(0, 9999))
@settings(max_examples=10, deadline=None)
def test_classes_have_no_order(seed: int) -> None:
    image, probs = scene(seed, (9, 11), 11)
    order = np.random.default_rng(seed).permutation(11)
    np.testing.assert_allclose(refine(image, probs[order]), refine(image, probs)[order], atol=1e-4)


def test_without_messages_nothing_changes() -> None:
    image, probs = scene(4, (8, 8))
    for parameters in (Parameters(iterations=0), Parameters(w1=0, w2=0)):
        np.testing.assert_allclose(refine(image, probs, parameters), probs, atol=1e-4)
    tiny = refine(image, probs, Parameters(w1=1e-6, w2=1e-6))
    assert 0 < float(np.abs(tiny - probs / probs.sum(0)).max()) < 1e-5
    even = np.full((3, 8, 8), 1 / 3)
    np.testing.assert_allclose(refine(image, even), even, atol=1e-6)
    image, probs = scene(11, (4, 5), 1)
    np.testing.assert_array_equal(refine(image, probs), np.ones((1, 4, 5)))


def test_a_certain_pixel_is_outvoted_by_its_equals() -> None:
    probs = np.zeros((2, 9, 9))
    probs[0] = 1
    probs[:, 4, 4] = 0.02, 0.98
    assert refine(np.full((9, 9, 3), 7, np.uint8), probs).argmax(0).sum() == 0


def test_an_edge_of_the_image_stops_the_smoothing() -> None:
    image = np.zeros((20, 20, 3), np.uint8)
    image[:, 10:] = 255
    guess = np.full((20, 20), 0.45)
    guess[:, 12:] = 0.55  # the classifier's edge is off by two columns
    parameters = Parameters(w1=10, theta_alpha=10, theta_beta=13, w2=0)
    refined = refine(image, np.stack([1 - guess, guess]), parameters).argmax(0)
    np.testing.assert_array_equal(refined, np.arange(20)[None].repeat(20, 0) >= 10)


def test_potts_is_a_matrix_like_any() -> None:
    image, probs = scene(5, (12, 10), 9)
    potts = refine(image, probs)
    np.testing.assert_allclose(refine(image, probs, compatibility=1 - np.eye(9)), potts, atol=1e-4)
    np.testing.assert_allclose(refine(image, probs, compatibility=-np.eye(9)), potts, atol=1e-4)


def test_the_paper_kernels_are_kernels_like_any() -> None:
    image, probs = scene(6, (12, 10))
    parameters = PRESETS["deeplabv2"]
    nothing = Parameters(w1=0, w2=0, iterations=parameters.iterations)
    found = refine(image, probs, nothing, kernels=two_kernels(image, parameters))
    np.testing.assert_array_equal(found, refine(image, probs, parameters))


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meanfield, "TILE", (8, 8))
    monkeypatch.setattr(lattice, "MERGE_CHUNK", 50)
    image, probs = scene(7, (20, 23), 10)
    alone = refine(image, probs, threads=1)
    for threads in (2, 5):
        np.testing.assert_array_equal(refine(image, probs, threads=threads), alone)


@pytest.mark.parametrize("tile", [(1, 1), (7, 13), (40, 2)])
def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch, tile: tuple[int, int]) -> None:
    image, probs = scene(8, (30, 41), 3)
    whole = refine(image, probs)
    monkeypatch.setattr(meanfield, "TILE", tile)
    np.testing.assert_allclose(refine(image, probs), whole, atol=1e-5)


def test_several_settings_share_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    build = lattice.Lattice

    def counting(*args: Any, **options: Any) -> lattice.Lattice:
        built.append(args)
        return build(*args, **options)

    monkeypatch.setattr(meanfield, "Lattice", counting)
    image, probs = scene(9, (14, 19))
    first = Parameters(w1=4, theta_alpha=20, theta_beta=9, iterations=2)
    several: list[Parameters | str] = [
        first,
        replace(first, w1=9, w2=1),
        replace(first, normalization="after"),
        first,
        replace(first, iterations=0),
        replace(first, iterations=5),
        replace(first, w2=0),
        replace(first, theta_beta=5, normalization="before"),
        "deeplabv1",
    ]
    together = list(refine_each(image, probs, several))
    assert len(built) == 6
    for parameters, found in zip(several, together, strict=True):
        np.testing.assert_array_equal(found, refine(image, probs, parameters))


def test_callers_may_run_side_by_side() -> None:
    scenes = [scene(seed, (15, 17)) for seed in range(6)]
    alone = [refine(*each) for each in scenes]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda each: refine(*each, threads=2), scenes))
    np.testing.assert_array_equal(together, alone)


def test_any_float_and_any_memory_layout() -> None:
    image, probs = scene(9, (10, 12))
    expected = refine(image, probs)
    flipped = image[:, ::-1].copy()[:, ::-1]
    for dtype, tolerance in ((np.float16, 0.05), (np.float32, 1e-5), (np.float64, 1e-5)):
        turned = probs.astype(dtype).transpose(1, 2, 0).copy().transpose(2, 0, 1)
        turned.flags.writeable = False
        np.testing.assert_allclose(refine(flipped, turned), expected, atol=tolerance)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(ConfigError) as caught:
        Parameters(w1=4, theta_alpha="x" * 5000, theta_beta=9)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 250
