"""Labels at the centers of the logits: DeepLab's every eighth pixel, the middle of a block, none outside the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.core import LowResLogits
from pixelwise.nn.upsampling import Bilinear, Identity, TransposedBilinear, center_pixels, low_res_labels


def test_aligned_corners_are_every_eighth_pixel() -> None:
    """Source: DeepLab v1 and v2 train against labels at pixels 0, 8, 16, ..."""
    assert center_pixels(Bilinear(align_corners=True), 41, 321).tolist() == list(range(0, 321, 8))


@given(st.integers(1, 9), st.integers(1, 9))
def test_the_center_of_a_block_is_its_middle(in_size: int, stride: int) -> None:
    pixels = center_pixels(Bilinear(), in_size, in_size * stride)
    middles = (np.arange(in_size) + 0.5) * stride - 0.5
    # The outer half of the first and last block has weight one everywhere; of the others, the nearest pixel is at most
    # half a pixel off.
    assert (np.abs(pixels - middles)[1:-1] <= 0.5).all()
    assert (pixels // stride == np.arange(in_size)).all()


def test_logits_in_fcns_padding_have_no_labels() -> None:
    """FCN-32s: kernel 64, stride 32, crop 19, so that logit i is centered on pixel 32 i + 12.5."""
    pixels = center_pixels(TransposedBilinear(64, 32, 19), 16, 100)
    assert pixels.tolist()[:4] == [12, 44, 76, 99]
    assert set(pixels.tolist()[5:]) == {-1}
    masks = torch.arange(100)[None, :, None].expand(1, 100, 100)
    labels = low_res_labels(LowResLogits(torch.zeros(1, 2, 16, 16), TransposedBilinear(64, 32, 19)), masks, 255)
    assert labels.shape == (1, 16, 16)
    assert labels[0, :3, 0].tolist() == [12, 44, 76]
    assert (labels[0, 5:] == 255).all()
    assert (labels[0, :, 5:] == 255).all()


def test_full_size_logits_keep_every_label() -> None:
    masks = torch.randint(0, 5, (2, 6, 7))
    assert torch.equal(low_res_labels(LowResLogits(torch.zeros(2, 5, 6, 7), Identity()), masks, 255), masks)


@pytest.mark.parametrize("size", [(1, 1), (5, 13)])
def test_each_label_is_one_of_the_image(size: tuple[int, int]) -> None:
    masks = torch.randint(0, 9, (1, *size))
    labels = low_res_labels(LowResLogits(torch.zeros(1, 9, 3, 4), Bilinear()), masks, 255)
    assert set(labels.flatten().tolist()) - {255} <= set(masks.flatten().tolist())
