"""FCN: every count, size, crop, kernel and receptive field of the papers and of the authors' nets."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from ...models.fcn import FCN
from ...nn.convolutionalize import convolutionalize
from ...nn.geometry import Layer, layers_of, receptive_field, spatial_layers
from ...nn.upsampling import Upscore
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
    """Caffe stores a kernel for each pair of classes, of which the diagonal is not zero."""
    kernels = sum(21 * 21 * layer.kernel**2 for layer in _upscores(_fcn(name, upsampling="learned")))
    return num_parameters(_fcn(name)) + kernels


def _dense_macs(name: str) -> int:
    """As above: each input of a transposed convolution meets the kernels of all 21 classes."""
    model = _fcn(name, upsampling="learned")
    met: list[int] = []
    for layer in _upscores(model):
        layer.register_forward_pre_hook(lambda up, inputs: met.append(inputs[0].numel() * up.kernel**2 * 20))
    grouped = multiply_adds(lambda: model(images(500)))
    return grouped + sum(met)


def _sizes(name: str, size: int) -> dict[str, int]:
    """Side of every map on the way, under the names of the authors' file."""
    model = _fcn(name, upsampling="learned")
    names = {layer: f"upscore{2 if i == 0 else '_pool4'}" for i, layer in enumerate(model.head.upscores)}
    assert model.head.upscore is not None, "learned upsampling is a layer"
    names[model.head.upscore] = {32: "upscore", 16: "upscore16", 8: "upscore8"}[model.head.final.stride]
    maps: list[Tensor] = model.encoder.backbone(images(size))
    seen = dict(zip(model.encoder.backbone.map_names, (cells.shape[-1] for cells in maps), strict=True))
    seen["fc7"] = model.encoder(images(size))[0].shape[-1]
    for layer, word in names.items():
        layer.register_forward_hook(lambda _, __, output, word=word: seen.__setitem__(word, output.shape[-1]))
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


def _crop(name: str, place: int | None) -> int:
    """Of the last upsampling (None), or of a skip map."""
    head = _fcn(name).head
    return head.final.offset if place is None else head.shifts[place]


def _kernel(name: str, place: int | None) -> list[int]:
    head = _fcn(name).head
    if place is None:
        return [head.final.kernel, head.final.stride]
    layer = head.upscores[place]
    assert isinstance(layer, Upscore)
    return [layer.kernel, layer.stride]


for _stride, _name in LADDER.items():
    _add_ladder(_stride, _name)

for _variant, _name, _place in (
    ("32s score crop", LADDER[32], None),
    ("16s score_pool4 crop", LADDER[16], 0),
    ("16s score crop", LADDER[16], None),
    ("8s score_pool4 crop", LADDER[8], 0),
    ("8s score_pool3 crop", LADDER[8], 1),
    ("8s score crop", LADDER[8], None),
    ("AlexNet-32s score crop", "fcn32s_alexnet", None),
):
    FCN_ROWS.row(_variant, "crop offset")(partial(_crop, _name, _place))

for _variant, _name, _place in (
    ("32s upscore", LADDER[32], None),
    ("16s upscore2", LADDER[16], 0),
    ("16s upscore16", LADDER[16], None),
    ("8s upscore2", LADDER[8], 0),
    ("8s upscore_pool4", LADDER[8], 1),
    ("8s upscore8", LADDER[8], None),
    ("AlexNet upscore", "fcn32s_alexnet", None),
):
    FCN_ROWS.row(_variant, "deconv [kernel")(partial(_kernel, _name, _place))


@FCN_ROWS.row("FCN-AlexNet", "intermediate")
def _alexnet_sizes() -> dict[str, int]:
    model = _fcn("fcn32s_alexnet")
    fc7 = model.encoder(images(500))[0].shape[-1]
    up = Layer(63, 32, transposed=True).output_size(fc7)
    return {"pool5": model.encoder.backbone(images(500))[-1].shape[-1], "fc7": fc7, "up": up}


@FCN_ROWS.row("FCN-AlexNet", "MACs")
def _alexnet_macs() -> int:
    model = _fcn("fcn32s_alexnet")
    fc7: int = model.encoder(images(500))[0].shape[-1]
    return macs(model, 500) + fc7 * fc7 * 63 * 63 * 21 * 20


FCN_ROWS.row("FCN-AlexNet (CaffeNet", "parameters")(lambda: num_parameters(_fcn("fcn32s_alexnet")))
FCN_ROWS.row("FCN-GoogLeNet (BVLC", "parameters")(lambda: num_parameters(_fcn("fcn32s_googlenet")))
FCN_ROWS.row("PASCAL-Context FCN-8s", "parameters")(lambda: num_parameters(_fcn("fcn8s_vgg16", 60)))
FCN_ROWS.row("NYUDv2 FCN-32s early RGBD", "parameters")(lambda: num_parameters(_fcn("fcn32s_vgg16", 40, in_channels=4)))
FCN_ROWS.row("NYUDv2 late RGB-HHA", "parameters")(lambda: num_parameters(network("fcn32s_late_fusion_vgg16", 40)))
FCN_ROWS.row("SIFT Flow FCN-16s (33", "parameters")(lambda: num_parameters(network("fcn16s_two_heads_vgg16", 33)))
FCN_ROWS.row("at-once skip scale", "[pool4")(lambda: [*_fcn("fcn8s_atonce_vgg16").head.scales][1:])


def _millions(name: str) -> int:
    return round(num_parameters(_fcn(name)) / 1e6)


def _max_stride(name: str) -> int:
    return _fcn(name).encoder.backbone.strides[-1]


def _chain_length(name: str) -> int:
    """Convolutions one behind the other from the image to the scores."""
    backbone_of = _fcn(name).encoder
    layers = spatial_layers([*backbone_of.backbone.modules_to(), backbone_of.fc])
    return sum(isinstance(layer, nn.Conv2d) for layer in layers) + 1


def _field(name: str, layer: str) -> int:
    return _fcn(name).receptive_fields()[layer].size


def _field_and_stride(name: str, layer: str) -> list[int]:
    field = _fcn(name).receptive_fields()[layer]
    return [field.size, field.stride]


def _googlenet_field_with_pool() -> int:
    """Its last map, then the 7x7 average pooling that FCN leaves out."""
    return receptive_field([*layers_of(classifier("googlenet").modules_to()), Layer(7, 1)]).size


for _variant, _name in (("AlexNet", "fcn32s_alexnet"), ("VGG16", "fcn8s_vgg16")):
    FCN_ROWS.row(_variant, "receptive field (px)")(partial(_field, _name, "fr"))
FCN_ROWS.row("AlexNet fc6", "receptive field")(partial(_field, "fcn32s_alexnet", "fr"))
FCN_ROWS.row("VGG16 fc7", "receptive field")(partial(_field, "fcn8s_vgg16", "fr"))
FCN_ROWS.row("GoogLeNet inception_5b", "receptive field")(partial(_field, "fcn32s_googlenet", "fr"))
FCN_ROWS.row("GoogLeNet with 7x7", "receptive field")(_googlenet_field_with_pool)
FCN_ROWS.row("GoogLeNet", "receptive field (px)")(_googlenet_field_with_pool)
for _pool in ("pool3", "pool4"):
    FCN_ROWS.row(f"VGG16 {_pool}", "[receptive")(partial(_field_and_stride, "fcn8s_vgg16", _pool))


@FCN_ROWS.row("VGG16 pool5", "[receptive")
def _pool5_field() -> list[int]:
    field = receptive_field(layers_of(classifier("vgg16").modules_to()))
    return [field.size, field.stride]


for _variant, _name in (("AlexNet", "fcn32s_alexnet"), ("VGG16", "fcn32s_vgg16"), ("GoogLeNet", "fcn32s_googlenet")):
    FCN_ROWS.row(_variant, "parameters (millions)")(partial(_millions, _name))
    FCN_ROWS.row(_variant, "max stride")(partial(_max_stride, _name))
    FCN_ROWS.row(_variant, "conv layers")(partial(_chain_length, _name))


@FCN_ROWS.row("unpadded convolutionalised nets", "output grid")
def _unpadded_grids() -> list[int]:
    """FCN drops GoogLeNet's average pooling."""
    alexnet, vgg = classifier("alexnet_caffe", num_classes=21), classifier("vgg16", num_classes=21, ceil_mode=True)
    sliding = [convolutionalize(net, net.input_size)(images(500)).shape[-1] for net in (alexnet, vgg)]
    return [*sliding, backbone("googlenet", num_classes=21)(images(500))[-1].shape[-1]]
