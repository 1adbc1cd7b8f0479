"""Which pixels of the image an output pixel can depend on, measured on the network's structure alone.

The network runs with all its numbers set to 1, one channel in place of many, rectifiers and norms left out and maxima
replaced by averages: then no weight, no dead unit and no lost maximum hides a path, and an input pixel has a gradient
exactly when some path leads from it to the output. Two thin strips, one an axis, stand for the image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..core import Window
from ..models.base import SegmentationModel

# Width of a strip in pixels; the other axis does not change which pixels count.
STRIP = 32
# Longest strip in pixels: a field beyond that counts as the whole image.
MAX_LENGTH = 8192

_RECTIFIERS = {"relu", "relu_", "relu6", "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_"}
_LEFT_OUT = _RECTIFIERS | {"batch_norm", "local_response_norm", "dropout", "dropout2d"}


def receptive_field_window(model: SegmentationModel, size: tuple[int, int], pixel: tuple[int, int]) -> Window:
    """The pixels of an image of `size` (height, width) that the output at `pixel` (row, column) can depend on."""
    (top, bottom), (left, right) = (spans(model, size[axis], [pixel[axis]], axis)[0] for axis in (0, 1))
    return Window(top, left, bottom, right)


def receptive_field_size(model: SegmentationModel, length: int, positions: Sequence[int]) -> int | None:
    """The widest field of the output pixels at `positions` of an axis of `length` pixels, were the image endless.

    None where it is still cut off on MAX_LENGTH pixels, as behind a global pooling.
    """
    # A multiple of every usual stride, so that pixels keep their place between the cells.
    room = 256
    while length + 2 * room <= MAX_LENGTH:
        found = spans(model, length + 2 * room, [position + room for position in positions])
        if all(first > 0 and end < length + 2 * room for first, end in found):
            return max(end - first for first, end in found)
        room *= 2
    return None


def spans(model: SegmentationModel, length: int, positions: Sequence[int], axis: int = 0) -> list[tuple[int, int]]:
    """For output pixels at `positions` along an axis of `length` pixels, the first pixel that counts and the one behind the last.

    Double precision: the outermost path of a deep network weighs less than single precision can hold.
    """
    one = torch.ones((), dtype=torch.float64)
    state = {
        name: one.expand(t.shape)
        for name, t in (*model.named_parameters(), *model.named_buffers())
        if t.is_floating_point()
    }
    size = (length, STRIP) if axis == 0 else (STRIP, length)
    images = torch.zeros(1, model.in_channels, *size, dtype=torch.float64, requires_grad=True)
    with _Structure():
        logits = torch.func.functional_call(model, state, (images,)).logits
    # Pixels x channels are summed, which leaves one number a position on the axis.
    line = logits[0].sum(2 - axis).sum(0)
    found = []
    for position in positions:
        (gradient,) = torch.autograd.grad(line[position], images, retain_graph=True)
        reached = gradient[0].sum((0, 2 - axis)).nonzero().flatten()
        assert len(reached), "no path from the image to the output"
        found.append((int(reached[0]), int(reached[-1]) + 1))
    return found


class _Structure(TorchFunctionMode):
    """Replaces every layer by the plainest one with the same reach."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        name = getattr(function, "__name__", "")
        if name in _LEFT_OUT:
            return args[0]
        if name in ("max_pool2d", "max_pool2d_with_indices"):
            return _average(*args, **options)
        if name == "amax":
            return args[0].mean(*args[1:], **options)
        if name == "conv2d":
            return _convolve(*args, **options)
        if name == "conv_transpose2d":
            return _spread(*args, **options)
        return function(*args, **options)


def _convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    return F.conv2d(x.mean(1, keepdim=True), _even_kernel(x, weight), None, stride, padding, dilation)


def _spread(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    return F.conv_transpose2d(
        x.mean(1, keepdim=True), _even_kernel(x, weight), None, stride, padding, output_padding, 1, dilation
    )


def _even_kernel(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_full((1, 1, *weight.shape[2:]), 1 / weight[0, 0].numel())


def _average(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    assert dilation in (1, (1, 1)), "a dilated maximum has no average of the same reach"
    assert not return_indices, "an average has no switches"
    return F.avg_pool2d(x, (height, width), stride, padding, ceil_mode)
