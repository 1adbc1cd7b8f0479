"""The fully connected CRF: labels that follow the edges of the image, after any classifier.

    from pixelwise.crf import refine

    sharper = refine(image, probs, "deeplabv2")        # (H, W, 3) uint8, (C, H, W) -> (C, H, W)

Paper: Kraehenbuehl, Koltun, "Efficient inference in fully connected CRFs with Gaussian edge potentials" (NIPS 2011,
https://arxiv.org/abs/1210.5644); DeepLab v1 and v2 apply it to their scores.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import groupby
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, ImageError
from .features import (
    LEAST_PROBABILITY,
    NORMALIZATIONS,
    PRESETS,
    SUM_TOLERANCE,
    Kernel,
    Parameters,
    appearance_features,
    as_numbers,
    find_parameters,
    paper_kernels,
    paper_weights,
    position_features,
)

__all__ = [
    "NORMALIZATIONS",
    "PRESETS",
    "Kernel",
    "Parameters",
    "appearance_features",
    "position_features",
    "refine",
    "refine_each",
]


def refine(
    image: NDArray[np.uint8],
    probs: NDArray[Any],
    parameters: Parameters | str = "deeplabv2",
    *,
    compatibility: NDArray[Any] | None = None,
    kernels: Sequence[Kernel] = (),
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Let pixels that lie close and look alike agree on their labels.

    image          (H, W, 3) uint8, RGB: the image that was classified, at its own size; an array or what numpy makes one of
    probs          (C, H, W) float in 0..1, adding up to 1 over the classes at each pixel
    parameters     the paper's two kernels, or the name of a preset: deeplabv1, deeplabv2, deconvnet, pydensecrf
    compatibility  (C, C), row l, column l': what label l pays for a neighbour l'. None is Potts: 1 for another label, 0 for its own
    kernels        further kernels on any features (`appearance_features`), beside the two
    threads        None takes OMP_NUM_THREADS or all cores; the result does not depend on it
    returns        (C, H, W) float32, adding up to 1 at each pixel

    Raises ImageError for another image, ConfigError for probabilities, matrices or features that cannot be right.
    The first call on a machine compiles for some ten seconds; the compiled code is kept.
    """
    with closing(
        refine_each(image, probs, [parameters], compatibility=compatibility, kernels=kernels, threads=threads)
    ) as results:
        return next(results)


def refine_each(
    image: NDArray[np.uint8],
    probs: NDArray[Any],
    settings: Iterable[Parameters | str],
    *,
    compatibility: NDArray[Any] | None = None,
    kernels: Sequence[Kernel] = (),
    threads: int | None = None,
) -> Generator[NDArray[np.float32]]:
    """`refine` with each of several settings, in turn; neighbours that differ in weights or steps alone share their tables.

    The tables and the threads live until the last result, or until the generator is closed. Raises what `refine` raises
    before the first result; only a kernel too narrow for single precision is told at its turn.
    """
    _check_call(settings, kernels, threads)
    found = [find_parameters(parameters) for parameters in settings]
    image, probs = as_numbers("crf image", image), as_numbers("crf probabilities", probs)
    _check_image(image)
    _check_probs(probs, image.shape[:2])
    _check_kernels(kernels, probs.shape)
    for matrix in (compatibility, *(kernel.compatibility for kernel in kernels)):
        _check_compatibility(matrix, len(probs))
    return _refine_each(image, probs, found, compatibility, kernels, threads)


def _refine_each(
    image: NDArray[np.uint8],
    probs: NDArray[Any],
    settings: Sequence[Parameters],
    compatibility: NDArray[Any] | None,
    kernels: Sequence[Kernel],
    threads: int | None,
) -> Generator[NDArray[np.float32]]:
    # numba takes a third of a second to import: only who refines shall pay it.
    from .compiled import Workers
    from .meanfield import Inference

    with Workers(threads) as workers:
        for _, group in groupby(settings, _tables_of):
            inference = None
            for parameters in group:
                weights = [*paper_weights(parameters), *(kernel.weight for kernel in kernels)]
                if not weights or not parameters.iterations:
                    clipped = np.maximum(probs, LEAST_PROBABILITY).astype(np.float32)
                    yield np.asarray(clipped / clipped.sum(0), np.float32)
                    continue
                inference = inference or Inference(
                    image.shape[:2], [*paper_kernels(image, parameters), *kernels], workers
                )
                yield inference.run(probs, weights, parameters.iterations, compatibility)


def _tables_of(parameters: Parameters) -> Parameters:
    """What the tables of a lattice depend on: all but how much a kernel weighs, if it does at all, and the steps."""
    return replace(parameters, w1=bool(parameters.w1), w2=bool(parameters.w2), iterations=0)


def _check_call(settings: Any, kernels: Any, threads: Any) -> None:
    if isinstance(settings, str | Parameters):
        raise ConfigError("crf settings", f"are one, {settings!r}", "hand over a list of them, or call refine")
    if not isinstance(kernels, Sequence) or not all(isinstance(kernel, Kernel) for kernel in kernels):
        raise ConfigError("crf kernels", f"are {type(kernels).__name__}", "write kernels=[Kernel(features)]")
    if threads is not None and (not isinstance(threads, Integral) or threads < 1):
        raise ConfigError("crf threads", f"is {threads!r}", "choose 1 or more, or None for all cores")


def _check_image(image: NDArray[np.uint8]) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        what = f"is {image.dtype} of shape {image.shape}, wanted is uint8 (height, width, 3)"
        raise ImageError("crf image", what, "hand over the RGB pixels as read, 0..255")


def _check_probs(probs: NDArray[Any], size: tuple[int, ...]) -> None:
    if 0 in size:
        raise ImageError("crf image", f"has size {size[0]}x{size[1]}", "hand over an image of one pixel at least")
    if probs.ndim != 3 or probs.shape[1:] != size or not probs.size:
        what = f"have shape {probs.shape}, wanted is (classes, {size[0]}, {size[1]})"
        raise ConfigError("crf probabilities", what, "bring them to the image's size, classes first")
    if not np.issubdtype(probs.dtype, np.floating):
        raise ConfigError("crf probabilities", f"are {probs.dtype}", "hand over floats in 0..1, not labels")
    sums = probs.sum(0, dtype=np.float32)
    if not np.isfinite(sums).all():
        raise ConfigError(
            "crf probabilities", f"hold NaN or infinity at {int((~np.isfinite(sums)).sum())} px", "check the network"
        )
    if probs.min() < 0:
        raise ConfigError(
            "crf probabilities", f"go down to {float(probs.min()):g}", "apply a softmax to the scores first"
        )
    worst = np.unravel_index(int(np.abs(sums - 1).argmax()), sums.shape)
    if abs(sums[worst] - 1) > SUM_TOLERANCE:
        what = f"add up to {sums[worst]:g} at row {worst[0]}, column {worst[1]}, wanted is 1"
        raise ConfigError("crf probabilities", what, "apply a softmax to the scores first")


def _check_kernels(kernels: Sequence[Kernel], shape: tuple[int, ...]) -> None:
    _, height, width = shape
    for kernel in kernels:
        if kernel.features.ndim != 2 or len(kernel.features) != height * width or not kernel.features.size:
            what = f"have shape {kernel.features.shape}, wanted is ({height * width}, features)"
            raise ConfigError("crf features", what, "one row for each pixel, in row-major order")


def _check_compatibility(matrix: NDArray[Any] | None, num_classes: int) -> None:
    if matrix is None:
        return
    numbers = as_numbers("crf compatibility", matrix)
    if numbers.shape != (num_classes, num_classes):
        what = f"has shape {numbers.shape}, wanted is ({num_classes}, {num_classes})"
        raise ConfigError("crf compatibility", what, "one row and one column for each class")
    if not np.isfinite(numbers).all():
        row, column = np.argwhere(~np.isfinite(numbers))[0]
        raise ConfigError(
            "crf compatibility", f"is {numbers[row, column]} at row {row}, column {column}", "write finite numbers"
        )
