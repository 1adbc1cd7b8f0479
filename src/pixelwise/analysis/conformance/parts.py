"""Parts: bilinear upsampling kernels, local response normalization."""

from __future__ import annotations

import torch
from torch import nn

from ...nn.blocks import caffe_lrn
from ...nn.interpolation import bilinear_profile
from ...nn.upsampling import bilinear_kernel
from .rows import Family

KERNEL_ROWS, LRN_ROWS = Family("bilinear kernel"), Family("LRN")
SIZES = (4, 16, 32, 64, 63)


@KERNEL_ROWS.row("size 4", "1-D profile")
def _profile() -> list[float]:
    return [float(value) for value in bilinear_profile(4)]


@KERNEL_ROWS.row("sizes 4", "1-D sum", within=1e-9)
def _sums() -> list[float]:
    return [float(bilinear_profile(size).sum()) for size in SIZES]


@KERNEL_ROWS.row("sizes 4", "2-D maximum", within=1e-6)
def _maxima() -> list[float]:
    return [float(bilinear_kernel(size, 1).max()) for size in SIZES]


def _normalized(layer: nn.LocalResponseNorm) -> list[float]:
    channels = torch.arange(10.0, 70.0, 10.0).view(1, 6, 1, 1)
    return [float(value) for value in layer(channels).flatten()]


@LRN_ROWS.row("x=10", "Caffe", within=1e-6)
def _caffe() -> list[float]:
    return _normalized(caffe_lrn())


@LRN_ROWS.row("x=10", "AlexNet paper", within=1e-6)
def _paper() -> list[float]:
    # The paper's formula is torch's layer with an undivided alpha; no network here uses it.
    return _normalized(nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0))
