"""A network that `pixelwise export` wrote, ready to label images. Imports neither torch nor numba."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, InputError, size_text
from ..nn.interpolation import make_table
from .argmax_numpy import argmax_upsampled, axis_of, upsampled
from .base import BaseSegmenter, Computed
from .export_info import ExportInfo
from .runtimes import Runtime, RuntimeName, open_runtime


class ExportedSegmenter(BaseSegmenter):
    """An exported network in one of the runtimes.

    info     what the file says of itself
    runtime  the library that computes it
    """

    def __init__(self, runtime: Runtime, name: str) -> None:
        self.info = ExportInfo.from_json(runtime.text, name)
        self.runtime = runtime
        self.name = name
        self.network = self.info.name
        self.taxonomy = self.info.taxonomy
        self.pixels = self.info.pixels
        self.in_channels = self.info.in_channels
        self.thresholds = self.info.thresholds
        self.temperature = self.info.temperature
        self.has_probabilities = self.info.output != "labels"

    def compute(self, pixels: NDArray[Any], *, tile: int | None, source: object) -> Computed:
        """Run the network on an image (H, W, C)."""
        if tile is not None:
            self.check_tile(tile)
        images = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], self.info.input)
        output = self.runtime.run(images)[0]
        multilabel = self.taxonomy.multilabel
        if self.info.output == "labels":
            labels = output.astype(np.bool_) if multilabel else output.astype(self.taxonomy.dtype)
            return Computed(lambda: labels, self._no_probabilities)
        scores = np.asarray(output, np.float32)
        if not np.isfinite(scores).all():
            what = "the network computes logits that are not finite (NaN or infinity) for it"
            raise InputError(source, what, "use another model: the numbers of this one are damaged or too large")
        upsample = self.info.upsample if self.info.output == "scores" else ("Identity", {})
        if upsample[0] == "Identity" and scores.shape[1:] != pixels.shape[:2]:
            sizes = size_text(scores.shape[1:]), size_text(pixels.shape[:2])
            what = f"expected logits of the size of the image, {sizes[1]}, got {sizes[0]} (height x width)"
            raise InputError(source, what, "export the model again")
        rows, columns = (
            axis_of(make_table(*upsample, *sides)) for sides in zip(scores.shape[1:], pixels.shape[:2], strict=True)
        )
        if multilabel:
            limits = np.log(self.thresholds) - np.log1p(-np.asarray(self.thresholds))

            def masks() -> NDArray[np.bool_]:
                return np.stack(
                    [upsampled(scores[k : k + 1], rows, columns)[0] > limit for k, limit in enumerate(limits)]
                )

            return Computed(masks, lambda: sigmoid(upsampled(scores, rows, columns)))
        return Computed(
            partial(argmax_upsampled, scores, rows, columns), lambda: softmax(upsampled(scores, rows, columns))
        )

    def check_tile(self, tile: int) -> None:
        """Raise ConfigError: there are no tiles."""
        raise ConfigError("--tile", f"{self.name} is exported, and labels the image as a whole", "leave --tile out")

    def with_head(self, name: str) -> Self:
        """Raise ConfigError: an exported network has one head."""
        what = f"{self.name} has one label map"
        raise ConfigError("head", what, "leave it out, or export the other one with `pixelwise export --head`")

    def with_augmentation(self, *, flip: bool = False, scales: Sequence[float] = (1.0,)) -> Self:
        """Return the segmenter itself for the image alone. Raises ConfigError for other views."""
        if flip or tuple(scales) != (1.0,):
            what = f"{self.name} is an exported network, which labels the image as it is"
            raise ConfigError("--flip and --scales", what, "leave them out, or name the run it was exported from")
        return self

    def _no_probabilities(self) -> NoReturn:
        what = "computes labels, and no probabilities"
        raise InputError(self.name, what, "export the model with `--output scores`, the default")


def load_exported(path: str | Path, *, runtime: RuntimeName = "auto") -> ExportedSegmenter:
    """Load an exported file. Raises the errors of `open_runtime`, and CheckpointError for a file of another program."""
    return ExportedSegmenter(open_runtime(path, runtime), str(path))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities of logits (K, ...), in their memory."""
    logits -= logits.max(0)
    np.exp(logits, out=logits)
    logits /= logits.sum(0)
    return logits


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probability of each of logits, in their memory."""
    np.negative(logits, out=logits)
    np.exp(np.minimum(logits, 80, out=logits), out=logits)
    logits += 1
    return np.reciprocal(logits, out=logits)
