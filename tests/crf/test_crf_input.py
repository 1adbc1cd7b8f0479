"""What the CRF is handed: anything like an array is taken, and what cannot be right is named with its fix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.crf_scene import Array, scene
from pixelwise.crf import Kernel, Parameters, appearance_features, position_features, refine, refine_each
from pixelwise.errors import ConfigError, ImageError, UnknownNameError


def with_value(probs: Array, value: float) -> Array:
    spoilt = probs.copy()
    spoilt[0, 1, 2] = value
    return spoilt


IMAGE, PROBS = scene(12, (4, 5), 3)
WRONG: list[tuple[str, type[Exception], Any, Any, dict[str, Any], str]] = [
    ("float image", ImageError, IMAGE / 255, PROBS, {}, r"float64 of shape \(4, 5, 3\)"),
    ("grey image", ImageError, IMAGE[..., 0], PROBS, {}, r"\(4, 5\)"),
    ("with alpha", ImageError, np.dstack([IMAGE, IMAGE[..., :1]]), PROBS, {}, r"\(4, 5, 4\)"),
    ("other size", ConfigError, IMAGE, PROBS[:, :3], {}, r"\(3, 3, 5\), wanted is \(classes, 4, 5\)"),
    ("classes last", ConfigError, IMAGE, PROBS.transpose(1, 2, 0), {}, "classes first"),
    ("no class", ConfigError, IMAGE, PROBS[:0], {}, r"\(0, 4, 5\)"),
    ("no pixel", ImageError, IMAGE[:0], PROBS[:, :0], {}, "0x5"),
    (
        "ragged image",
        ConfigError,
        [[[1, 2, 3]], [[1, 2, 3], [4, 5, 6]]],
        PROBS,
        {},
        "crf image: cannot be made an array",
    ),
    (
        "gradients",
        ConfigError,
        IMAGE,
        torch.from_numpy(PROBS).requires_grad_(),
        {},
        "crf probabilities: cannot be made an array",
    ),
    ("labels", ConfigError, IMAGE, PROBS.argmax(0)[None], {}, "int64"),
    ("scores", ConfigError, IMAGE, np.log(PROBS), {}, "apply a softmax"),
    ("sum", ConfigError, IMAGE, with_value(PROBS, 0.99 + PROBS[0, 1, 2]), {}, "row 1, column 2"),
    ("negative", ConfigError, IMAGE, with_value(PROBS, -0.5), {}, "-0.5"),
    ("NaN", ConfigError, IMAGE, with_value(PROBS, np.nan), {}, "NaN or infinity at 1 px"),
    ("infinite", ConfigError, IMAGE, with_value(PROBS, np.inf), {}, "NaN or infinity at 1 px"),
    ("matrix shape", ConfigError, IMAGE, PROBS, {"compatibility": np.ones((2, 3))}, r"\(2, 3\), wanted is \(3, 3\)"),
    ("matrix NaN", ConfigError, IMAGE, PROBS, {"compatibility": np.full((3, 3), np.nan)}, "nan at row 0, column 0"),
    ("complex matrix", ConfigError, IMAGE, PROBS, {"compatibility": np.eye(3) * 1j}, "holds complex128"),
    ("one kernel", ConfigError, IMAGE, PROBS, {"kernels": Kernel(np.ones((20, 1)))}, "are Kernel; fix: write kernels="),
    ("no kernel", ConfigError, IMAGE, PROBS, {"kernels": [np.ones((20, 1))]}, "fix: write kernels="),
    ("number of threads", ConfigError, IMAGE, PROBS, {"threads": "2"}, "'2'"),
    ("no parameters", ConfigError, IMAGE, PROBS, {"parameters": None}, "NoneType"),
    ("dict", ConfigError, IMAGE, PROBS, {"parameters": {"w1": 3}}, "dict"),
    ("own matrix", ConfigError, IMAGE, PROBS, {"kernels": [Kernel(np.ones((20, 1)), 1, np.ones(3))]}, r"\(3,\)"),
    (
        "features",
        ConfigError,
        IMAGE,
        PROBS,
        {"kernels": [Kernel(np.ones((19, 1)))]},
        r"\(19, 1\), wanted is \(20, features\)",
    ),
    ("no features", ConfigError, IMAGE, PROBS, {"kernels": [Kernel(np.ones((20, 0)))]}, r"\(20, 0\)"),
    ("feature NaN", ConfigError, IMAGE, PROBS, {"kernels": [Kernel(np.full((20, 2), np.nan))]}, "NaN or infinity"),
    (
        "far features",
        ConfigError,
        IMAGE,
        PROBS,
        {"kernels": [Kernel(np.full((20, 2), 1e9))]},
        r"1e\+09 standard deviations",
    ),
    ("threads", ConfigError, IMAGE, PROBS, {"threads": 0}, "is 0"),
    ("preset", UnknownNameError, IMAGE, PROBS, {"parameters": "deeplab2"}, "deeplabv2"),
]


@pytest.mark.parametrize(
    ("error", "image", "probs", "options", "says"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_what_is_wrong_is_named(
    error: type[Exception], image: Any, probs: Any, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(error, match=says):
        refine(image, probs, **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"theta_beta": 0.0}, "theta_beta: is 0, allowed is above 0"),
        ({"w1": -1.0}, "w1: is -1, allowed is 0 or more"),
        ({"theta_gamma": float("nan")}, "theta_gamma: is nan"),
        ({"iterations": 2.5}, "whole number"),
        ({"iterations": -1}, "iterations: is -1"),
        ({"normalization": "symetric"}, "symmetric"),
    ],
)
def test_parameters_out_of_range_are_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=says):
        Parameters(**options)


def test_kernels_are_checked_where_they_are_made() -> None:
    with pytest.raises(ConfigError, match="nan"):
        Kernel(np.ones((3, 1)), float("nan"))
    with pytest.raises(UnknownNameError, match="after"):
        Kernel(np.ones((3, 1)), normalization="afters")


def test_whole_iterations_may_be_a_float() -> None:
    assert Parameters(iterations=3.0) == Parameters(iterations=3)  # type: ignore[arg-type]
    image, probs = scene(13, (4, 5))
    parameters = Parameters(iterations=2.0)  # type: ignore[arg-type]
    np.testing.assert_array_equal(refine(image, probs, parameters), refine(image, probs, Parameters(iterations=2)))


def test_images_and_tensors_are_arrays_too() -> None:
    image, probs = scene(14, (6, 7))
    expected = refine(image, probs)
    np.testing.assert_array_equal(refine(Image.fromarray(image), torch.from_numpy(probs)), expected)  # type: ignore[arg-type]
    np.testing.assert_allclose(refine(image, probs.tolist()), expected, atol=1e-5)  # type: ignore[arg-type]


def test_a_tiny_weight_does_next_to_nothing() -> None:
    image, probs = scene(15, (6, 7))
    refined = refine(image, probs, Parameters(w1=1e-6, w2=1e-6))
    assert 0 < float(np.abs(refined - probs / probs.sum(0)).max()) < 1e-5


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Parameters(w2="3"), "crf w2: is '3', allowed is 0 or more"),  # type: ignore[arg-type]
        (lambda: Parameters(normalization=None), "no such CRF normalization"),  # type: ignore[arg-type]
        (lambda: Kernel(["a", "b"]), "crf features: holds <U1"),  # type: ignore[arg-type]
        (lambda: Kernel(np.ones((2, 1)), "1"), "weight '1'"),  # type: ignore[arg-type]
        (lambda: position_features((3, 4), 0), "crf theta: is 0, allowed is above 0"),
        (lambda: appearance_features(IMAGE, -3, 1), "crf theta: is -3"),
        (lambda: appearance_features(IMAGE, 3, [1, 2]), "are 2, the image has 3 values a pixel"),
        (lambda: appearance_features(IMAGE[0, 0], 3, 1), r"has shape \(3,\)"),
        (lambda: refine_each(IMAGE, PROBS, "deeplabv1"), "are one, 'deeplabv1'"),
    ],
)
def test_arguments_of_another_kind_are_named(make: Any, says: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=says):
        make()


def test_lists_are_as_good_as_arrays() -> None:
    features = appearance_features(IMAGE, 3, 9)
    expected = refine(IMAGE, PROBS, kernels=[Kernel(features)])
    found = refine(IMAGE, PROBS.tolist(), kernels=[Kernel(appearance_features(IMAGE.tolist(), 3, 9).tolist())])  # type: ignore[arg-type]
    np.testing.assert_allclose(found, expected, atol=1e-6)
