"""Convolutions on an image within a wide margin of zeros, without computing the margin again for every image.

FCN pads the image by 100 pixels: one of 360x480 becomes 558x678 positions, more than twice as many. Where a receptive
field holds nothing but padding, the features are the same for every image. So each layer is computed for the window
that the image can change, and reads what lies around it from maps of a small image of zeros, made once per image size.
In float32 and channels_last, VGG16's and AlexNet's features are those of the whole map, bit by bit; oneDNN may choose
functions that round differently for narrower networks. VGG16 computes a third less.

In VGG16 the window reaches 2 pixels beyond the image after conv1, 20 after conv3, and 106 after pool5, where it is the
whole map. The first image of a size costs a fifth of its convolutions more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .geometry import Layer, layers_of, receptive_field

POINTWISE = (nn.ReLU, nn.BatchNorm2d, nn.LocalResponseNorm, nn.Dropout, nn.Identity)
"""Layers that compute each position from that position alone."""
MAX_SIZES = 8
"""Image sizes whose margins are kept, some 20 MB each."""


class Span(NamedTuple):
    """Positions begin ... end - 1 along one axis of a map of `size` positions."""

    begin: int
    end: int
    size: int

    def after(self, layer: Layer) -> Span:
        """Return the outputs that see these positions."""
        size = layer.output_size(self.size)
        begin = -(-(self.begin + layer.padding - layer.extent + 1) // layer.stride)
        end = (self.end - 1 + layer.padding) // layer.stride + 1
        return Span(max(0, begin), min(size, end), size)

    def seen_by(self, layer: Layer, outputs: Span) -> Span:
        """Return the positions that the outputs see; some lie outside of the map, in the padding."""
        begin = outputs.begin * layer.stride - layer.padding
        return Span(begin, (outputs.end - 1) * layer.stride - layer.padding + layer.extent, self.size)


class Surrounding:
    """What lies around a window of a map: features that no image changes, and padding outside of the map.

    zeros    (1, C, h, w), the map of a smaller image of zeros; its middle row and column stand for all between
    window   rows and columns of the window
    wanted   rows and columns to return; all of the window, but for a last row or column that no output sees
    padding  the value outside of the map
    """

    def __init__(
        self, zeros: Tensor, window: tuple[Span, Span], wanted: tuple[Span, Span], *, padding: float = 0
    ) -> None:
        inside = [Span(max(0, want.begin), min(want.size, want.end), want.size) for want in wanted]
        self._seen = tuple(slice(0, part.end - axis.begin) for axis, part in zip(window, inside, strict=True))
        (top, bottom), (left, right) = (
            (axis.begin - part.begin, max(0, part.end - axis.end)) for axis, part in zip(window, inside, strict=True)
        )
        self._size = tuple(part.end - part.begin for part in inside)
        self._place = (slice(top, self._size[0] - bottom), slice(left, self._size[1] - right))
        self._outside = [
            amount
            for part, want in zip(inside[::-1], wanted[::-1], strict=True)
            for amount in (part.begin - want.begin, want.end - part.end)
        ]
        self._padding = padding
        rows, columns = (
            _positions(part, zeros.shape[axis], zeros.device) for axis, part in zip((2, 3), inside, strict=True)
        )
        # The four strips around the window: above and below in full width, left and right in its height.
        strips = (
            (slice(0, top), slice(None)),
            (slice(self._size[0] - bottom, None), slice(None)),
            (self._place[0], slice(0, left)),
            (self._place[0], slice(self._size[1] - right, None)),
        )
        self._strips = [(place, zeros[:, :, rows[place[0]]][..., columns[place[1]]]) for place in strips]

    def add_to(self, x: Tensor) -> Tensor:
        """Return the wanted part of the map for the window (B, C, h, w)."""
        x = x[:, :, self._seen[0], self._seen[1]]
        if x.shape[2:] != self._size:
            whole = x.new_empty(*x.shape[:2], *self._size).contiguous(memory_format=torch.channels_last)
            whole[:, :, self._place[0], self._place[1]] = x
            for (rows, columns), values in self._strips:
                whole[:, :, rows, columns] = values
            x = whole
        return F.pad(x, self._outside, value=self._padding) if any(self._outside) else x


def _positions(part: Span, length: int, device: torch.device) -> Tensor:
    """Return where the positions of a map lie in one of `length` that lacks a part of its middle."""
    positions = torch.arange(part.begin, part.end, device=device)
    from_end = positions - (part.size - length)
    return torch.where(positions < length // 2, positions, from_end.clamp(min=length // 2))


@dataclass
class _Step:
    """A layer of the chain for images of one size.

    compute      the layer on a map with everything around its window, or a pointwise layer
    surrounding  of its input, None for a pointwise layer
    whole        what completes its output to the whole map, for the maps that are returned
    """

    compute: Callable[[Tensor], Tensor]
    surrounding: Surrounding | None = None
    whole: Surrounding | None = None


class ConstantMargin(nn.Module):
    """A chain of layers in eval mode whose first convolution has a wide padding; computes the same maps faster.

    layers       convolutions, max poolings and `POINTWISE` layers
    out_indices  positions in the chain of the maps to return
    """

    def __init__(self, layers: Sequence[nn.Module], out_indices: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.out_indices = tuple(out_indices)
        geometry = layers_of(layers)
        field = receptive_field(geometry)
        self._stride = field.stride
        # Two receptive fields of the last map, and the rounding of its stride, do not overlap in the middle.
        self._smallest = max(1, field.size + 2 * field.stride - 2 * geometry[0].padding)
        self._plans: dict[tuple[object, ...], list[_Step]] = {}

    @staticmethod
    def fits(layers: Sequence[nn.Module]) -> bool:
        """Return whether a chain has such a margin, and layers of these kinds alone."""
        kinds = {type(layer) for layer in layers}
        if not kinds <= {nn.Conv2d, nn.MaxPool2d, *POINTWISE}:
            return False
        first, *_ = layers_of(layers)
        return first.padding > first.extent

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the maps of normalized images (B, C, H, W), in which 0 is the color of the margin."""
        if min(images.shape[2:]) < self._smallest + self._stride:
            return self._all_maps(images)
        maps, x = [], images
        for position, step in enumerate(self._plan(images)):
            x = step.compute(x if step.surrounding is None else step.surrounding.add_to(x))
            if position in self.out_indices:
                maps.append(x if step.whole is None else step.whole.add_to(x))
        return maps

    def _all_maps(self, images: Tensor) -> list[Tensor]:
        maps, x = [], images
        for position, layer in enumerate(self.layers):
            x = layer(x)
            if position in self.out_indices:
                maps.append(x)
        return maps

    def _plan(self, images: Tensor) -> list[_Step]:
        """Return the steps for images of a size, made at the first of that size and when weights have changed."""
        tensors = chain(self.parameters(), self.buffers())
        key = (*images.shape[2:], images.device, images.dtype, *((t.data_ptr(), t._version) for t in tensors))
        if key in self._plans:
            # The sizes that were used last are kept.
            self._plans[key] = self._plans.pop(key)
        else:
            while len(self._plans) >= MAX_SIZES:
                del self._plans[next(iter(self._plans))]
            # The constants are float32 whatever the images are computed in.
            with torch.autocast(images.device.type, enabled=False):
                self._plans[key] = self._make_plan(images)
        return self._plans[key]

    def _make_plan(self, images: Tensor) -> list[_Step]:
        # Poolings round at the lower and right end by the size, so the small image agrees with it modulo the stride.
        small = [self._smallest + (side - self._smallest) % self._stride for side in images.shape[2:]]
        zeros = images.new_zeros(1, images.shape[1], *small).contiguous(memory_format=torch.channels_last)
        height, width = images.shape[2:]
        window = (Span(0, height, height), Span(0, width, width))
        steps: list[_Step] = []
        for position, module in enumerate(self.layers):
            if isinstance(module, POINTWISE):
                step, zeros = _Step(module), module(zeros.clone())
            else:
                (layer,) = layers_of([module])
                outputs = (window[0].after(layer), window[1].after(layer))
                if not steps:
                    step = _Step(partial(_first, module, outputs))
                else:
                    wanted = (window[0].seen_by(layer, outputs[0]), window[1].seen_by(layer, outputs[1]))
                    padding = float("-inf") if isinstance(module, nn.MaxPool2d) else 0.0
                    step = _Step(_without_padding(module), Surrounding(zeros, window, wanted, padding=padding))
                window, zeros = outputs, module(zeros)
            if position in self.out_indices:
                whole = (Span(0, window[0].size, window[0].size), Span(0, window[1].size, window[1].size))
                step.whole = Surrounding(zeros, window, whole)
            steps.append(step)
        return steps


def _first(layer: nn.Module, window: tuple[Span, Span], images: Tensor) -> Tensor:
    """Return a window of the first layer's output.

    It is computed as a whole. Where a padding is wider than its kernel, oneDNN takes a function that rounds in another
    way, and with three input channels the layer is 1 % of the work.
    """
    rows, columns = (slice(span.begin, span.end) for span in window)
    whole: Tensor = layer(images)
    return whole[:, :, rows, columns]


def _without_padding(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the function of a convolution or max pooling on a map that is padded already."""
    if isinstance(layer, nn.MaxPool2d):
        return partial(F.max_pool2d, kernel_size=layer.kernel_size, stride=layer.stride, dilation=layer.dilation)
    assert isinstance(layer, nn.Conv2d)
    return partial(
        F.conv2d,
        weight=layer.weight,
        bias=layer.bias,
        stride=layer.stride,
        dilation=layer.dilation,
        groups=layer.groups,
    )
