"""The types that every other file speaks in: taxonomy, sample, batch, logits, prediction.

Shape letters, used in all docstrings:

    B       images per batch
    C       channels of the input image; feature maps say `channels`
    K       classes
    H, W    height and width of the image, in pixels
    h, w    height and width of a feature map or of low-resolution logits
    N       anything else that is counted; the docstring says what

Conventions, unless a docstring says otherwise:

    sizes   (height, width); a point is (row, column), except for `transforms.XY`
    images  uint8 RGB, (H, W, C) in NumPy and (B, C, H, W) in torch; other channels and numbers where a dataset's or
            checkpoint's pixel format says so
    masks   class ids 0..K-1, or the taxonomy's `ignore_id` for pixels that are neither trained on nor scored;
            mask *files* hold file values, which `Taxonomy.encode` turns into ids;
            of a taxonomy with several labels per pixel, (K, H, W): 1 where the class is, 0 where it is not, and
            `ignore_id` where that is unknown; a prediction is bool
    logits  (B, K, H, W), before the softmax, or before the sigmoid where a pixel may have several labels
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, MaskError, size_text
from .taxonomy import MAX_BORDER_FRACTION, MAX_CLASSES, Taxonomy

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

__all__ = [
    "MAX_BORDER_FRACTION",
    "MAX_CLASSES",
    "Batch",
    "LowResLogits",
    "Output",
    "Prediction",
    "Sample",
    "Taxonomy",
    "Upsample",
    "Window",
    "drawn_labels",
    "size_text",
]


class Window(NamedTuple):
    """A rectangle of pixels, half open: rows top..bottom-1, columns left..right-1."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.bottom - self.top, self.right - self.left


@dataclass
class Sample:
    """One labeled image.

    key     its name, unique within the split
    image   (H, W, C) uint8 RGB, or the numbers of another pixel format
    mask    (H, W) class ids, or (K, H, W) for several labels per pixel; None for an image without labels
    """

    key: str
    image: NDArray[Any]
    mask: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if self.mask is not None and self.mask.shape[-2:] != self.image.shape[:2]:
            sizes = size_text(self.image.shape[:2]), size_text(self.mask.shape[-2:])
            what = f"image is {sizes[0]}, mask {sizes[1]} (height x width)"
            raise MaskError(self.key, what, "export both at one size; masks are never resized silently")


class Batch(NamedTuple):
    """One batch of training data, as the loader makes it.

    images         (B, C, H, W) uint8, or of the dataset's pixel format; for a network with `context_px`, with as many
                   extra pixels on each side; in channels_last memory format
    masks          (B, H, W) class ids with the taxonomy's ignore id, uint8, or int64 beyond 255 classes; (B, K, H, W)
                   uint8 for several labels per pixel
    keys           names of the B samples
    pixel_weights  (B, H, W) float32, added to each pixel's weight in the loss (U-Net's border weights), or None
    num_skipped    images that could not be read; the next one was taken in their place
    step_labels    masks and pixel weights of all batches of an optimizer step, on the first of several; else empty
    """

    images: Tensor
    masks: Tensor
    keys: tuple[str, ...]
    pixel_weights: Tensor | None = None
    num_skipped: int = 0
    step_labels: tuple[tuple[Tensor, Tensor | None], ...] = ()


class Output(NamedTuple):
    """What a network returns, in training and in eval mode alike.

    logits   (B, K, H, W) at the size of the input
    aux      further logits (B, K, H, W) for the training loss; empty in eval mode
    """

    logits: Tensor
    aux: tuple[Tensor, ...] = ()


class Upsample(Protocol):
    """A fixed separable interpolation; each output pixel depends on at most two inputs per axis."""

    def __call__(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize logits (B, K, h, w) to (B, K, H, W), where size is (H, W)."""
        ...

    def interpolation_table(self, in_size: int, out_size: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Return, for one axis, each output pixel's two source indices and their weights, both (out_size, 2)."""
        ...


class LowResLogits(NamedTuple):
    """Low-resolution logits and the operator that upsamples them to the image size.

    logits    (B, K, h, w), before the network's last upsampling
    upsample  the last upsampling
    aux       further logits for the training loss, (B, K, h', w') each; empty in eval mode
    """

    logits: Tensor
    upsample: Upsample
    aux: tuple[Tensor, ...] = ()

    def upsample_to(self, size: tuple[int, int]) -> Output:
        """Return logits and auxiliary logits at the image size (H, W)."""
        return Output(self.upsample(self.logits, size), tuple(self.upsample(aux, size) for aux in self.aux))


def drawn_labels(mask: NDArray[Any], taxonomy: Taxonomy) -> NDArray[Any]:
    """Return one class id per pixel for a figure, (H, W): a mask of ids as it is.

    Of several labels per pixel (K, H, W), the class with the fewest pixels lies on top, so that no class covers a
    smaller one. A pixel without a label has the ignore id.
    """
    if not taxonomy.multilabel:
        return mask
    drawn = np.full(mask.shape[1:], taxonomy.ignore_id, taxonomy.dtype)
    present = mask == 1
    for k in np.argsort(-present.sum((1, 2)), kind="stable"):
        drawn[present[k]] = k
    return drawn


@dataclass
class Prediction:
    """The labels of one image.

    mask        (H, W) class ids; for several labels per pixel, (K, H, W) bool, which is `masks` as well
    taxonomy    what the ids mean
    image       (H, W, 3) uint8 RGB: the image that was labeled, or those of its channels that figures show
    probs       (K, H, W) float32 probabilities (softmax, or sigmoid for several labels per pixel), or None if they were
                not asked for
    confidence  (H, W) float32, the probability of the label; None if it was not asked for
    margin      (H, W) float32, that probability minus the one of the second class; None if it was not asked for
    """

    mask: NDArray[Any]
    taxonomy: Taxonomy
    image: NDArray[np.uint8]
    probs: NDArray[np.float32] | None = field(default=None, repr=False)
    confidence: NDArray[np.float32] | None = field(default=None, repr=False)
    margin: NDArray[np.float32] | None = field(default=None, repr=False)

    @property
    def masks(self) -> NDArray[np.bool_]:
        """One mask per class, (K, H, W) bool; they overlap only where pixels may have several labels."""
        if self.taxonomy.multilabel:
            return self.mask
        masks: NDArray[np.bool_] = self.mask == np.arange(self.taxonomy.num_classes)[:, None, None]
        return masks

    def class_fractions(self) -> dict[str, float]:
        """Return the fraction of the image's pixels per class that occurs, by class name, largest first."""
        size = self.image.shape[0] * self.image.shape[1]
        if self.taxonomy.multilabel:
            counts = self.mask.sum((1, 2))
        else:
            counts = np.bincount(self.mask.ravel(), minlength=self.taxonomy.num_classes)[: self.taxonomy.num_classes]
        order = [k for k in np.argsort(-counts, kind="stable") if counts[k]]
        return {self.taxonomy.names[k]: float(counts[k]) / size for k in order}

    def colorize(self) -> Image:
        """Return the labels in the colors of the classes, an RGB image; see `drawn_labels` for several per pixel."""
        from PIL import Image

        return Image.fromarray(self.taxonomy.palette()[drawn_labels(self.mask, self.taxonomy)])

    def overlay(self, opacity: float = 0.5) -> Image:
        """Return the image blended with the colors that the classes have in figures; background and ignored stay clear.

        opacity  0 is the image, 1 the colors
        """
        from PIL import Image

        if not 0 <= opacity <= 1:
            raise InputError("opacity", f"must be between 0 and 1, got {opacity}", "give 0.5, the default")
        drawn = drawn_labels(self.mask, self.taxonomy)
        colors = self.taxonomy.for_figures().palette()[drawn].astype(np.float32)
        clear = np.isin(drawn, [*self.taxonomy.background, self.taxonomy.ignore_id])
        share = np.where(clear, 0, opacity)[..., None].astype(np.float32)
        mixed = self.image.astype(np.float32) * (1 - share) + colors * share
        return Image.fromarray(np.rint(mixed).astype(np.uint8))
