"""Test-time augmentation: labels from the mean of the probabilities of an image's mirrored and scaled copies.

Each view of the image (H, W) is the image resized by a scale s to (round(s H), round(s W)), and with `flip` also the
mirror of it. The network labels every view at the view's own size; its logits are upsampled by the network's own
upsampling, mirrored back and resized bilinearly to (H, W), with the centers of the corner pixels apart by the scale
(half-pixel centers, OpenCV's convention). The probabilities are the mean over the views of the softmax at native size:

    p(k | x, y) = 1/V sum_v softmax_k(resize(upsample(logits_v)))(x, y)

Source: PSPNet (https://arxiv.org/abs/1612.01105) and DeepLab v3+ (https://arxiv.org/abs/1802.02611) average the scores
of mirror images and of several scales; the order of the steps (resize logits, softmax, mean) is mmsegmentation's.

Upsampling and resizing are separable and linear, so their product is one table per axis. The labels are computed
block by block from the low-resolution logits of the views, as without augmentation: no (K, H, W) tensor exists unless
the probabilities are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core import LowResLogits
from ..errors import ConfigError
from ..models.base import SegmentationModel
from ..nn.interpolation import Table
from ..nn.upsampling import Bilinear
from .label_map import BLOCK, Block, bands, low_res_logits

SCALE_RANGE = (0.1, 4.0)


@dataclass(frozen=True)
class Augmentation:
    """The views of an image whose probabilities are averaged. Raises ConfigError for scales out of 0.1..4.

    flip    also the mirror image of each
    scales  factors on height and width; (1,) without `flip` is the plain image
    """

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        low, high = SCALE_RANGE
        if not self.scales or not all(low <= scale <= high for scale in self.scales):
            what = f"expected scales of {low:g} to {high:g}, got {' '.join(f'{s:g}' for s in self.scales) or 'none'}"
            raise ConfigError("--scales", what, "write --scales 0.75 1 1.25")
        if len(set(self.scales)) < len(self.scales):
            raise ConfigError("--scales", "names one scale twice", "name each scale once")

    @property
    def is_plain(self) -> bool:
        """Whether the image itself is the only view."""
        return not self.flip and self.scales == (1.0,)

    def __str__(self) -> str:
        scales = "" if self.scales == (1.0,) else "scales " + ", ".join(f"{scale:g}" for scale in self.scales)
        return " and ".join(part for part in ("mirror" if self.flip else "", scales) if part) or "none"


class View(NamedTuple):
    """The logits (K, h, w) of one view, and per axis the table from the image's pixels to them.

    A table gives each pixel's source indices and weights, both (H, n) or (W, n).
    """

    logits: Tensor
    rows: Table
    columns: Table


def compute_views(
    model: SegmentationModel,
    image: NDArray[Any],
    device: torch.device,
    augmentation: Augmentation,
    *,
    precision: str = "float32",
    tile: int | None = None,
    source: object = "image",
) -> list[View]:
    """Run the network on every view of an image (H, W, C) uint8; the arguments are those of `low_res_logits`."""
    height, width = image.shape[:2]
    views = []
    for scale in augmentation.scales:
        size = max(1, round(scale * height)), max(1, round(scale * width))
        resized = image
        if size != (height, width):
            import cv2

            resized = np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR), image.dtype)
            resized = resized.reshape(*size, image.shape[2])
        for mirrored in (False, True) if augmentation.flip else (False,):
            low_res = low_res_logits(
                model,
                resized[:, ::-1].copy() if mirrored else resized,
                device,
                precision=precision,
                tile=tile,
                source=source,
            )
            rows, columns = _tables(low_res, size, (height, width))
            # Pixel x of the image lies on pixel W - 1 - x of the mirror image.
            views.append(View(low_res.logits[0], rows, (columns[0][::-1], columns[1][::-1]) if mirrored else columns))
    return views


def _tables(low_res: LowResLogits, size: tuple[int, int], native: tuple[int, int]) -> tuple[Table, Table]:
    """Return for both axes the product of the network's upsampling to `size` and of the resizing to `native`."""
    rows, columns = (
        _product(Bilinear().interpolation_table(between, out), low_res.upsample.interpolation_table(low, between))
        for low, between, out in zip(low_res.logits.shape[-2:], size, native, strict=True)
    )
    return rows, columns


def _product(outer: Table, inner: Table) -> Table:
    """Return the table of `outer` applied after `inner`: each source's sources, and the products of the weights."""
    (indices, weights), (sources, shares) = outer, inner
    length = len(indices)
    return sources[indices].reshape(length, -1), (weights[:, :, None] * shares[indices]).reshape(length, -1)


def softmax(logits: Tensor) -> Tensor:
    """Return the probabilities of logits (K, ...)."""
    return logits.softmax(0)


def argmax_of_views(views: Sequence[View]) -> NDArray[Any]:
    """Return the class ids (H, W) of the mean probabilities, uint8, or uint16 for more than 255 classes."""
    logits = views[0].logits
    labels = torch.empty(_size(views), dtype=torch.int64, device=logits.device)
    for rows, columns, block in view_blocks(views, softmax):
        labels[rows, columns] = block.max(0).indices
    return labels.cpu().numpy().astype(np.uint8 if logits.shape[0] <= 255 else np.uint16)


def probabilities_of_views(
    views: Sequence[View], activation: Callable[[Tensor], Tensor] = softmax
) -> NDArray[np.float32]:
    """Return the mean of the probabilities that `activation` makes of logits, (K, H, W) float32."""
    probs = np.empty((views[0].logits.shape[0], *_size(views)), np.float32)
    for rows, columns, block in view_blocks(views, activation):
        probs[:, rows, columns] = block.cpu().numpy()
    return probs


def _size(views: Sequence[View]) -> tuple[int, int]:
    return len(views[0].rows[0]), len(views[0].columns[0])


def view_blocks(views: Sequence[View], activation: Callable[[Tensor], Tensor]) -> Iterator[Block]:
    """Yield blocks of the image with the mean over the views of the probabilities that `activation` makes of logits."""
    device = views[0].logits.device
    bands_of_rows = [list(bands(view.rows, band=BLOCK[0], device=device)) for view in views]
    bands_of_columns = [bands(view.columns, band=BLOCK[1], device=device) for view in views]
    # A caller's autocast would round the logits.
    with torch.autocast(device.type, enabled=False):
        for strips in zip(*bands_of_columns, strict=True):
            wide = [
                view.logits[:, :, source] @ weights.T for view, (_, source, weights) in zip(views, strips, strict=True)
            ]
            for parts in zip(*bands_of_rows, strict=True):
                probs = [
                    activation(weights @ strip[:, source])
                    for strip, (_, source, weights) in zip(wide, parts, strict=True)
                ]
                yield parts[0][0], strips[0][0], torch.stack(probs).mean(0) if len(probs) > 1 else probs[0]
