"""The features of each pixel in units of the kernels' standard deviations, the kernels, and their parameters.

Source: Kraehenbuehl, Koltun, "Efficient inference in fully connected CRFs with Gaussian edge potentials" (NIPS 2011,
https://arxiv.org/abs/1210.5644), equation 3:

    k(f_i, f_j) = w1 exp(-|p_i - p_j|^2 / 2 theta_alpha^2 - |I_i - I_j|^2 / 2 theta_beta^2)     appearance
                + w2 exp(-|p_i - p_j|^2 / 2 theta_gamma^2)                                      smoothness

With positions p and colors I divided by their thetas, both are exp(-|f_i - f_j|^2 / 2), of 5 and of 2 features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, UnknownNameError, shown
from ..registry import suggest

Floats = NDArray[np.float32]

LEAST_PROBABILITY = 1e-5
"""Probabilities are raised to this, as in pydensecrf: a certain classifier can still be outvoted."""
SUM_TOLERANCE = 1e-2
"""How far the sum of a pixel's probabilities may be from 1: a softmax in half precision stays within."""
NORMALIZATIONS = ("symmetric", "after", "before", "none")


def check_normalization(name: str) -> None:
    """Raise UnknownNameError for a normalization that does not exist."""
    if name not in NORMALIZATIONS:
        raise UnknownNameError(name, "no such CRF normalization", suggest(str(name), NORMALIZATIONS))


def check_number(name: str, value: Any, *, above_zero: bool = False) -> None:
    """Raise ConfigError for anything but a finite number >= 0, or > 0."""
    if not isinstance(value, Real) or not math.isfinite(value) or value < 0 or (above_zero and value == 0):
        got = f"{value:g}" if isinstance(value, Real) else shown(value)
        what = f"must be {'>' if above_zero else '>='} 0, got {got}"
        raise ConfigError(f"crf {name}", what, "see pixelwise.crf.PRESETS")


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The two kernels of the paper, in its letters, how they are normalized, and the number of iterations.

    w1, theta_alpha (pixels), theta_beta (steps of 0..255)  weight and standard deviations of the appearance kernel
    w2, theta_gamma (pixels)                                weight and standard deviation of the smoothness kernel
    iterations                                              mean-field steps
    normalization     the divisor of k(f_i, f_j), with n_i = sum_j k(f_i, f_j): `symmetric` sqrt(n_i n_j), `after` n_i,
                      `before` n_j, `none` 1. `after` is the NIPS 2011 code and DeepLab's binary, `symmetric` the later
                      library's default
    A weight of 0 leaves its kernel out. Raises ConfigError for a value out of range.
    """

    w1: float = 4
    theta_alpha: float = 49
    theta_beta: float = 5
    w2: float = 3
    theta_gamma: float = 3
    iterations: int = 10
    normalization: str = "symmetric"

    def __post_init__(self) -> None:
        for field in fields(self)[:-1]:
            check_number(field.name, getattr(self, field.name), above_zero=field.name.startswith("theta"))
        if self.iterations != int(self.iterations):
            raise ConfigError("crf iterations", f"expected an integer, got {self.iterations:g}", "use a number like 10")
        object.__setattr__(self, "iterations", int(self.iterations))
        check_normalization(self.normalization)


# Sources: DeepLab's run_densecrf.sh for the VGG16 LargeFOV model (its program divides after filtering); the ResNet-101
# settings of kazuto1011/deeplab-pytorch; DeconvNet's script; the example of the pydensecrf package.
PRESETS = {
    "deeplabv1": Parameters(w1=4, theta_alpha=49, theta_beta=5, w2=3, theta_gamma=3, normalization="after"),
    "deeplabv2": Parameters(w1=4, theta_alpha=67, theta_beta=3, w2=3, theta_gamma=1),
    "deconvnet": Parameters(w1=5, theta_alpha=20, theta_beta=3, w2=3, theta_gamma=3, normalization="after"),
    "pydensecrf": Parameters(w1=10, theta_alpha=80, theta_beta=13, w2=3, theta_gamma=3, iterations=5),
}


def as_numbers(name: str, values: Any) -> NDArray[Any]:
    """Return an array of real numbers from an array, a list or a tensor. Raises ConfigError for anything else."""
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(name, f"cannot be converted to an array: {error}", "pass a numpy array") from None
    if array.dtype.kind not in "buif":
        raise ConfigError(name, f"expected real numbers, got {array.dtype}", "convert them to floats")
    return array


def find_parameters(parameters: Any) -> Parameters:
    """Return a preset by name, or the parameters as they are. Raises UnknownNameError listing the nearest."""
    if isinstance(parameters, Parameters):
        return parameters
    if not isinstance(parameters, str):
        what = f"expected a preset's name or Parameters, got {type(parameters).__name__}"
        raise ConfigError("crf parameters", what, "pass pixelwise.crf.Parameters(...)")
    if parameters not in PRESETS:
        raise UnknownNameError(parameters, "no such CRF preset", suggest(parameters, PRESETS))
    return PRESETS[parameters]


@dataclass(frozen=True, eq=False)
class Kernel:
    """One pairwise kernel, weight * exp(-|f_i - f_j|^2 / 2), over any features.

    features       (N, d) float, one row per pixel in row-major order, in standard deviations
    weight         its factor beside the unary scores
    compatibility  (C, C), row l, column l': the penalty of label l beside a neighbor l'; None takes that of `refine`
    normalization  as in `Parameters`
    Raises ConfigError for features that are not numbers or a weight that is not finite.
    """

    features: NDArray[Any]
    weight: float = 1
    _: KW_ONLY
    compatibility: NDArray[Any] | None = None
    normalization: str = "symmetric"

    def __post_init__(self) -> None:
        check_normalization(self.normalization)
        weight: Any = self.weight
        if not isinstance(weight, Real) or not math.isfinite(weight):
            raise ConfigError(
                "crf kernel weight", f"expected a finite number, got {shown(weight)}", "use a number like 1"
            )
        object.__setattr__(self, "features", as_numbers("crf features", self.features))


def position_features(size: tuple[int, int], theta: float) -> Floats:
    """Return (H * W, 2): column and row of each pixel over theta pixels, for an image of `size` (height, width)."""
    check_number("theta", theta, above_zero=True)
    height, width = size
    features = np.empty((height, width, 2), np.float32)
    features[..., 0] = np.arange(width, dtype=np.float32) / np.float32(theta)
    features[..., 1] = (np.arange(height, dtype=np.float32) / np.float32(theta))[:, None]
    return features.reshape(-1, 2)


def appearance_features(image: NDArray[Any], theta_position: float, theta_values: float | Sequence[float]) -> Floats:
    """Return (H * W, 2 + c): positions over theta_position pixels, and the c values of each pixel over theta_values.

    image (H, W, c) or (H, W) of any number type: color, depth, time, an embedding. theta_values: one for all values,
    or c.
    """
    image = as_numbers("crf image", image)
    if image.ndim not in (2, 3) or not image.size:
        what = f"expected shape (height, width) or (height, width, values), got {image.shape}"
        raise ConfigError("crf image", what, "pass an image with pixels")
    values = image.reshape(*image.shape[:2], -1)
    thetas = np.ravel(theta_values).tolist()
    for theta in thetas:
        check_number("theta_values", theta, above_zero=True)
    if len(thetas) not in (1, values.shape[2]):
        what = f"expected 1 or {values.shape[2]} (the image's values per pixel), got {len(thetas)}"
        raise ConfigError("crf theta_values", what, "pass one theta for all values, or one theta per value")
    features = np.empty((*values.shape[:2], 2 + values.shape[2]), np.float32)
    features[..., :2] = position_features(values.shape[:2], theta_position).reshape(*values.shape[:2], 2)
    features[..., 2:] = values
    features[..., 2:] /= np.asarray(thetas, np.float32)
    return features.reshape(-1, features.shape[2])


def paper_kernels(image: NDArray[np.uint8], parameters: Parameters) -> list[Kernel]:
    """Return the smoothness and the appearance kernel of an image (H, W, 3); those of weight 0 are left out."""
    size = (image.shape[0], image.shape[1])
    kernels = []
    if parameters.w2:
        smoothness = position_features(size, parameters.theta_gamma)
        kernels.append(Kernel(smoothness, parameters.w2, normalization=parameters.normalization))
    if parameters.w1:
        appearance = appearance_features(image, parameters.theta_alpha, parameters.theta_beta)
        kernels.append(Kernel(appearance, parameters.w1, normalization=parameters.normalization))
    return kernels


def paper_weights(parameters: Parameters) -> list[float]:
    """Return the weights of `paper_kernels`."""
    return [weight for weight in (parameters.w2, parameters.w1) if weight]
