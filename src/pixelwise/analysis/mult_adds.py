"""Parameters and multiply-adds of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

# Functions that draw random values, as initialization does.
_RANDOM = ("normal_", "uniform_")


class ShapesOnly(TorchFunctionMode):
    """On the meta device, skip batch norms and random initialization: shapes are all that matters there.

    torch works through both in Python, which takes most of the time of building and counting a network, and imports its
    compiler for the second, which takes seconds. Off the meta device nothing changes.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the function, or return a tensor of the shape of its result without calling it."""
        if args and isinstance(args[0], Tensor) and args[0].is_meta:
            if function is F.batch_norm:
                return torch.empty_like(args[0])
            if getattr(function, "__name__", "") in _RANDOM:
                return args[0]
        return function(*args, **(kwargs or {}))


@contextmanager
def on_meta() -> Iterator[None]:
    """Build networks on the meta device, without values and memory."""
    with torch.device("meta"), ShapesOnly():
        yield


def multiply_adds(function: Callable[[], Any]) -> int:
    """Count the multiply-adds of all convolutions, transposed convolutions and matrix products that `function()` runs.

    Biases, norms, activations, poolings and interpolations are not counted. On the `meta` device nothing is computed.
    """
    with torch.no_grad(), ShapesOnly(), FlopCounterMode(display=False) as counter:
        function()
    # torch counts a multiply-add as two floating-point operations.
    return int(counter.get_total_flops()) // 2


def num_parameters(module: nn.Module) -> int:
    """Count the parameters of a module; running statistics and fixed kernels are buffers and do not count."""
    return sum(parameter.numel() for parameter in module.parameters())
