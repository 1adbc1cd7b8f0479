"""From one image to its label map: coarse scores, then upsampling and argmax."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core import LowResLogits, Upsample
from ..models.base import SegmentationModel

TILE = (64, 256)
"""Height and width of what is upsampled at once; the full (K, H, W) tensor never exists."""


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The arithmetic of a forward pass: float32 as it is, bfloat16 where the network allows."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def low_res_logits(
    model: SegmentationModel, image: NDArray[np.uint8], device: torch.device, precision: str = "float32"
) -> LowResLogits:
    """Run the network on one image (H, W, C) uint8; the logits (1, K, h, w) are float32."""
    images = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).to(device)[None]
    with autocast(precision, device):
        low_res = model.forward_low_res(images.contiguous(memory_format=torch.channels_last))
    return low_res._replace(logits=low_res.logits.float())


def label_map(
    model: SegmentationModel, image: NDArray[np.uint8], device: torch.device, precision: str = "float32"
) -> NDArray[Any]:
    """image (H, W, C) uint8 -> class ids (H, W), uint8, or uint16 beyond 255 classes."""
    return argmax_upsampled(low_res_logits(model, image, device, precision), image.shape[:2])


def argmax_upsampled(low_res: LowResLogits, size: tuple[int, ...]) -> NDArray[Any]:
    """Class ids (H, W) of the upsampled scores, tile by tile: each axis of a tile is one small matrix product.

    uint8, or uint16 beyond 255 classes; the first of equal scores wins.
    """
    scores, upsample = low_res.logits[0], low_res.upsample
    labels = torch.empty(size, dtype=torch.int64, device=scores.device)
    rows = list(_bands(upsample, scores.shape[1], size[0], TILE[0], scores.device))
    # Lower precision of the caller would round the scores, and with them the borders.
    with torch.autocast(scores.device.type, enabled=False):
        for columns, cells, mix_columns in _bands(upsample, scores.shape[2], size[1], TILE[1], scores.device):
            wide = scores[:, :, cells] @ mix_columns.T
            for pixels, near, mix_rows in rows:
                # `max` finds the same places as `argmax`, four times as fast along this axis.
                labels[pixels, columns] = (mix_rows @ wide[:, near]).max(0).indices
    return labels.cpu().numpy().astype(np.uint8 if scores.shape[0] <= 255 else np.uint16)


def _bands(
    upsample: Upsample, num_cells: int, num_pixels: int, step: int, device: torch.device
) -> Iterator[tuple[slice, slice, Tensor]]:
    """One axis in bands: the band's pixels, the cells that they mix, and the weights (pixels, cells) float32."""
    cells, weights = upsample.interpolation_table(num_cells, num_pixels)
    for start in range(0, num_pixels, step):
        near, shares = cells[start : start + step], weights[start : start + step]
        low = int(near.min())
        mix = np.zeros((len(near), int(near.max()) + 1 - low), np.float32)
        np.add.at(mix, (np.arange(len(near))[:, None], near - low), shares)
        yield slice(start, start + len(near)), slice(low, low + mix.shape[1]), torch.from_numpy(mix).to(device)


def probabilities(low_res: LowResLogits, size: tuple[int, int]) -> NDArray[np.float32]:
    """Softmax of the upsampled scores, (K, H, W) float32."""
    full = low_res.upsample(low_res.logits, size)
    return np.asarray(full.softmax(1)[0].cpu().numpy(), np.float32)
