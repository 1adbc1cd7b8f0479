"""U-Net: parameters, multiply-adds, the sizes of its figure, and the receptive field of an output pixel."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from ...models.unet import UNet
from ..mult_adds import multiply_adds, num_parameters
from ..receptive_field import receptive_field_extent
from .measure import images, macs, network
from .rows import Family

UNET_ROWS = Family("U-Net")
TILE = 572


def unet(num_classes: int = 2, in_channels: int = 1) -> UNet:
    """Return the network of the paper on the meta device."""
    model = network("unet", num_classes, in_channels)
    assert isinstance(model, UNet)
    return model


def unet_parameters(num_classes: int, in_channels: int) -> int:
    """Return the number of learnable numbers."""
    return num_parameters(unet(num_classes, in_channels))


for _in, _out in ((1, 2), (3, 2), (1, 1), (3, 21)):
    UNET_ROWS.row(f"{_in}->{_out} channels", "parameters")(partial(unet_parameters, _out, _in))


@UNET_ROWS.row("1->2", "MACs")
def _macs() -> int:
    model = unet()
    return multiply_adds(lambda: model.forward_valid(images(TILE, in_channels=1)))


@UNET_ROWS.row("1->2", "output shape")
def _output_shape() -> list[int]:
    return [*unet().forward_valid(images(TILE, in_channels=1)).shape]


@UNET_ROWS.row("1->2", "per-stage log")
def _stages() -> list[Any]:
    """(C, H, W) after each level and, on the way up, after each up-convolution with the crop of the encoder map."""
    model = unet()
    shapes: dict[nn.Module, tuple[int, int, int]] = {}
    for module in model.children():
        module.register_forward_hook(lambda m, inputs, output: shapes.update({m: tuple(output.shape[1:])}))
    model.forward_valid(images(TILE, in_channels=1))
    log: list[Any] = [[*shapes[level]] for level in (model.down1, model.down2, model.down3, model.down4, model.bottom)]
    for skip, upconv, level in (
        (model.down4, model.upconv4, model.up4),
        (model.down3, model.upconv3, model.up3),
        (model.down2, model.upconv2, model.up2),
        (model.down1, model.upconv1, model.up1),
    ):
        crop = (shapes[skip][-1] - shapes[upconv][-1]) // 2
        log += [["up", str(shapes[upconv]), "crop", str(crop)], [*shapes[level]]]
    return log


@UNET_ROWS.row("valid", "valid square input sizes")
def _input_sizes() -> str:
    model = unet()
    first, second = model.input_size(1), model.input_size(model.input_size(1) - 2 * model.context_px + 1)
    step = second - first
    assert all(model.input_size(first - 2 * model.context_px + k * step) == first + k * step for k in range(40))
    return f"n = {first} + {step}k (n mod {step} == {first % step}, n >= {first}); output = n - {2 * model.context_px}"


@UNET_ROWS.row("valid", "receptive field")
def _fields() -> list[int]:
    """Return the two widths that the output pixels of one period of the poolings see, the rarer one first."""
    model = network("unet", 2, 1, width_mult=1 / 32).to_empty(device="cpu")
    assert isinstance(model, UNet)
    ends = receptive_field_extent(model, 640, range(320, 320 + model.tile_step))
    widths = [end - first for first, end in ends]
    return sorted(set(widths), key=widths.count)


@UNET_ROWS.row("valid", "number of convolutional layers")
def _layers() -> int:
    return sum(isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) for layer in unet().modules())


@UNET_ROWS.row("same-padding variant", "MACs")
def _padded_macs() -> int:
    return macs(network("unet_padded", 2, 1), 512, in_channels=1)
