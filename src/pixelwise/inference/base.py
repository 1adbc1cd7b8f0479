"""What every segmenter is, whichever runtime computes its logits: image in, labels out. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core import Prediction, Taxonomy
from ..crf import Parameters, refine
from ..crf.features import find_parameters
from ..errors import InputError
from ..images import RGB, PixelFormat, from_pil, read_pixels
from .certainty import certainty_of
from .temperature import scaled


class Computed(NamedTuple):
    """The output of a network for one image, as functions that compute from it:

    labels         the class ids (H, W), or the masks (K, H, W) of several labels per pixel
    probabilities  of the classes, (K, H, W) float32
    """

    labels: Callable[[], NDArray[Any]]
    probabilities: Callable[[], NDArray[np.float32]]


class BaseSegmenter(ABC):
    """A network with its taxonomy, called with a path, an array or a PIL image.

    name         of the model, for messages
    network      its registered name, such as "fcn8s_vgg16"
    taxonomy     names, colors and file values of its classes
    pixels       channels, bits and ranges of the images that it takes; 8-bit RGB for most
    in_channels  channels of those images
    thresholds   of several labels per pixel, the probability of each class above which a pixel has its label
    has_probabilities  whether it computes more than labels, as `probs`, the CRF and the calibration need
    crf          parameters of the fully connected CRF that refines the labels, or None
    temperature  scales the probabilities that `predict` returns, never the labels; see `temperature.py`
    """

    name: str
    network: str
    taxonomy: Taxonomy
    pixels: PixelFormat
    in_channels: int
    thresholds: tuple[float, ...]
    has_probabilities: bool = True
    crf: Parameters | None = None
    temperature: float = 1.0

    @abstractmethod
    def compute(self, pixels: NDArray[Any], *, tile: int | None, source: object) -> Computed:
        """Run the network on an image (H, W, C)."""

    @abstractmethod
    def check_tile(self, tile: int) -> None:
        """Raise ConfigError for a size of tiles that the network cannot label as it labels the whole image."""

    @abstractmethod
    def with_head(self, name: str) -> Self:
        """Return a copy, sharing the weights, that returns the second label map of a network with two heads."""

    @abstractmethod
    def with_augmentation(self, *, flip: bool = False, scales: Sequence[float] = (1.0,)) -> Self:
        """Return a copy, sharing the network, that averages the probabilities of mirrored and scaled copies."""

    def __call__(self, image: str | Path | NDArray[Any] | Image.Image) -> Prediction:
        """Label one image of any size: a file, an array (H, W, 3) uint8 RGB, or a PIL image.

        A model of other images takes a file, or an array (H, W, C) of the numbers that `pixels` declares.

        Raises ImageError naming the file, InputError for an array of another shape or type and for logits that are not
        finite.
        """
        return self.predict(image)

    def predict(
        self,
        image: str | Path | NDArray[Any] | Image.Image,
        *,
        probs: bool = False,
        certainty: bool = False,
        source: str | Path | None = None,
        tile: int | None = None,
    ) -> Prediction:
        """Label one image, and keep the probabilities (K, H, W) float32 if `probs`.

        certainty  also return the confidence and the margin of the labels, see `core.Prediction`
        source     the name of the image in error messages; by default its path, or "image"
        tile       label in tiles of that many pixels per side, for images that do not fit in memory as a whole; only
                   networks of valid convolutions (`unet`) take one, and their labels stay the same
        Raises the errors of `__call__`, and ConfigError for the certainty of several labels per pixel.
        """
        if certainty:
            self.taxonomy.require_one_label("certainty")
        name = source or (image if isinstance(image, str | Path) else "image")
        pixels = as_pixels(image, self.pixels, source=name)
        if pixels.shape[2] != self.in_channels:
            what = f"has {pixels.shape[2]} channels, but {self.name} expects {self.in_channels}"
            raise InputError(name, what, "choose a model for such images")
        # What figures show, and the CRF sees.
        rgb = self.pixels.to_rgb(pixels)
        label, probabilities_of = self.compute(pixels, tile=tile, source=name)
        unscaled: NDArray[np.float32] | None
        if self.crf is not None:
            unscaled = refine(np.ascontiguousarray(rgb), probabilities_of(), self.crf)
            mask = unscaled.argmax(0).astype(self.taxonomy.dtype)
        else:
            unscaled = probabilities_of() if probs or certainty else None
            mask = label()
        kept = None if unscaled is None else scaled(unscaled, self.temperature)
        sure = certainty_of(kept) if certainty and kept is not None else (None, None)
        return Prediction(mask, self.taxonomy, rgb, kept if probs else None, *sure)

    def with_crf(self, crf: Parameters | str = "deeplabv2") -> Self:
        """Return a copy, sharing the network, that refines its labels by the fully connected CRF.

        crf  the name of a preset, or parameters
        Raises InputError for a model of images without colors, unless its pixel format says what to show.
        """
        self.pixels.check_crf()
        self.taxonomy.require_one_label("the CRF")
        refining = copy(self)
        refining.crf = find_parameters(crf)
        return refining

    def with_temperature(self, temperature: float) -> Self:
        """Return a copy, sharing the network, whose probabilities are scaled by another temperature; 1 is none."""
        changed = copy(self)
        changed.temperature = float(temperature)
        return changed


def as_pixels(image: object, pixels: PixelFormat = RGB, *, source: object = "image") -> NDArray[Any]:
    """Return (H, W, 3) uint8 RGB of a file or a PIL image, the same pixels from both; an array (H, W, C) as it is.

    pixels  another format of the image, whose numbers are then returned and checked
    source  name of an array in errors
    Raises ImageError for a file or image that cannot be read, InputError for an array of another shape or type.
    """
    if isinstance(image, str | Path):
        return read_pixels(image, pixels)
    if not pixels.is_rgb:
        if not isinstance(image, np.ndarray):
            what = f"expected a path or an array of {pixels.in_words()}, got {type(image).__name__}"
            raise InputError(source, what, "give the numbers of the file as an array")
        pixels.check(image, source)
        return image
    if isinstance(image, Image.Image):
        return from_pil(image)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or 0 in image.shape:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        what = f"expected a path, a PIL image, or a uint8 array (height, width, 3) in RGB order, got {got}"
        raise InputError("image", what, "convert it first")
    return image
