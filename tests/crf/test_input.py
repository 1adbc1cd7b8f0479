"""The CRF's arguments: anything that numpy makes an array of is taken, and invalid ones are named with their fix."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.crf_scene import Array, scene
from pixelwise.crf import Kernel, Parameters, appearance_features, position_features, refine, refine_each
from pixelwise.errors import ConfigError, ImageError, UnknownNameError

IMAGE, PROBS = scene(12, (4, 5), 3)


def with_value(probs: Array, value: float) -> Array:
    spoilt = probs.copy()
    spoilt[0, 1, 2] = value
    return spoilt


IMAGES: list[tuple[str, type[Exception], Any, str]] = [
    ("float", ImageError, IMAGE / 255, r"got float64 of shape \(4, 5, 3\)"),
    ("gray", ImageError, IMAGE[..., 0], r"\(4, 5\)"),
    ("with alpha", ImageError, np.dstack([IMAGE, IMAGE[..., :1]]), r"\(4, 5, 4\)"),
    ("no pixel", ImageError, IMAGE[:0], "0x5"),
    ("ragged", ConfigError, [[[1, 2, 3]], [[1, 2, 3], [4, 5, 6]]], "crf image: cannot be converted to an array"),
]
PROBABILITIES: list[tuple[str, Any, str]] = [
    ("other size", PROBS[:, :3], r"expected shape \(classes, 4, 5\), got \(3, 3, 5\)"),
    ("classes last", PROBS.transpose(1, 2, 0), "classes first"),
    ("no class", PROBS[:0], r"\(0, 4, 5\)"),
    ("gradients", torch.from_numpy(PROBS).requires_grad_(), "crf probabilities: cannot be converted to an array"),
    ("labels", PROBS.argmax(0)[None], "expected floats in 0..1, got int64"),
    ("scores", np.log(PROBS), "apply a softmax"),
    ("sum", with_value(PROBS, 0.99 + PROBS[0, 1, 2]), "must sum to 1, got 1.99 at row 1, column 2"),
    ("negative", with_value(PROBS, -0.5), r"contain negative values \(min -0.5\)"),
    ("NaN", with_value(PROBS, np.nan), "NaN or infinity at 1 px"),
    ("infinite", with_value(PROBS, np.inf), "NaN or infinity at 1 px"),
]
OPTIONS: list[tuple[str, type[Exception], dict[str, Any], str]] = [
    ("matrix shape", ConfigError, {"compatibility": np.ones((2, 3))}, r"expected shape \(3, 3\), got \(2, 3\)"),
    ("matrix NaN", ConfigError, {"compatibility": np.full((3, 3), np.nan)}, "got nan at row 0, column 0"),
    ("complex matrix", ConfigError, {"compatibility": np.eye(3) * 1j}, "got complex128"),
    ("one kernel", ConfigError, {"kernels": Kernel(np.ones((20, 1)))}, "expected a sequence of Kernel, got Kernel"),
    ("no kernel", ConfigError, {"kernels": [np.ones((20, 1))]}, "got list of ndarray; fix: write kernels="),
    ("threads as text", ConfigError, {"threads": "2"}, "must be an integer >= 1, got '2'"),
    ("no threads", ConfigError, {"threads": 0}, "got 0"),
    ("no parameters", ConfigError, {"parameters": None}, "got NoneType"),
    ("dict", ConfigError, {"parameters": {"w1": 3}}, "got dict"),
    ("unknown preset", UnknownNameError, {"parameters": "deeplab2"}, "deeplabv2"),
    ("own matrix", ConfigError, {"kernels": [Kernel(np.ones((20, 1)), compatibility=np.ones(3))]}, r"\(3,\)"),
    ("too few rows", ConfigError, {"kernels": [Kernel(np.ones((19, 1)))]}, r"\(20, features\), got \(19, 1\)"),
    ("no features", ConfigError, {"kernels": [Kernel(np.ones((20, 0)))]}, r"\(20, 0\)"),
    ("feature NaN", ConfigError, {"kernels": [Kernel(np.full((20, 2), np.nan))]}, "NaN or infinity"),
    ("far features", ConfigError, {"kernels": [Kernel(np.full((20, 2), 1e9))]}, r"at most 131072 .* got 1e\+09"),
]
CALLS: list[tuple[Callable[[], object], str]] = [
    (lambda: Parameters(theta_beta=0.0), "crf theta_beta: must be > 0, got 0"),
    (lambda: Parameters(w1=-1.0), "crf w1: must be >= 0, got -1"),
    (lambda: Parameters(w2="3"), "crf w2: must be >= 0, got '3'"),  # type: ignore[arg-type]
    (lambda: Parameters(theta_gamma=float("nan")), "theta_gamma: must be > 0, got nan"),
    (lambda: Parameters(iterations=2.5), "expected an integer, got 2.5"),  # type: ignore[arg-type]
    (lambda: Parameters(iterations=-1), "iterations: must be >= 0, got -1"),
    (lambda: Parameters(normalization="symetric"), "symmetric"),
    (lambda: Parameters(normalization=None), "no such CRF normalization"),  # type: ignore[arg-type]
    (lambda: Kernel(np.ones((3, 1)), float("nan")), "expected a finite number, got nan"),
    (lambda: Kernel(np.ones((3, 1)), "1"), "expected a finite number, got '1'"),  # type: ignore[arg-type]
    (lambda: Kernel(np.ones((3, 1)), normalization="afters"), "after"),
    (lambda: Kernel(["a", "b"]), "crf features: expected real numbers, got <U1"),  # type: ignore[arg-type]
    (lambda: position_features((3, 4), 0), "crf theta: must be > 0, got 0"),
    (lambda: appearance_features(IMAGE, -3, 1), "crf theta: must be > 0, got -3"),
    (lambda: appearance_features(IMAGE, 3, [1, 2]), r"expected 1 or 3 \(the image's values per pixel\), got 2"),
    (lambda: appearance_features(IMAGE[0, 0], 3, 1), r"got \(3,\)"),
    (lambda: refine_each(IMAGE, PROBS, "deeplabv1"), "expected a list of settings, got 'deeplabv1'"),
]


def assert_refused(name: str, call: Callable[[], object], says: str) -> type[BaseException]:
    """Return the class of the error that a call raises; its message matches and names a fix."""
    with pytest.raises((ConfigError, ImageError, UnknownNameError)) as raised:
        call()
    assert re.search(says, str(raised.value)), f"{name}: {raised.value}"
    assert "; fix: " in str(raised.value), f"{name}: {raised.value}"
    return raised.type


def test_invalid_images_are_named() -> None:
    for name, error, image, says in IMAGES:
        found = assert_refused(name, partial(refine, image, PROBS[:, : len(image)]), says)
        assert found is error, name


def test_invalid_probabilities_are_named() -> None:
    for name, probs, says in PROBABILITIES:
        assert assert_refused(name, partial(refine, IMAGE, probs), says) is ConfigError, name


def test_invalid_options_are_named() -> None:
    for name, error, options, says in OPTIONS:
        found = assert_refused(name, partial(refine, IMAGE, PROBS, **options), says)
        assert found is error, name


def test_invalid_parameters_kernels_and_features_are_named() -> None:
    assert all(assert_refused(says, call, says) in (ConfigError, UnknownNameError) for call, says in CALLS)


def test_whole_iterations_may_be_a_float() -> None:
    assert Parameters(iterations=3.0) == Parameters(iterations=3)  # type: ignore[arg-type]
    image, probs = scene(13, (4, 5))
    parameters = Parameters(iterations=2.0)  # type: ignore[arg-type]
    np.testing.assert_array_equal(refine(image, probs, parameters), refine(image, probs, Parameters(iterations=2)))


def test_images_tensors_and_lists_are_arrays_too() -> None:
    expected = refine(IMAGE, PROBS)
    found = refine(Image.fromarray(IMAGE), torch.from_numpy(PROBS))  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(refine(IMAGE, PROBS.tolist()), expected, atol=1e-5)
    expected = refine(IMAGE, PROBS, kernels=[Kernel(appearance_features(IMAGE, 3, 9))])
    features = appearance_features(IMAGE.tolist(), 3, 9).tolist()
    np.testing.assert_allclose(refine(IMAGE, PROBS, kernels=[Kernel(features)]), expected, atol=1e-5)


def test_a_long_value_is_cut_in_the_error() -> None:
    with pytest.raises(ConfigError, match=r"crf iterations: must be >= 0, got 'x+\.\.\.; fix: see") as caught:
        Parameters(iterations="x" * 5000)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 200
