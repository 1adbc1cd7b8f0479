"""Depthwise convolution, one k x k kernel per channel, with a backward of its own on CPUs.

torch's backward is slow there: about ten times the forward's time in float32 with stride 2, with dilation or 5x5
kernels, and a hundred times in bfloat16, for which oneDNN has reference loops only (docs/performance.md has the
figures). Two compiled loops over channels_last maps (`nn/depthwise_loops.py`) compute the same sums, apart from
rounding:

    forward          y[p] = sum over taps t of w[t] * x[stride * p - padding + dilation * t]
    input gradient   the same loop read backwards: x[q] gets w[t] * y[(q + padding - dilation * t) / stride], where that
                     is a position
    weight gradient  w[t] gets the sum over p of y[p] * x[stride * p - padding + dilation * t]
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_DTYPES = (torch.float32, torch.bfloat16, torch.float64)
_MIN_CHANNELS = 32


class Geometry(NamedTuple):
    """Stride, padding and dilation of a convolution, the same along both axes."""

    stride: int
    padding: int
    dilation: int


class DepthwiseConv2d(nn.Conv2d):
    """A square depthwise convolution without bias, (B, C, H, W) -> (B, C, H', W'); torch's own but for its backward.

    Our backward is used for channels_last maps of 32 channels or more on CPUs, in float32, float64 and bfloat16;
    everything else is torch's: other devices and formats, compiled and exported graphs, maps that need no gradient.
    """

    def __init__(self, channels: int, kernel: int, stride: int = 1, *, padding: int = 0, dilation: int = 1) -> None:
        super().__init__(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Compute the convolution."""
        if torch.compiler.is_compiling() or input.device.type != "cpu":
            return super().forward(input)
        x, weight = input, self.weight
        if torch.is_autocast_enabled("cpu"):
            # torch's autocast does not see into the function. It rounds the weights in there, so that their gradient
            # stays in float32.
            x = x.to(torch.get_autocast_dtype("cpu"))
        elif x.dtype != weight.dtype:
            return super().forward(input)
        # Not from the constructor: a stride may have been replaced by a dilation since.
        geometry = Geometry(self.stride[0], int(self.padding[0]), self.dilation[0])
        is_square = (self.stride, self.padding, self.dilation) == tuple((side, side) for side in geometry)
        needs_grad = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
        is_ours = needs_grad and is_square and x.dtype in _DTYPES and x.dim() == 4 and x.shape[1] >= _MIN_CHANNELS
        if not is_ours or not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(input)
        result: Tensor = _Depthwise.apply(x, weight, geometry)  # type: ignore[no-untyped-call]
        return result


class _Depthwise(torch.autograd.Function):
    """The convolution and its gradients, for channels_last maps; weights may have another float type than the map."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        """Compute the convolution, by torch in the types that oneDNN has kernels for."""
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        has_kernel = torch.ops.mkldnn._is_mkldnn_bf16_supported() if x.dtype == torch.bfloat16 else True
        if x.dtype == torch.float64 or not has_kernel:
            return _run_forward(x, weight, geometry)
        stride, padding, dilation = geometry
        return F.conv2d(x, weight.to(x.dtype), None, stride, padding, dilation, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of the map and of the weights, where they are needed."""
        x, weight = ctx.saved_tensors
        grad = grad.to(x.dtype).contiguous(memory_format=torch.channels_last)
        for_x = _run_input_gradient(grad, weight, x, ctx.geometry) if ctx.needs_input_grad[0] else None
        for_weight = _run_weight_gradient(grad, weight, x, ctx.geometry) if ctx.needs_input_grad[1] else None
        return for_x, for_weight, None


def _run_forward(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    stride, padding, dilation = geometry
    kernel, channels = weight.shape[-1], len(weight)
    sizes = [(size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for size in x.shape[2:]]
    result = torch.empty((len(x), channels, *sizes), dtype=x.dtype, memory_format=torch.channels_last)
    return _convolved(x, weight, result, scale=stride, shift=-padding, step=dilation)


def _run_input_gradient(grad: Tensor, weight: Tensor, x: Tensor, geometry: Geometry) -> Tensor:
    stride, padding, dilation = geometry
    result = torch.empty_like(x, memory_format=torch.channels_last)
    return _convolved(grad, weight, result, scale=1, shift=padding, step=-dilation, divisor=stride)


def _convolved(source: Tensor, weight: Tensor, result: Tensor, **places: int) -> Tensor:
    """Fill the result, image by image, in bands of rows if there are many threads. `places`: arguments of `taps`."""
    from ..jit.threads import Workers
    from .depthwise_loops import convolve, first_channels, taps

    channels, height, width = result.shape[1:]
    kernel, source_height, source_width = weight.shape[-1], *source.shape[2:]
    units = (source_width * channels, kernel * channels), (channels, channels)
    rows = taps(height, source_height, kernel, units=units[0], **places)
    columns = taps(width, source_width, kernel, units=units[1], **places)
    # The weights rounded as the map's type has them, for equal sums in forward and backward.
    factors = _flat(weight.to(source.dtype).to(_sum_type(source)).permute(2, 3, 0, 1))
    first = first_channels(channels)
    with Workers(torch.get_num_threads()) as workers:
        num_bands = min(height, -(-2 * workers.threads // max(1, len(source))))
        edges = [height * i // num_bands for i in range(num_bands + 1)]
        workers.run(
            convolve,
            [
                (_image(source, n), factors, _image(result, n), rows, columns, first, begin, end)
                for n in range(len(source))
                for begin, end in pairwise(edges)
            ],
        )
    return result


def _run_weight_gradient(grad: Tensor, weight: Tensor, x: Tensor, geometry: Geometry) -> Tensor:
    """Sum over the images of a batch; within an image, threads take different channels."""
    from ..jit.threads import Workers
    from .depthwise_loops import Shape, first_channels, sum_products

    stride, padding, dilation = geometry
    kernel = weight.shape[-1]
    (x_height, x_width), (height, width) = x.shape[2:], grad.shape[2:]
    shape = Shape(x_height, x_width, height, width, kernel, stride, padding, dilation)
    sums = torch.empty((len(x), kernel, kernel, len(weight)), dtype=_sum_type(x))
    with Workers(torch.get_num_threads()) as workers:
        num_groups = -(-2 * workers.threads // max(1, len(x)))
        first = first_channels(len(weight))
        # The last two may overlap, so that one thread takes both.
        *groups, last = np.array_split(first[:-1], num_groups)
        groups.append(np.append(last, first[-1:]))
        workers.run(
            sum_products,
            [(_image(x, n), _image(grad, n), _flat(sums[n]), shape, group) for n in range(len(x)) for group in groups],
        )
    return sums.sum(0).permute(2, 0, 1).unsqueeze(1).to(weight.dtype).contiguous()


def _sum_type(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _image(x: Tensor, n: int) -> Any:
    """Return an image of a channels_last map as a flat array, (H * W * C,), of the map's memory."""
    return _flat(x[n].permute(1, 2, 0))


def _flat(x: Tensor) -> Any:
    x = x.detach().reshape(-1)
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()
