"""Where the cells of a map lie on the image: coordinates, receptive fields, sizes and crops, computed from the layers.

Arithmetic only: torch is needed for nothing here but the probe `affected_outputs`. Every formula is for one axis, as all
layers are square. A cell is known by its centre, in pixels of the map it is counted on; pixel 0 has its centre at 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core import Window

SpatialLayer = nn.Conv2d | nn.ConvTranspose2d | nn.MaxPool2d | nn.AvgPool2d


@dataclass(frozen=True)
class CoordMap:
    """position on the earlier map -> position on the later one: `scale * x + shift`, exact fractions."""

    scale: Fraction = Fraction(1)
    shift: Fraction = Fraction(0)

    def __call__(self, x: Fraction | int) -> Fraction:
        """The position on the later map of position `x` on the earlier one."""
        return self.scale * x + self.shift

    def then(self, later: CoordMap) -> CoordMap:
        """First this map, then `later`."""
        return CoordMap(later.scale * self.scale, later.scale * self.shift + later.shift)

    def inverse(self) -> CoordMap:
        """The way back."""
        return CoordMap(1 / self.scale, -self.shift / self.scale)


@dataclass(frozen=True)
class Layer:
    """What geometry has to know of a convolution, a pooling or a transposed convolution; lengths in cells of its input.

    A transposed layer's stride and padding count cells of its output.
    """

    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    transposed: bool = False
    ceil_mode: bool = False

    @property
    def extent(self) -> int:
        """Cells from the first to the last tap of the (dilated) kernel."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def coordinates(self) -> CoordMap:
        """Input position -> output position. Source: Caffe's coord_map.py, by way of the definition of a centre."""
        reach = Fraction(self.extent - 1, 2)
        if self.transposed:
            return CoordMap(Fraction(self.stride), reach - self.padding)
        return CoordMap(Fraction(1, self.stride), (self.padding - reach) / self.stride)

    def output_size(self, size: int) -> int:
        """Cells in -> cells out; 0 or less where the kernel does not fit."""
        if self.transposed:
            return (size - 1) * self.stride + self.extent - 2 * self.padding
        room = size + 2 * self.padding - self.extent
        num_steps = -(-room // self.stride) if self.ceil_mode else room // self.stride
        # Caffe and torch drop a last window that would see nothing but padding.
        if self.ceil_mode and num_steps * self.stride >= size + self.padding:
            num_steps -= 1
        return num_steps + 1


class ReceptiveField(NamedTuple):
    """The receptive field of a map: `size` pixels wide, one every `stride` pixels, that of cell 0 starts at pixel `start`."""

    size: int
    stride: int
    start: int

    def span(self, cell: int) -> tuple[int, int]:
        """Pixels first..end-1 that the cell sees; they may lie outside the image, in the padding."""
        first = self.start + cell * self.stride
        return first, first + self.size


class Upsampling(NamedTuple):
    """A bilinear transposed convolution of `kernel` and `stride`; `offset` is where the target's first cell lies in its output."""

    kernel: int
    stride: int
    offset: int


def coordinates(layers: Iterable[Layer]) -> CoordMap:
    """Position on the image -> position on the map behind all `layers`."""
    total = CoordMap()
    for layer in layers:
        total = total.then(layer.coordinates)
    return total


def receptive_field(layers: Iterable[Layer]) -> ReceptiveField:
    """The receptive field behind a chain of convolutions and poolings (the widest branch where they run side by side)."""
    size, stride, start = 1, 1, 0
    for layer in layers:
        assert not layer.transposed, "a cell behind a transposed convolution has no single stride"
        size += (layer.extent - 1) * stride
        start -= layer.padding * stride
        stride *= layer.stride
    return ReceptiveField(size, stride, start)


def output_size(layers: Iterable[Layer], size: int) -> int:
    """Cells of the map behind all `layers` for an image of `size` pixels on this axis."""
    for layer in layers:
        size = layer.output_size(size)
    return size


def crop_offset(of: CoordMap, to: CoordMap) -> int:
    """Where the first cell of the map `to` lies on the map `of`; both maps count from the same image.

    Negative: the map `to` starts first. The maps have to have one stride and a whole number of cells between them.
    """
    between = to.inverse().then(of)
    offset = int(between.shift)
    assert between == CoordMap(Fraction(1), Fraction(offset)), f"maps cannot be aligned by a crop: {between}"
    return offset


def upsampling_to(of: CoordMap, to: CoordMap) -> Upsampling:
    """The bilinear transposed convolution that brings map `of` to the stride of map `to`, aligned by a crop.

    The kernel is twice the factor, or one less where only an odd kernel meets the target's cells: FCN's 64/32, 4/2 for
    even poolings, AlexNet's 63/32 for odd ones.
    """
    factor = to.scale / of.scale
    assert factor.denominator == 1, f"{factor} is not a whole factor"
    stride = int(factor)
    for kernel in (2 * stride, 2 * stride - 1):
        offset = to.inverse().then(of).then(Layer(kernel, stride, transposed=True).coordinates).shift
        if offset.denominator == 1:
            return Upsampling(kernel, stride, int(offset))
    raise AssertionError(f"no bilinear kernel of factor {stride} aligns {of} with {to}")


class MainPath(nn.Module, ABC):
    """Base class of containers with branches, such as residual blocks and Inception modules."""

    @abstractmethod
    def main_path(self) -> list[nn.Module]:
        """Return the chain of modules with the widest receptive field."""


def spatial_layers(modules: Iterable[nn.Module]) -> Iterator[SpatialLayer]:
    """Yield the convolutions and poolings of a chain of modules, in order.

    A `MainPath` contributes its widest branch; every other container counts as a chain of its children. Activations,
    norms and dropout do not move positions and are left out.
    """
    for module in modules:
        if isinstance(module, SpatialLayer):
            yield module
        else:
            yield from spatial_layers(module.main_path() if isinstance(module, MainPath) else module.children())


def layers_of(modules: Iterable[nn.Module]) -> list[Layer]:
    """Return the geometry of the `spatial_layers` of a chain of modules. All kernels must be square."""
    return [_layer_of(module) for module in spatial_layers(modules)]


def _layer_of(module: SpatialLayer) -> Layer:
    def side(value: int | str | tuple[int, ...]) -> int:
        assert not isinstance(value, str), f"expected a padding in numbers, got {value!r}"
        first, *others = (value,) if isinstance(value, int) else value
        assert all(other == first for other in others), f"expected square kernels, got {value} in {module}"
        return int(first)

    kernel, stride, padding = side(module.kernel_size), side(module.stride), side(module.padding)
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        transposed = isinstance(module, nn.ConvTranspose2d)
        return Layer(kernel, stride, padding, side(module.dilation), transposed=transposed)
    dilation = side(module.dilation) if isinstance(module, nn.MaxPool2d) else 1
    return Layer(kernel, stride, padding, dilation, ceil_mode=module.ceil_mode)


def affected_outputs(
    function: Callable[[Tensor], Any], size: tuple[int, int], pixel: tuple[int, int], in_channels: int = 3
) -> Window:
    """The cells of a network's output that one pixel of the image can change, found by a NaN in that pixel.

    function     images (1, C, H, W) float32 -> a map (1, K, h, w), or an Output whose logits are meant; in eval mode
    size, pixel  (height, width) of the image in pixels; (row, column) of the pixel
    The answer is the smallest window that holds them all; it is empty where the pixel reaches nothing.
    """
    images = torch.zeros(1, in_channels, *size)
    images[..., pixel[0], pixel[1]] = torch.nan
    with torch.no_grad():
        output = function(images)
    reached = getattr(output, "logits", output).isnan().any(1)[0].nonzero()
    if not len(reached):
        return Window(0, 0, 0, 0)
    (top, left), (bottom, right) = reached.min(0).values.tolist(), reached.max(0).values.tolist()
    return Window(top, left, bottom + 1, right + 1)
