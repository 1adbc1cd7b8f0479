"""Parts of the tests' independent answers: norms with all their numbers set, and operators by their definition."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def randomize_norms(module: nn.Module) -> None:
    """Set all numbers of the batch norms: a fresh norm is nearly the identity, which would hide a lost one."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            nn.init.uniform_(layer.running_mean, -0.3, 0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.uniform_(layer.bias, -0.3, 0.3)


def conv_norm_relu(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """Compute a padded convolution, a batch normalization in eval mode and a ReLU by their formulas."""
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    padding = conv.dilation[0] * (conv.kernel_size[0] // 2)
    x = functional.conv2d(x, conv.weight, padding=padding, dilation=conv.dilation)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return ((x - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]).clamp_min(0)


def aligned_bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate bilinearly with aligned corners by the definition: two matrices of weights."""

    def weights(in_size: int, out_size: int) -> Tensor:
        positions = torch.linspace(0, in_size - 1, out_size) if out_size > 1 else torch.zeros(1)
        return (1 - (positions[:, None] - torch.arange(in_size)).abs()).clamp_min(0)

    return weights(x.shape[-2], size[0]) @ x @ weights(x.shape[-1], size[1]).T
