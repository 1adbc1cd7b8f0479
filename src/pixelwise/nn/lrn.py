"""Local response normalisation across channels, as Caffe computes it."""

from __future__ import annotations

from torch import nn


def caffe_lrn() -> nn.LocalResponseNorm:
    """x / (1 + 1e-4 / 5 * sum of squares over five neighbouring channels) ** 0.75, (B, C, H, W) -> same.

    Caffe divides alpha by the window's length and adds 1; the AlexNet paper adds 2 and does not divide, which is
    another function. Source: BVLC CaffeNet and GoogLeNet prototxt files.
    """
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
