"""`refine` and `refine_each`: check the arguments, choose the kernels, run mean field."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import groupby
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, ImageError, shown
from .features import (
    LEAST_PROBABILITY,
    SUM_TOLERANCE,
    Kernel,
    Parameters,
    as_numbers,
    find_parameters,
    paper_kernels,
    paper_weights,
)


def refine(
    image: NDArray[np.uint8],
    probs: NDArray[Any],
    parameters: Parameters | str = "deeplabv2",
    *,
    compatibility: NDArray[Any] | None = None,
    kernels: Sequence[Kernel] = (),
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Refine class probabilities, so that pixels that are close and similar in color agree on their labels.

    image          (H, W, 3) uint8, RGB: the image that was classified, at its own size
    probs          (C, H, W) float in 0..1, summing to 1 over the classes at each pixel
    parameters     the paper's two kernels, or the name of a preset: deeplabv1, deeplabv2, deconvnet, pydensecrf
    compatibility  (C, C), row l, column l': the penalty of label l beside a neighbor l'. None is Potts, [l != l']
    kernels        further kernels on any features (`appearance_features`), beside the two
    threads        None takes OMP_NUM_THREADS or all cores; the result does not depend on it
    returns        (C, H, W) float32, summing to 1 at each pixel

    Images and probabilities may be anything that numpy converts to an array: PIL images, tensors, lists.
    Raises ImageError for an unsuitable image, ConfigError for invalid probabilities, matrices or features.
    The first call on a machine takes about ten seconds to compile; the compiled code is kept.
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
    """Yield `refine` with each of several settings.

    Consecutive settings that differ only in weights or iterations share their tables, which are half of the work.
    The tables and the threads live until the last result, or until the generator is closed. Raises what `refine` raises
    before the first result; only a kernel too narrow for single precision raises at its turn.
    """
    _check_call(settings, kernels, threads)
    parameters = [find_parameters(each) for each in settings]
    image, probs = as_numbers("crf image", image), as_numbers("crf probabilities", probs)
    _check_image_and_probs(image, probs)
    for kernel in kernels:
        if kernel.features.ndim != 2 or len(kernel.features) != probs[0].size or not kernel.features.size:
            what = f"expected shape ({probs[0].size}, features), got {kernel.features.shape}"
            raise ConfigError("crf features", what, "pass one row per pixel, in row-major order")
    for matrix in (compatibility, *(kernel.compatibility for kernel in kernels)):
        _check_compatibility(matrix, len(probs))
    return _refine_each(image, probs, parameters, compatibility, kernels=kernels, threads=threads)


def _refine_each(
    image: NDArray[np.uint8],
    probs: NDArray[Any],
    settings: Sequence[Parameters],
    compatibility: NDArray[Any] | None,
    *,
    kernels: Sequence[Kernel],
    threads: int | None,
) -> Generator[NDArray[np.float32]]:
    """Yield the results of `refine_each`, which checks its arguments when it is called, not at the first `next`."""
    # numba takes a third of a second to import, so it is imported only when something is refined.
    from ..jit.threads import Workers
    from .meanfield import CRFTables, mean_field

    def tables_of(parameters: Parameters) -> Parameters:
        """Drop the settings that do not change the tables: the iterations, and a kernel's weight unless it is 0."""
        return replace(parameters, w1=bool(parameters.w1), w2=bool(parameters.w2), iterations=0)

    with Workers(threads) as workers:
        for _, group in groupby(settings, tables_of):
            tables = None
            for parameters in group:
                weights = [*paper_weights(parameters), *(kernel.weight for kernel in kernels)]
                if not weights or not parameters.iterations:
                    clipped = np.maximum(probs, LEAST_PROBABILITY).astype(np.float32)
                    yield np.asarray(clipped / clipped.sum(0), np.float32)
                    continue
                if tables is None:
                    all_kernels = [*paper_kernels(image, parameters), *kernels]
                    tables = CRFTables(image.shape[:2], all_kernels, workers=workers)
                yield mean_field(
                    probs, tables, weights=weights, iterations=parameters.iterations, compatibility=compatibility
                )


def compile_ahead(num_classes: int) -> None:
    """Compile the loops for images with `num_classes` classes, by refining an image of four pixels."""
    refine(np.zeros((2, 2, 3), np.uint8), np.full((num_classes, 2, 2), 1 / num_classes, np.float32))


def _check_call(settings: Any, kernels: Any, threads: Any) -> None:
    if isinstance(settings, str | Parameters):
        what = f"expected a list of settings, got {shown(settings)}"
        raise ConfigError("crf settings", what, "pass a list, or call refine")
    kinds = {type(kernel) for kernel in kernels} if isinstance(kernels, Sequence) else set()
    if not isinstance(kernels, Sequence) or kinds - {Kernel}:
        got = type(kernels).__name__ + "".join(f" of {kind.__name__}" for kind in kinds - {Kernel})
        raise ConfigError(
            "crf kernels", f"expected a sequence of Kernel, got {got}", "write kernels=[Kernel(features)]"
        )
    if threads is not None and (not isinstance(threads, Integral) or int(threads) < 1):
        raise ConfigError("crf threads", f"must be an integer >= 1, got {shown(threads)}", "use None for all cores")


def _check_image_and_probs(image: NDArray[np.uint8], probs: NDArray[Any]) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        what = f"expected uint8 of shape (height, width, 3), got {image.dtype} of shape {image.shape}"
        raise ImageError("crf image", what, "pass the RGB pixels as read, 0..255")
    height, width, _ = image.shape
    if not image.size:
        raise ImageError(
            "crf image", f"must have at least one pixel, got {height}x{width}", "pass an image with pixels"
        )
    if probs.ndim != 3 or probs.shape[1:] != (height, width) or not probs.size:
        what = f"expected shape (classes, {height}, {width}), got {probs.shape}"
        raise ConfigError("crf probabilities", what, "resize them to the image, classes first")
    if not np.issubdtype(probs.dtype, np.floating):
        raise ConfigError("crf probabilities", f"expected floats in 0..1, got {probs.dtype}", "pass probabilities")
    sums = probs.sum(0, dtype=np.float32)
    if not np.isfinite(sums).all():
        count = int((~np.isfinite(sums)).sum())
        raise ConfigError("crf probabilities", f"contain NaN or infinity at {count} px", "check the network")
    if probs.min() < 0:
        what = f"contain negative values (min {float(probs.min()):g})"
        raise ConfigError("crf probabilities", what, "apply a softmax to the scores first")
    worst = np.unravel_index(int(np.abs(sums - 1).argmax()), sums.shape)
    if abs(sums[worst] - 1) > SUM_TOLERANCE:
        what = f"must sum to 1, got {sums[worst]:g} at row {worst[0]}, column {worst[1]}"
        raise ConfigError("crf probabilities", what, "apply a softmax to the scores first")


def _check_compatibility(matrix: NDArray[Any] | None, num_classes: int) -> None:
    if matrix is None:
        return
    numbers = as_numbers("crf compatibility", matrix)
    if numbers.shape != (num_classes, num_classes):
        what = f"expected shape ({num_classes}, {num_classes}), got {numbers.shape}"
        raise ConfigError("crf compatibility", what, "pass one row and one column per class")
    if not np.isfinite(numbers).all():
        row, column = np.argwhere(~np.isfinite(numbers))[0]
        what = f"must be finite, got {numbers[row, column]} at row {row}, column {column}"
        raise ConfigError("crf compatibility", what, "check the matrix")
