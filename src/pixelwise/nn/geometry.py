"""Geometry of feature maps, from the layers alone: coordinates on the image, receptive fields, sizes and crops.

All formulas are exact arithmetic for one axis; all layers are square. A position of a map is its center, and pixel 0
has its center at 0. A layer of stride 2 maps image coordinate x to x / 2 + shift; chaining layers chains these affine
maps. FCN's crop offsets, U-Net's context and DeepLab's receptive fields all follow from this file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core import Output, Window
from .upsampling import TransposedBilinear

SpatialLayer = nn.Conv2d | nn.ConvTranspose2d | nn.MaxPool2d | nn.AvgPool2d


@dataclass(frozen=True)
class CoordMap:
    """An affine map from positions of one feature map to positions of another: `scale * x + shift`, exact fractions."""

    scale: Fraction = Fraction(1)
    shift: Fraction = Fraction(0)

    def __call__(self, x: Fraction | int) -> Fraction:
        """Return the image of position `x`."""
        return self.scale * x + self.shift

    def then(self, later: CoordMap) -> CoordMap:
        """Return the composition: first this map, then `later`."""
        return CoordMap(later.scale * self.scale, later.scale * self.shift + later.shift)

    def inverse(self) -> CoordMap:
        """Return the inverse map."""
        return CoordMap(1 / self.scale, -self.shift / self.scale)


@dataclass(frozen=True)
class Layer:
    """The geometry of a convolution, a pooling or a transposed convolution.

    Lengths are in positions of the layer's input; stride and padding of a transposed convolution in positions of its
    output.
    """

    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    _: KW_ONLY
    transposed: bool = False
    ceil_mode: bool = False

    @property
    def extent(self) -> int:
        """Number of positions from the first to the last of the dilated kernel: 5 for 3x3 at dilation 2."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def coordinates(self) -> CoordMap:
        """Map from input to output positions. Source: Caffe's coord_map.py, derived here from the kernel's center."""
        half_width = Fraction(self.extent - 1, 2)
        if self.transposed:
            return CoordMap(Fraction(self.stride), half_width - self.padding)
        return CoordMap(Fraction(1, self.stride), (self.padding - half_width) / self.stride)

    def output_size(self, size: int) -> int:
        """Return the output size for an input of `size` positions; 0 or less where the kernel does not fit."""
        if self.transposed:
            return (size - 1) * self.stride + self.extent - 2 * self.padding
        room = size + 2 * self.padding - self.extent
        num_steps = -(-room // self.stride) if self.ceil_mode else room // self.stride
        # Caffe and torch drop a last window that would contain nothing but padding.
        if self.ceil_mode and num_steps * self.stride >= size + self.padding:
            num_steps -= 1
        return num_steps + 1


class ReceptiveField(NamedTuple):
    """The receptive fields of a map: `size` pixels wide, `stride` pixels apart, the first one from pixel `start` on.

    VGG16's pool5: size 212, stride 32, start -90 (90 pixels into the padding).
    """

    size: int
    stride: int
    start: int

    def span(self, index: int) -> tuple[int, int]:
        """Return the pixels (first, end) that position `index` sees, half open; they may lie in the padding."""
        first = self.start + index * self.stride
        return first, first + self.size


def coordinates(layers: Iterable[Layer]) -> CoordMap:
    """Return the map from image positions to positions after all `layers`."""
    total = CoordMap()
    for layer in layers:
        total = total.then(layer.coordinates)
    return total


def receptive_field(layers: Iterable[Layer]) -> ReceptiveField:
    """Return the receptive field after a chain of convolutions and poolings."""
    size, stride, start = 1, 1, 0
    for layer in layers:
        assert not layer.transposed, "a map after a transposed convolution has no single stride"
        size += (layer.extent - 1) * stride
        start -= layer.padding * stride
        stride *= layer.stride
    return ReceptiveField(size, stride, start)


def output_size(layers: Iterable[Layer], size: int) -> int:
    """Return the size of the map after all `layers` for an image of `size` pixels on this axis."""
    for layer in layers:
        size = layer.output_size(size)
    return size


def crop_offset(cropped: CoordMap, onto: CoordMap) -> int:
    """Return the row (= column) of map `cropped` on which row 0 of map `onto` lies; negative where `onto` starts first.

    Both arguments map image positions to positions of their map. Both maps must have the same stride and lie a whole
    number of positions apart. FCN on VGG16: pool4 lies at x/16 + 183/32, fc7 upsampled by two at x/16 + 23/32. The
    difference, 160/32, is the crop of 5. The crop of pool3 is 9.
    """
    between = onto.inverse().then(cropped)
    crop = int(between.shift)
    assert between == CoordMap(Fraction(1), Fraction(crop)), f"maps cannot be aligned by a crop: {between}"
    return crop


def upsampling_to(source: CoordMap, target: CoordMap) -> TransposedBilinear:
    """Return the transposed convolution that upsamples map `source` to the stride of map `target`, and its crop.

    The kernel is twice the factor, or one less where only an odd kernel aligns with the target. FCN on VGG16 has 64/32
    (one step to the image), 4/2 and 16/8; AlexNet, with its odd poolings, has 63/32.
    """
    factor = target.scale / source.scale
    assert factor.denominator == 1, f"expected a whole upsampling factor, got {factor}"
    stride = int(factor)
    for kernel in (2 * stride, 2 * stride - 1):
        crop = target.inverse().then(source).then(Layer(kernel, stride, transposed=True).coordinates).shift
        if crop.denominator == 1:
            return TransposedBilinear(kernel, stride, int(crop))
    raise AssertionError(f"no bilinear kernel of factor {stride} aligns {source} with {target}")


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
    function: Callable[[Tensor], Tensor | Output],
    size: tuple[int, int],
    pixel: tuple[int, int],
    *,
    in_channels: int = 3,
) -> Window:
    """Return the smallest window of outputs that one image pixel can change, found by setting that pixel to NaN.

    function     images (1, C, H, W) float32 -> a map (1, K, h, w), or an Output, whose logits are taken; in eval mode
    size, pixel  (height, width) of the image in pixels; (row, column) of the pixel
    The window is empty where the pixel reaches no output.
    """
    images = torch.zeros(1, in_channels, *size)
    images[..., pixel[0], pixel[1]] = torch.nan
    with torch.no_grad():
        output = function(images)
    features = output.logits if isinstance(output, Output) else output
    reached = features.isnan().any(1)[0].nonzero()
    if not len(reached):
        return Window(0, 0, 0, 0)
    (top, left), (bottom, right) = reached.min(0).values.tolist(), reached.max(0).values.tolist()
    return Window(top, left, bottom + 1, right + 1)
