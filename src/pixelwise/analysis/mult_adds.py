"""Parameters and multiply-adds of a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def multiply_adds(function: Callable[[], Any]) -> int:
    """Count the multiply-adds of all convolutions, transposed convolutions and matrix products that `function()` runs.

    Biases, norms, activations, poolings and interpolations are not counted. On the `meta` device nothing is computed.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        function()
    # torch counts a multiply-add as two floating-point operations.
    return int(counter.get_total_flops()) // 2


def num_parameters(module: nn.Module) -> int:
    """Count the learnable numbers of a module; running statistics and fixed kernels are buffers and do not count."""
    return sum(parameter.numel() for parameter in module.parameters())
