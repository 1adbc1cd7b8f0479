"""From one image to its label map: low-resolution logits, then upsampling and argmax in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core import LowResLogits
from ..errors import InputError
from ..models.base import SegmentationModel
from ..nn.upsampling import Identity
from . import argmax_numpy
from .argmax_numpy import axis_of, label_dtype
from .tiles import tiled_logits

BLOCK = (64, 256)
"""Height and width of the blocks that are upsampled one by one, so that the full (K, H, W) tensor never exists."""
PIXELS_BEFORE_LOOPS = 12_000_000
"""The pixels that a process labels by NumPy, in 0.3 s; the compiled loops take 0.5 s to load, or 6 s to compile."""
_pixels = 0
Block = tuple[slice, slice, Tensor]
"""The rows and columns of a block, and its logits or probabilities (K, rows, columns)."""


def as_batch(image: NDArray[Any], device: torch.device) -> Tensor:
    """Return one image (H, W, C) uint8 as a batch (1, C, H, W) uint8 on the device."""
    # A copy, because `ascontiguousarray` keeps negative strides along axes of length 1, which torch refuses.
    return torch.from_numpy(image.transpose(2, 0, 1).copy())[None].to(device)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context of a forward pass: none for float32, bfloat16 where torch allows it."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def low_res_logits(
    model: SegmentationModel,
    image: NDArray[Any],
    device: torch.device,
    *,
    precision: str = "float32",
    tile: int | None = None,
    source: object = "image",
) -> LowResLogits:
    """Run the network on one image (H, W, C) uint8; the logits (1, K, h, w) are float32.

    tile    compute in tiles of that many pixels per side, see `tiled_logits`; None for the whole image at once
    source  the name of the image in the error
    Raises InputError for logits that are not finite, which would become a mask of the first class.
    """
    images = as_batch(image, device).contiguous(memory_format=torch.channels_last)
    with autocast(precision, device):
        low_res = model.forward_low_res(images) if tile is None else tiled_logits(model, images, tile)
    logits = low_res.logits.float()
    if not bool(logits.isfinite().all()):
        what = "the network computes logits that are not finite (NaN or infinity) for it"
        raise InputError(source, what, "use another checkpoint: the numbers of this one are damaged or too large")
    return low_res._replace(logits=logits)


def label_map(
    model: SegmentationModel,
    image: NDArray[Any],
    device: torch.device,
    *,
    precision: str = "float32",
    source: object = "image",
) -> NDArray[Any]:
    """Label one image (H, W, C) uint8: class ids (H, W), uint8, or uint16 for more than 255 classes.

    source  the name of the image in the error of `low_res_logits`
    """
    return argmax_upsampled(low_res_logits(model, image, device, precision=precision, source=source), image.shape[:2])


def argmax_upsampled(low_res: LowResLogits, size: tuple[int, ...]) -> NDArray[Any]:
    """Return the class ids (H, W) of the upsampled logits, uint8, or uint16 for more than 255 classes.

    The first of equal logits wins.
    """
    logits = low_res.logits[0]
    dtype = label_dtype(len(logits))
    if isinstance(low_res.upsample, Identity):
        return np.asarray(logits.max(0).indices.cpu().numpy(), dtype)
    if logits.device.type != "cpu":
        labels = torch.empty(size, dtype=torch.int64, device=logits.device)
        for rows, columns, block in upsampled_blocks(low_res, size):
            # `max` finds the same indices as `argmax`, four times as fast along this axis.
            labels[rows, columns] = block.max(0).indices
        return labels.cpu().numpy().astype(dtype)
    height, width = (
        axis_of(low_res.upsample.interpolation_table(*sides)) for sides in zip(logits.shape[1:], size, strict=True)
    )
    if not _loops_pay(size[0] * size[1]):
        return argmax_numpy.argmax_upsampled(logits.detach().numpy(), height, width)
    from . import argmax_loops

    return argmax_loops.argmax_upsampled(logits.detach().permute(1, 2, 0).contiguous().numpy(), height, width)


def _loops_pay(pixels: int) -> bool:
    """Count the pixels that this process labels; return whether they are worth loading the compiled loops."""
    global _pixels
    _pixels += pixels
    return _pixels > PIXELS_BEFORE_LOOPS


def upsampled_blocks(low_res: LowResLogits, size: tuple[int, ...]) -> Iterator[Block]:
    """Yield the blocks of the upsampled logits of an image of `size` (H, W).

    Upsampling is separable and linear, so a block is rows (H', h') @ logits (K, h', w') @ columns (w', W'): two small
    matrix products.
    """
    logits, upsample = low_res.logits[0], low_res.upsample
    rows_table = upsample.interpolation_table(logits.shape[1], size[0])
    columns_table = upsample.interpolation_table(logits.shape[2], size[1])
    bands_of_rows = list(bands(rows_table, band=BLOCK[0], device=logits.device))
    bands_of_columns = bands(columns_table, band=BLOCK[1], device=logits.device)
    # A caller's autocast would round the logits, and move the borders between classes.
    with torch.autocast(logits.device.type, enabled=False):
        # Columns outside: the wide strip (K, h, band) is computed once and serves all bands of rows.
        for columns, source_columns, column_weights in bands_of_columns:
            wide = logits[:, :, source_columns] @ column_weights.T
            for rows, source_rows, row_weights in bands_of_rows:
                yield rows, columns, row_weights @ wide[:, source_rows]


def bands(
    table: tuple[NDArray[np.intp], NDArray[np.float32]], *, band: int, device: torch.device
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Cut one axis into bands of `band` output pixels.

    table  of each output pixel the indices of the logits that it depends on and their weights, both (pixels, n)
    Yields the pixels of each band, the logits that they depend on, and the weights (pixels, logits) float32.
    """
    indices, weights = table
    for start in range(0, len(indices), band):
        sources, shares = indices[start : start + band], weights[start : start + band]
        low = int(sources.min())
        matrix = np.zeros((len(sources), int(sources.max()) + 1 - low), np.float32)
        # Several sources of a pixel may be the same at the border, so the weights are added, not assigned.
        np.add.at(matrix, (np.arange(len(sources))[:, None], sources - low), shares)
        yield (
            slice(start, start + len(sources)),
            slice(low, low + matrix.shape[1]),
            torch.from_numpy(matrix).to(device),
        )


def probabilities(low_res: LowResLogits, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the softmax of the upsampled logits, (K, H, W) float32."""
    full = low_res.upsample(low_res.logits, size)
    return np.asarray(full.softmax(1)[0].cpu().numpy(), np.float32)
