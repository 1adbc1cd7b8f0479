"""FCN: every count, size, crop, kernel and receptive field of the papers and of the authors' nets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from ...models.fcn import FCN, FCN8s, FCN16s
from ...nn.geometry import Layer, layers_of, receptive_field, spatial_layers
from ...nn.upsampling import TransposedBilinear, Upscore
from ..mult_adds import multiply_adds, num_parameters
from .measure import backbone, classifier, images, logit_shape, macs, network
from .rows import Family

FCN_ROWS = Family("FCN")
LADDER = {32: "fcn32s_vgg16", 16: "fcn16s_vgg16", 8: "fcn8s_vgg16"}


def _fcn(name: str, num_classes: int = 21, **options: Any) -> FCN:
    model = network(name, num_classes, **options)
    assert isinstance(model, FCN)
    return model


def _upscores(model: FCN) -> list[Upscore]:
    return [layer for layer in model.modules() if isinstance(layer, Upscore)]


def _dense_parameters(name: str) -> int:
    """Return the count with a kernel for each pair of classes, as Caffe stores them; only the diagonal is not zero."""
    kernels = sum(21 * 21 * layer.kernel**2 for layer in _upscores(_fcn(name, upsampling="learned")))
    return num_parameters(_fcn(name)) + kernels


def _dense_macs(name: str) -> int:
    """Return the count for dense kernels: each input of a transposed convolution meets the kernels of 21 classes."""
    model = _fcn(name, upsampling="learned")
    further: list[int] = []
    for layer in _upscores(model):
        layer.register_forward_pre_hook(lambda up, inputs: further.append(inputs[0].numel() * up.kernel**2 * 20))
    grouped = multiply_adds(lambda: model(images(500)))
    return grouped + sum(further)


def _sizes(name: str, size: int) -> dict[str, int]:
    """Return the side of every map between the image and the logits, under the names of the authors' net."""
    model = _fcn(name, upsampling="learned")
    seen: dict[str, int] = {}
    names = {layer: "upscore" if path == "upscore32" else path for path, layer in model.named_children()}
    for layer in (model.fc7, *_upscores(model)):
        layer.register_forward_hook(lambda layer, _, output: seen.update({names[layer]: output.shape[-1]}))
    maps = model.backbone(images(size))
    seen.update(zip(model.backbone.map_names, (x.shape[-1] for x in maps), strict=True))
    model(images(size))
    return seen


def _add_ladder(stride: int, name: str) -> None:
    variant, row = f"FCN-{stride}s VGG16, 21 classes", FCN_ROWS.row
    row(variant, "parameters, learnable")(lambda: num_parameters(_fcn(name)))
    row(variant, "parameters incl. dense")(lambda: _dense_parameters(name))
    row(variant, "parameters incl. grouped")(lambda: num_parameters(_fcn(name, upsampling="learned")))
    row(variant, "MACs (dense")(lambda: _dense_macs(name))
    row(variant, "MACs (grouped")(lambda: macs(_fcn(name), 500))
    row(variant, "output shape")(lambda: logit_shape(_fcn(name), 500))
    for size in (500, 375, 256, 224, 1):
        row(variant, "intermediate", f"1x3x{size}x{size}")(partial(_sizes, name, size))


for _stride, _name in LADDER.items():
    _add_ladder(_stride, _name)


def _16s() -> FCN16s:
    model = _fcn("fcn16s_vgg16")
    assert isinstance(model, FCN16s)
    return model


def _8s(name: str = "fcn8s_vgg16") -> FCN8s:
    model = _fcn(name)
    assert isinstance(model, FCN8s)
    return model


def _kernel(upscore: Callable[[], Upscore | TransposedBilinear]) -> list[int]:
    layer = upscore()
    return [layer.kernel, layer.stride]


CROPS: dict[str, Callable[[], int]] = {
    "32s score crop": lambda: _fcn("fcn32s_vgg16").to_image.crop,
    "16s score_pool4 crop": lambda: _16s().crop_pool4,
    "16s score crop": lambda: _16s().to_image.crop,
    "8s score_pool4 crop": lambda: _8s().crop_pool4,
    "8s score_pool3 crop": lambda: _8s().crop_pool3,
    "8s score crop": lambda: _8s().to_image.crop,
    "AlexNet-32s score crop": lambda: _fcn("fcn32s_alexnet").to_image.crop,
}
UPSCORES: dict[str, Callable[[], Upscore | TransposedBilinear]] = {
    "32s upscore": lambda: _fcn("fcn32s_vgg16").to_image,
    "16s upscore2": lambda: _16s().upscore2,
    "16s upscore16": lambda: _16s().to_image,
    "8s upscore2": lambda: _8s().upscore2,
    "8s upscore_pool4": lambda: _8s().upscore_pool4,
    "8s upscore8": lambda: _8s().to_image,
    "AlexNet upscore": lambda: _fcn("fcn32s_alexnet").to_image,
}
for _variant, _crop in CROPS.items():
    FCN_ROWS.row(_variant, "crop offset")(_crop)
for _variant, _upscore in UPSCORES.items():
    FCN_ROWS.row(_variant, "deconv [kernel")(partial(_kernel, _upscore))


def _fc7_size(model: FCN) -> int:
    """Return the side of fc7 for an image of 500x500; the stride of the scores is that of fc7 in FCN-32s."""
    return model.forward_low_res(images(500)).logits.shape[-1]


@FCN_ROWS.row("FCN-AlexNet", "intermediate")
def _alexnet_sizes() -> dict[str, int]:
    model = _fcn("fcn32s_alexnet")
    fc7 = _fc7_size(model)
    up = Layer(63, 32, transposed=True).output_size(fc7)
    return {"pool5": model.backbone(images(500))[-1].shape[-1], "fc7": fc7, "up": up}


@FCN_ROWS.row("FCN-AlexNet", "MACs")
def _alexnet_macs() -> int:
    model = _fcn("fcn32s_alexnet")
    return macs(model, 500) + _fc7_size(model) ** 2 * 63 * 63 * 21 * 20


FCN_ROWS.row("FCN-AlexNet (CaffeNet", "parameters")(lambda: num_parameters(_fcn("fcn32s_alexnet")))
FCN_ROWS.row("FCN-GoogLeNet (BVLC", "parameters")(lambda: num_parameters(_fcn("fcn32s_googlenet")))
FCN_ROWS.row("PASCAL-Context FCN-8s", "parameters")(lambda: num_parameters(_fcn("fcn8s_vgg16", 60)))
FCN_ROWS.row("NYUDv2 FCN-32s early RGBD", "parameters")(lambda: num_parameters(_fcn("fcn32s_vgg16", 40, in_channels=4)))
FCN_ROWS.row("NYUDv2 late RGB-HHA", "parameters")(lambda: num_parameters(network("fcn32s_late_fusion_vgg16", 40)))
FCN_ROWS.row("SIFT Flow FCN-16s (33", "parameters")(lambda: num_parameters(network("fcn16s_two_heads_vgg16", 33)))


@FCN_ROWS.row("at-once skip scale", "[pool4")
def _at_once_scales() -> list[float]:
    model = _8s("fcn8s_atonce_vgg16")
    return [model.scale_pool4, model.scale_pool3]


def _millions(name: str) -> int:
    return round(num_parameters(_fcn(name)) / 1e6)


def _max_stride(name: str) -> int:
    return _fcn(name).backbone.strides[-1]


def _chain_length(name: str) -> int:
    """Return the number of convolutions in a row from the image to the scores."""
    model = _fcn(name)
    layers = spatial_layers([*model.backbone.modules_to(), model.fc6, model.fc7])
    return sum(isinstance(layer, nn.Conv2d) for layer in layers) + 1


def _field(name: str, layer: str) -> int:
    return _fcn(name).receptive_fields()[layer].size


def _googlenet_field_with_pool() -> int:
    """Return the receptive field of the last map after the 7x7 average pooling, which FCN drops."""
    return receptive_field([*layers_of(classifier("googlenet").modules_to()), Layer(7, 1)]).size


for _variant, _name in (("AlexNet", "fcn32s_alexnet"), ("VGG16", "fcn8s_vgg16")):
    FCN_ROWS.row(_variant, "receptive field (px)")(partial(_field, _name, "fc7"))
FCN_ROWS.row("AlexNet fc6", "receptive field")(partial(_field, "fcn32s_alexnet", "fc7"))
FCN_ROWS.row("VGG16 fc7", "receptive field")(partial(_field, "fcn8s_vgg16", "fc7"))
FCN_ROWS.row("GoogLeNet inception_5b", "receptive field")(partial(_field, "fcn32s_googlenet", "fc7"))
FCN_ROWS.row("GoogLeNet with 7x7", "receptive field")(_googlenet_field_with_pool)
FCN_ROWS.row("GoogLeNet", "receptive field (px)")(_googlenet_field_with_pool)
FCN_ROWS.row("VGG16 pool3", "[receptive")(lambda: [*_fcn("fcn8s_vgg16").receptive_fields()["pool3"][:2]])
FCN_ROWS.row("VGG16 pool4", "[receptive")(lambda: [*_fcn("fcn8s_vgg16").receptive_fields()["pool4"][:2]])


@FCN_ROWS.row("VGG16 pool5", "[receptive")
def _pool5_field() -> list[int]:
    field = receptive_field(layers_of(classifier("vgg16").modules_to()))
    return [field.size, field.stride]


for _variant, _name in (("AlexNet", "fcn32s_alexnet"), ("VGG16", "fcn32s_vgg16"), ("GoogLeNet", "fcn32s_googlenet")):
    FCN_ROWS.row(_variant, "parameters (millions)")(partial(_millions, _name))
    FCN_ROWS.row(_variant, "max stride")(partial(_max_stride, _name))
    FCN_ROWS.row(_variant, "conv layers")(partial(_chain_length, _name))


@FCN_ROWS.row("unpadded convolutionalized nets", "output grid")
def _unpadded_grids() -> list[int]:
    """Return the sides of the score maps of a 500x500 image; FCN drops GoogLeNet's average pooling."""
    alexnet, vgg = classifier("alexnet_caffe", num_classes=21), classifier("vgg16", num_classes=21, ceil_mode=True)
    sliding = [net.convolutionalize()(images(500)).shape[-1] for net in (alexnet, vgg)]
    return [*sliding, backbone("googlenet", num_classes=21)(images(500))[-1].shape[-1]]
