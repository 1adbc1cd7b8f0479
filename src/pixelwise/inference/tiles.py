"""Overlap-tile strategy: label an image of any size in tiles that give exactly the logits of the whole image.

A network of valid convolutions sees true pixels only, so a tile cut with its surroundings gives the same logits as the
image; pixels beyond the border are reflected. Source: U-Net, figure 2 (https://arxiv.org/abs/1505.04597).
"""

from __future__ import annotations

from torch import Tensor

from ..core import LowResLogits
from ..errors import ConfigError
from ..models.base import SegmentationModel
from ..nn.reflect_pad import reflect_pad
from ..nn.upsampling import Identity


def tiled_logits(model: SegmentationModel, images: Tensor, tile: int) -> LowResLogits:
    """Compute the logits of images (B, C, H, W) in tiles of `tile` x `tile` pixels.

    The result equals `model.forward_low_res(images)`, which needs the memory of the whole image. Neighboring tiles lie
    a multiple of `model.tile_step` apart (U-Net: 16 pixels, the grid of its four poolings), because a shifted grid
    gives other logits. U-Net: tiles of 388 pixels start 384 apart (388 rounded down to a multiple of 16) and overlap
    by 4. Raises ConfigError for a network whose padding would show at the
    seams, and for a tile that the network cannot compute.
    """
    check_tile(model, tile)
    height, width = images.shape[-2:]
    context, tile_step = model.context_px, model.tile_step
    window, stride = tile + 2 * context, tile - tile % tile_step
    padded = reflect_pad(images, context, (model.input_size(height), model.input_size(width)))
    padded_height, padded_width = (size - 2 * context for size in padded.shape[-2:])
    logits: Tensor | None = None
    # The first tile that reaches the end is the last one: a start in the last `tile_step` pixels adds no logits.
    for top in range(0, max(padded_height - tile_step, 1), stride):
        for left in range(0, max(padded_width - tile_step, 1), stride):
            part = model.forward_with_context(padded[..., top : top + window, left : left + window]).logits
            if logits is None:
                logits = part.new_empty(*part.shape[:2], padded_height, padded_width)
            logits[..., top : top + tile, left : left + tile] = part
    assert logits is not None, "an image has at least one tile"
    return LowResLogits(logits[..., :height, :width], Identity())


def check_tile(model: SegmentationModel, tile: int) -> None:
    """Raise ConfigError unless tiles of `tile` pixels give the logits of the whole image."""
    if not model.context_px or model.logits_stride != 1:
        what = "the network pads its convolutions, so tiles would differ from the whole image at their seams"
        raise ConfigError("tile", what, "leave the tile out; networks of valid convolutions, as unet, take one")
    step = model.tile_step
    # U-Net's sizes without extra padding are 4 modulo 16. A tile of 4 would not advance, so tiles are 20, 36, ..., 388:
    # 20 = input_size(1) - 184 + 16.
    smallest = model.input_size(1) - 2 * model.context_px + step
    if tile < smallest or (tile - smallest) % step:
        nearest = max((tile - smallest) // step, 0) * step + smallest
        raise ConfigError(
            "tile", f"must be {smallest} + a multiple of {step}, got {tile}", f"take {nearest} or {nearest + step}"
        )
