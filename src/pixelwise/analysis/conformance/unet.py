"""U-Net: parameters, multiply-adds, the sizes of its figure, and what an output pixel sees."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from ...models.unet import UNet
from ..mult_adds import multiply_adds, num_parameters
from ..receptive_field import receptive_field_extent
from .measure import images, macs, network
from .rows import Family

UNET_ROWS = Family("U-Net")
TILE = 572


def _unet(num_classes: int = 2, in_channels: int = 1) -> UNet:
    model = network("unet", num_classes, in_channels)
    assert isinstance(model, UNet)
    return model


def _parameters(num_classes: int, in_channels: int) -> int:
    return num_parameters(_unet(num_classes, in_channels))


for _in, _out in ((1, 2), (3, 2), (1, 1), (3, 21)):
    UNET_ROWS.row(f"{_in}->{_out} channels", "parameters")(partial(_parameters, _out, _in))


@UNET_ROWS.row("1->2", "MACs")
def _macs() -> int:
    model = _unet()
    return multiply_adds(lambda: model.valid(images(TILE, in_channels=1)))


@UNET_ROWS.row("1->2", "output shape")
def _output_shape() -> list[int]:
    return [*_unet().valid(images(TILE, in_channels=1)).shape]


@UNET_ROWS.row("1->2", "per-stage log")
def _stages() -> list[Any]:
    """(C, H, W) behind each stage and, on the way up, behind each up-convolution with the crop of the map that joins it."""
    model = _unet()
    log: list[Any] = []
    sides: list[int] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        shape = tuple(output.shape[1:])
        if not isinstance(module, nn.ConvTranspose2d):
            log.append([*shape])
            sides.append(shape[-1])
        else:
            skip = sides[len(model.down) - 2 - [*model.up].index(module)]
            log.append(["up", str(shape), "crop", str((skip - shape[-1]) // 2)])

    for module in (*model.down, *model.up, *model.merge):
        module.register_forward_hook(note)
    model.valid(images(TILE, in_channels=1))
    return log


@UNET_ROWS.row("valid", "valid square input sizes")
def _input_sides() -> str:
    model = _unet()
    first, second = model.input_side(1), model.input_side(model.input_side(1) - 2 * model.context_px + 1)
    step = second - first
    assert all(model.input_side(first - 2 * model.context_px + k * step) == first + k * step for k in range(40))
    return f"n = {first} + {step}k (n mod {step} == {first % step}, n >= {first}); output = n - {2 * model.context_px}"


@UNET_ROWS.row("valid", "receptive field")
def _fields() -> list[int]:
    """The two widths that the output pixels of one period of the poolings see, the rarer one first."""
    model = network("unet", 2, 1, width_mult=1 / 32).to_empty(device="cpu")
    assert isinstance(model, UNet)
    ends = receptive_field_extent(model, 640, range(320, 320 + model.step))
    widths = [end - first for first, end in ends]
    return sorted(set(widths), key=widths.count)


@UNET_ROWS.row("valid", "number of convolutional layers")
def _layers() -> int:
    return sum(isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) for layer in _unet().modules())


@UNET_ROWS.row("same-padding variant", "MACs")
def _padded_macs() -> int:
    return macs(network("unet_padded", 2, 1), 512, in_channels=1)
