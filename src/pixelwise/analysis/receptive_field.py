"""The receptive field of an output pixel, measured on any network.

Every weight is replaced by 1 and every maximum by a mean; activations, norms and dropout are dropped. The gradient of
the input then shows the receptive field: it is non-zero exactly where a path leads from the input pixel to the output
pixel. No zero weight, no dead unit and no lost maximum can hide a path. One channel stands for all, since every channel
sees the same pixels, and one thin strip per axis stands for the image, since the two axes are independent.
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

# Width of a strip in pixels; the extent along one axis does not depend on the size of the other.
STRIP_WIDTH = 32
# Longest strip in pixels. A receptive field that does not fit counts as the whole image.
MAX_LENGTH = 8192
# Output pixels that are compared.
_PIXELS = 8

# Functions that act on each position alone, and so leave the receptive field as it is.
_POINTWISE = {"relu", "relu_", "relu6", "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_"}
_POINTWISE |= {"batch_norm", "local_response_norm", "dropout", "dropout2d"}


def receptive_field_window(model: SegmentationModel, size: tuple[int, int], pixel: tuple[int, int]) -> Window:
    """Return the window of an image of `size` (height, width) that the output at `pixel` (row, column) depends on."""
    ((top, bottom),) = receptive_field_extent(model, size[0], [pixel[0]], axis=0)
    ((left, right),) = receptive_field_extent(model, size[1], [pixel[1]], axis=1)
    return Window(top, left, bottom, right)


def receptive_field_size(model: SegmentationModel, stride: int) -> int | None:
    """Return the most pixels per side that any output pixel depends on: the one figure of a network's receptive field.

    Output pixels differ: one that is interpolated between two positions of a feature map sees the fields of both, and
    where sides are no multiple of `stride`, that of the coarsest map, maps are resized by odd factors. So the largest
    of eight pixels of one period is taken, for images of three sizes, far from the borders.
    Returns None if the borders cut it off even in MAX_LENGTH pixels, as after a global pooling.
    """
    # A length that is a multiple of every usual stride; the fields of other pixels are at most two positions larger.
    length = 1024
    while length <= MAX_LENGTH:
        ((start, stop),) = receptive_field_extent(model, length, [length // 2])
        if start > 2 * stride and stop < length - 2 * stride:
            pixels = [length // 2 + number * stride // _PIXELS for number in range(min(stride, _PIXELS))]
            extents = (receptive_field_extent(model, length + extra, pixels) for extra in {0, 1, stride // 2 + 1})
            return max(stop - start for line in extents for start, stop in line)
        length *= 2
    return None


def receptive_field_extent(
    model: SegmentationModel, length: int, positions: Sequence[int], axis: int = 0
) -> list[tuple[int, int]]:
    """Return the receptive field (start, stop) of each output pixel in `positions` along an axis of `length` pixels.

    axis  0 for rows, 1 for columns
    """
    # Double precision: in a deep network the outermost path weighs less than single precision can hold.
    one = torch.ones((), dtype=torch.float64)
    tensors = (*model.named_parameters(), *model.named_buffers())
    state = {name: one.expand(tensor.shape) for name, tensor in tensors if tensor.is_floating_point()}
    size = (length, STRIP_WIDTH) if axis == 0 else (STRIP_WIDTH, length)
    images = torch.zeros(1, model.in_channels, *size, dtype=torch.float64, requires_grad=True)
    with _PathsOnly():
        logits = torch.func.functional_call(model, state, (images,)).logits
    # Sum over classes and the other axis: one number per position.
    line = logits[0].sum(2 - axis).sum(0)
    extents = []
    for position in positions:
        (gradient,) = torch.autograd.grad(line[position], images, retain_graph=True)
        reached = gradient[0].sum((0, 2 - axis)).nonzero().flatten()
        assert len(reached), "no path from the image to the output"
        extents.append((int(reached[0]), int(reached[-1]) + 1))
    return extents


class _PathsOnly(TorchFunctionMode):
    """Replace every layer by the simplest one with the same receptive field, so that gradients show paths alone."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        # Not every function that torch dispatches has a name: descriptors' __get__ and methods of C types do.
        name = getattr(function, "__name__", "")
        if name in _POINTWISE:
            return args[0]
        if name in ("max_pool2d", "max_pool2d_with_indices"):
            return _average_pool(*args, **options)
        if name == "amax":
            return args[0].mean(*args[1:], **options)
        if name == "conv2d":
            return _average_conv(*args, **options)
        if name == "conv_transpose2d":
            return _average_conv_transpose(*args, **options)
        return function(*args, **options)


# The functions below take the arguments of the torch functions they stand for, in the same order.
def _average_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    return F.conv2d(x.mean(1, keepdim=True), _mean_kernel(x, weight), None, stride, padding, dilation)


def _average_conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    kernel = _mean_kernel(x, weight)
    return F.conv_transpose2d(x.mean(1, keepdim=True), kernel, None, stride, padding, output_padding, 1, dilation)


def _mean_kernel(x: Tensor, weight: Tensor) -> Tensor:
    """Return a kernel of the size of `weight`, one channel to one channel, whose values sum to 1."""
    return x.new_full((1, 1, *weight.shape[2:]), 1 / weight[0, 0].numel())


def _average_pool(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    assert dilation in (1, (1, 1)), "avg_pool2d has no dilation"
    assert not return_indices, "an average has no indices"
    kernel_size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    return F.avg_pool2d(x, kernel_size, stride, padding, ceil_mode)
