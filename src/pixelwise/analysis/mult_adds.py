"""Parameters and multiply-adds of a network, counted where they happen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

_ATEN = torch.ops.aten


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every tensor operation, also those that are no module, on any device including `meta`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        if operation is _ATEN.convolution.default:
            transposed = args[6]
            # Each output of a convolution, and each input of a transposed one, meets the kernel once.
            cells = args[0] if transposed else result
            self.total += cells.numel() * args[1][0].numel()
        elif operation is _ATEN.addmm.default:
            self.total += result.numel() * args[1].shape[1]
        elif operation is _ATEN.mm.default or operation is _ATEN.bmm.default:
            self.total += result.numel() * args[0].shape[-1]
        return result


def multiply_adds(function: Callable[[], Any]) -> int:
    """Multiply-adds of the convolutions, transposed convolutions and matrix products that calling `function` runs.

    Biases, norms, activations, poolings and interpolations are not counted. On the `meta` device nothing is computed.
    """
    counter = _Counter()
    with torch.no_grad(), counter:
        function()
    return counter.total


def num_parameters(module: nn.Module) -> int:
    """Learnable numbers; running statistics and fixed kernels are none."""
    return sum(p.numel() for p in module.parameters())
