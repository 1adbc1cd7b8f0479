"""The fully connected CRF against the original's recorded numbers and mean field over all pairs; its properties; its threads."""

from __future__ import annotations

import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.crf_scene import Array, scene
from helpers.papers import number
from pixelwise.crf import (
    NORMALIZATIONS,
    PRESETS,
    Kernel,
    Parameters,
    appearance_features,
    meanfield,
    position_features,
    refine,
    refine_each,
)
from pixelwise.crf import lattice as lattices
from pixelwise.crf.compiled import Workers, available_threads, compiled
from pixelwise.crf.lattice import Lattice

# The grid of the recorded numbers: 8 wide, 6 high.
SIZE = (6, 8)
PLACES = [(0, 0), (2, 3), (5, 7)]
TOY = Parameters(w1=10, theta_alpha=80, theta_beta=13, w2=3, theta_gamma=3, iterations=1)
RECORDED = {
    "symmetric": "pydensecrf C++ SYMMETRIC",
    "after": "pydensecrf C++ AFTER",
    "before": "pydensecrf C++ BEFORE",
    "none": "pydensecrf C++ NO_NORMALIZATION",
}
ONE_STEP = "Q at (0,0),(3,2),(7,5) after 1 iteration(s)"
FIVE_STEPS = "Q at (0,0),(3,2),(7,5) after 5 iteration(s)"


def toy() -> tuple[Array, Array]:
    """The image and the probabilities of the recorded numbers."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    image = np.stack([(31 * x + 17 * y + 53 * c) % 256 for c in range(3)], 2).astype(np.uint8)
    probs = np.stack([1.0 + (x + 2 * y + 3 * k) % 5 for k in range(3)])
    return image, probs / probs.sum(0)


def at_places(q: Array) -> Array:
    return np.stack([q[:, row, column] for row, column in PLACES])


def gaussian(features: Array) -> Array:
    """(N, N) kernel by definition, float64."""
    f = features.astype(np.float64)
    return np.exp(-((f[:, None] - f[None]) ** 2).sum(2) / 2)


def brute_force(
    probs: Array, kernels: list[Kernel], iterations: int, filters: list[Array], mu: Array | None = None
) -> Array:
    """Mean field by definition with matrices (N, N) as filters, float64."""
    unary = np.log(np.maximum(probs.reshape(len(probs), -1).astype(np.float64), 1e-5))
    q = np.exp(unary) / np.exp(unary).sum(0)
    for _ in range(iterations):
        scores = unary.copy()
        for kernel, matrix in zip(kernels, filters, strict=True):
            n = matrix.sum(1)
            before, after = {
                "symmetric": (n**-0.5, n**-0.5),
                "after": (np.ones_like(n), 1 / n),
                "before": (1 / n, np.ones_like(n)),
                "none": (np.ones_like(n), np.ones_like(n)),
            }[kernel.normalization]
            own = kernel.compatibility if kernel.compatibility is not None else mu
            penalty = 1 - np.eye(len(q)) if own is None else own
            scores -= kernel.weight * penalty @ (after * ((q * before) @ matrix.T))
        q = np.exp(scores - scores.max(0))
        q /= q.sum(0)
    return q.reshape(probs.shape)


def paper_kernels(image: Array, parameters: Parameters) -> list[Kernel]:
    smoothness = position_features(image.shape[:2], parameters.theta_gamma)
    appearance = appearance_features(image, parameters.theta_alpha, parameters.theta_beta)
    normalization = parameters.normalization
    return [
        Kernel(smoothness, parameters.w2, normalization=normalization),
        Kernel(appearance, parameters.w1, normalization=normalization),
    ]


def as_matrix(features: Array) -> Array:
    """(N, N): what the lattice does, column by column of the identity."""
    return Lattice([features]).filter(np.eye(len(features))).T.astype(np.float64)


# The recorded numbers.


def test_the_exact_gaussian_is_the_recorded_one() -> None:
    sums = gaussian(position_features(SIZE, 2)).sum(1).reshape(SIZE)
    corner, inner, edge, total = number("exact Gaussian", "K1 of ones")
    assert [sums[0, 0], sums[2, 3], sums[3, 0], sums.sum()] == pytest.approx([corner, inner, edge, total], abs=1e-5)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_one_step_is_the_originals(normalization: str) -> None:
    image, probs = toy()
    parameters = Parameters(10, 80, 13, 3, 3, iterations=1, normalization=normalization)
    found = at_places(refine(image, probs, parameters))
    np.testing.assert_allclose(found, number(RECORDED[normalization], ONE_STEP), atol=6e-6)


def test_five_steps_are_the_originals() -> None:
    image, probs = toy()
    np.testing.assert_allclose(
        at_places(refine(image, probs, "pydensecrf")), number(RECORDED["symmetric"], FIVE_STEPS), atol=6e-6
    )


@pytest.mark.parametrize(("iterations", "recorded"), [(1, ONE_STEP), (5, FIVE_STEPS)])
def test_brute_force_is_the_recorded_exact_mean_field(iterations: int, recorded: str) -> None:
    image, probs = toy()
    kernels = paper_kernels(image, TOY)
    exact = brute_force(probs, kernels, iterations, [gaussian(kernel.features) for kernel in kernels])
    np.testing.assert_allclose(
        at_places(exact), number("exact (brute-force) mean field symmetric", recorded), atol=6e-6
    )


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


# Against plain definitions.


def test_mean_field_is_the_definition_on_the_lattice() -> None:
    image, probs = scene(1, (7, 9))
    for normalization in NORMALIZATIONS:
        parameters = Parameters(4, 12, 20, 3, 2, iterations=3, normalization=normalization)
        kernels = paper_kernels(image, parameters)
        expected = brute_force(probs, kernels, 3, [as_matrix(kernel.features) for kernel in kernels])
        np.testing.assert_allclose(refine(image, probs, parameters), expected, atol=2e-4)


@pytest.mark.parametrize("iterations", [1, 5])
def test_the_lattice_comes_close_to_all_pairs(iterations: int) -> None:
    image, probs = scene(2, (20, 30), 3)
    parameters = Parameters(4, 12, 20, 3, 3, iterations=iterations)
    kernels = paper_kernels(image, parameters)
    exact = brute_force(probs, kernels, iterations, [gaussian(kernel.features) for kernel in kernels])
    found = refine(image, probs, parameters)
    assert float(np.abs(found - exact).mean()) < 0.02
    assert float((found.argmax(0) == exact.argmax(0)).mean()) > 0.97


def test_any_compatibility_and_any_kernel() -> None:
    image, probs = scene(3, (6, 8), 3)
    rng = np.random.default_rng(0)
    mu, own = rng.normal(size=(2, 3, 3))
    depth = rng.random((6, 8, 2))
    kernels = [
        *paper_kernels(image, Parameters(4, 12, 20, 3, 2)),
        Kernel(appearance_features(depth, 5, (0.3, 0.5)), 2, own, "after"),
        Kernel(rng.normal(size=(48, 4)), 0.5, normalization="before"),
        Kernel(rng.normal(size=(48, 1)), 0.1, normalization="none"),
    ]
    expected = brute_force(probs, kernels, 2, [as_matrix(kernel.features) for kernel in kernels], mu)
    found = refine(image, probs, Parameters(4, 12, 20, 3, 2, iterations=2), compatibility=mu, kernels=kernels[2:])
    np.testing.assert_allclose(found, expected, atol=2e-4)


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


def test_nothing_to_say_changes_nothing() -> None:
    image, probs = scene(4, (8, 8))
    for parameters in (Parameters(iterations=0), Parameters(w1=0, w2=0)):
        np.testing.assert_allclose(refine(image, probs, parameters), probs, atol=1e-4)
    even = np.full((3, 8, 8), 1 / 3)
    np.testing.assert_allclose(refine(image, even), even, atol=1e-6)


def test_a_sure_pixel_is_outvoted_by_its_equals() -> None:
    probs = np.zeros((2, 9, 9))
    probs[0] = 1
    probs[:, 4, 4] = 0.02, 0.98
    assert refine(np.full((9, 9, 3), 7, np.uint8), probs).argmax(0).sum() == 0


def test_an_edge_of_the_image_stops_the_smoothing() -> None:
    image = np.zeros((20, 20, 3), np.uint8)
    image[:, 10:] = 255
    guess = np.full((20, 20), 0.45)
    guess[:, 12:] = 0.55  # the classifier's edge is off by two columns
    refined = refine(
        image, np.stack([1 - guess, guess]), Parameters(w1=10, theta_alpha=10, theta_beta=13, w2=0)
    ).argmax(0)
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
    found = refine(image, probs, nothing, kernels=paper_kernels(image, parameters))
    np.testing.assert_array_equal(found, refine(image, probs, parameters))


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(meanfield, "_TILE", (8, 8))
    monkeypatch.setattr(lattices, "_CHUNK", 50)
    image, probs = scene(7, (20, 23), 10)
    np.testing.assert_array_equal(refine(image, probs, threads=threads), refine(image, probs, threads=1))


@pytest.mark.parametrize("tile", [(1, 1), (7, 13), (40, 2)])
def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch, tile: tuple[int, int]) -> None:
    image, probs = scene(8, (30, 41), 3)
    whole = refine(image, probs)
    monkeypatch.setattr(meanfield, "_TILE", tile)
    np.testing.assert_allclose(refine(image, probs), whole, atol=1e-5)


def test_several_settings_share_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    lattice = meanfield.Lattice
    monkeypatch.setattr(meanfield, "Lattice", lambda *args: built.append(args) or lattice(*args))
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


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_any_float_and_any_memory_layout(dtype: Any) -> None:
    image, probs = scene(9, (10, 12))
    expected = refine(image, probs)
    turned = np.asarray(probs, dtype).transpose(1, 2, 0).copy().transpose(2, 0, 1)
    turned.flags.writeable = False
    flipped = image[:, ::-1].copy()[:, ::-1]
    np.testing.assert_allclose(refine(flipped, turned), expected, atol=0.05 if dtype == np.float16 else 1e-5)


# The small.


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1)])
def test_the_smallest_images(size: tuple[int, int]) -> None:
    image, probs = scene(10, size, 2)
    kernels = paper_kernels(image, PRESETS["deeplabv2"])
    expected = brute_force(probs, kernels, 10, [as_matrix(kernel.features) for kernel in kernels])
    np.testing.assert_allclose(refine(image, probs), expected, atol=1e-4)


def test_one_class_is_certain() -> None:
    image, probs = scene(11, (4, 5), 1)
    np.testing.assert_array_equal(refine(image, probs), np.ones((1, 4, 5)))


# The engine.


def test_numba_is_imported_by_who_refines_only() -> None:
    program = "import sys, pixelwise.crf, pixelwise.cli; pixelwise.cli.main(['--help']); print('numba' in sys.modules)"
    child = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert child.stdout.splitlines()[-1] == "False"


def test_without_a_folder_for_compiled_code_it_is_compiled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def without_cache(**options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", without_cache)
    assert compiled(lambda x: x + 1)(1) == 2


@pytest.mark.parametrize(("value", "threads"), [("3", 3), ("", 7), ("0", 7), ("many", 7)])
def test_threads_follow_the_environment_then_the_cores(
    monkeypatch: pytest.MonkeyPatch, value: str, threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(7), raising=False)
    assert available_threads() == threads


def test_a_worker_s_error_reaches_the_caller() -> None:
    with Workers(3) as workers:
        assert workers.run(lambda x: x * x, [(n,) for n in range(9)]) == [n * n for n in range(9)]
        with pytest.raises(ZeroDivisionError):
            workers.run(lambda x: 1 / x, itertools.repeat((0,), 3))
