"""From one picture to its label map: coarse scores, then upsampling and argmax."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core import Coarse
from ..nn.model import SegmentationModel

ROWS_AT_ONCE = 64
"""Rows of the label map that are upsampled together; the full (K, H, W) tensor never exists."""


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The arithmetic of a forward pass: float32 as it is, bfloat16 where the network allows."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def coarse_scores(model: SegmentationModel, image: NDArray[np.uint8], device: torch.device, precision: str = "float32") -> Coarse:
    """image (H, W, C) uint8 -> Coarse with scores (1, K, h, w) float32."""
    images = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).to(device)[None]
    with autocast(precision, device):
        coarse = model.coarse(images.contiguous(memory_format=torch.channels_last))
    return coarse._replace(scores=coarse.scores.float())


def label_map(model: SegmentationModel, image: NDArray[np.uint8], device: torch.device, precision: str = "float32") -> NDArray[Any]:
    """image (H, W, C) uint8 -> class ids (H, W), uint8, or uint16 beyond 255 classes."""
    return argmax_upsampled(coarse_scores(model, image, device, precision))


def argmax_upsampled(coarse: Coarse) -> NDArray[Any]:
    """Class ids (H, W) of the upsampled scores, band by band of rows.

    Both axes of the map are applied as tables of taps: columns once, then the rows of each band.
    """
    scores = coarse.scores[0]
    height, width = coarse.size
    wide = _apply_taps(scores, *coarse.upsample.taps(scores.shape[2], width), axis=2)
    cells, weights = coarse.upsample.taps(scores.shape[1], height)
    bands = [
        _apply_taps(wide, cells[top : top + ROWS_AT_ONCE], weights[top : top + ROWS_AT_ONCE], axis=1).argmax(0)
        for top in range(0, height, ROWS_AT_ONCE)
    ]
    labels: NDArray[Any] = torch.cat(bands).cpu().numpy().astype(np.uint8 if scores.shape[0] <= 255 else np.uint16)
    return labels


def probabilities(coarse: Coarse) -> NDArray[np.float32]:
    """Softmax of the upsampled scores, (K, H, W) float32."""
    full = coarse.upsample(coarse.scores, coarse.size)
    return np.asarray(full.softmax(1)[0].cpu().numpy(), np.float32)


def _apply_taps(scores: Tensor, cells: NDArray[np.intp], weights: NDArray[np.float32], axis: int) -> Tensor:
    """Mix two cells per pixel along one axis of (K, h, w)."""
    shape = [1, 1, 1]
    shape[axis] = len(cells)
    index = torch.from_numpy(np.ascontiguousarray(cells)).to(scores.device)
    weight = torch.from_numpy(np.ascontiguousarray(weights)).to(scores.device)
    first, second = (scores.index_select(axis, index[:, tap]) * weight[:, tap].view(shape) for tap in (0, 1))
    return first + second
