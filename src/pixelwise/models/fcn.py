"""FCN: an image classifier turned into convolutions only, so that it labels every pixel of an image of any size.

Its coarse class scores, one per 32 pixels, are upsampled to the image; FCN-16s and FCN-8s first add the scores of
finer, shallower feature maps (the skips of figure 3). Read FCN32s, FCN16s and FCN8s first; FCN holds what they share.

Paper: Shelhamer, Long and Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015 and PAMI 2017,
https://arxiv.org/abs/1411.4038, https://arxiv.org/abs/1605.06211

Faithful (geometry "caffe"): the classifier's last layer is dropped and fc6, fc7 become convolutions; the first
convolution is padded by 100 pixels and poolings round up; 1x1 score layers start at zero; upsampling is a bilinear
transposed convolution per class; crops align the maps. Kernels and crops are computed by `nn/geometry.py` and equal the
authors' (the numbers beside the code are theirs, for VGG16). AlexNet is CaffeNet. GoogLeNet loses its average pooling;
its padding and upsampling were never published, a kernel of 63 and stride 32 follow from its odd poolings. At once:
pool4 times 0.01, pool3 times 0.0001.

Deviations: without a pretrained classifier (`transplant`, `pixelwise import`) training starts from He's weights. All
upsampling kernels are fixed, as in the authors' code; the paper learns all but the last (`upsampling` "intermediate").
Only VGG16 has skips in the paper; the other backbones use their own maps of stride 16 and 8 under the names pool4 and
pool3. GoogLeNet's receptive field is 715 pixels; the 907 of table 1 include the dropped average pooling. geometry
"same" pads every layer instead of padding the image by 100, and repeats the outermost scores so that border pixels are
interpolated, not faded out. `width_mult` scales all channel counts, `batch_norm` adds a norm to the backbone and after
fc6 and fc7.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import BACKBONES
from ..backbones.classifier import ClassifierBackbone
from ..core import LowResLogits
from ..errors import CheckpointError, ConfigError
from ..nn.channels import inflate_first_conv
from ..nn.geometry import (
    CoordMap,
    Layer,
    ReceptiveField,
    Upsampling,
    coordinates,
    crop_offset,
    layers_of,
    receptive_field,
    upsampling_to,
)
from ..nn.init import init_kaiming_normal, zero_conv
from ..nn.upsampling import Identity, TransposedBilinear, Upscore
from ..registry import suggest
from .base import MODELS, SegmentationModel

PAPER = "https://arxiv.org/abs/1411.4038"

Geometry = Literal["caffe", "same"]
Kernels = Literal["fixed", "intermediate", "learned"]

# Padding of the first convolution in the authors' nets: even an image of 1x1 pixels leaves fc6 a map of 7x7.
CAFFE_PADDING = 100
# Positions in the backbone's list of feature maps: VGG16's pool3, pool4, pool5, of stride 8, 16, 32.
POOL3, POOL4, POOL5 = -3, -2, -1


class FullyConnected(nn.Sequential):
    """A fully connected layer as a convolution, then norm (optional), ReLU and dropout."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int, same: bool, norm: bool, dropout: float
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2 if same else 0)
        if norm:
            self.norm = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)


class FCN(SegmentationModel):
    """Base of the rungs FCN-32s, 16s and 8s: the classifier up to fc7, and what their layers after it have in common.

    backbone    name of an image classifier that can be padded as FCN needs it: VGG, AlexNet or GoogLeNet
    geometry    "caffe": the image padded by 100 pixels, as published; "same": every layer padded by itself
    upsampling  kernels that are trained: none ("fixed", the authors' code), all but the last ("intermediate", the
                paper), all ("learned")
    batch_norm  the variant of the backbone with batch norm, and norms after fc6 and fc7
    width_mult  factor on all channel counts
    dropout     after fc6 and fc7; GoogLeNet: before the score layer
    Raises ConfigError for a backbone that does not exist or is not one of these, and for values out of range.
    """

    import_format = "caffe"
    # Name of the layer that upsamples to the image; a module only where it is learned.
    last_upscore: str

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        backbone: str = "vgg16",
        geometry: Geometry = "caffe",
        upsampling: Kernels = "fixed",
        batch_norm: bool = False,
        width_mult: float = 1.0,
        dropout: float = 0.5,
        preprocessing: str | Mapping[str, Any] = "caffe",
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        if not 0 <= dropout < 1:
            raise ConfigError("dropout", f"must be at least 0 and below 1, got {dropout}")
        self.geometry = geometry
        self.upsampling = upsampling
        name = f"{backbone.removesuffix('_bn')}_bn" if batch_norm else backbone
        self.backbone = build_backbone(name, in_channels, geometry=geometry, width_mult=width_mult)
        channels = self.backbone.channels[POOL5]
        self.fc6: nn.Module = nn.Identity()
        self.fc7: nn.Module = nn.Dropout(dropout)
        # GoogLeNet ends in an average pooling, so it has neither fc6 nor fc7; its dropout stays.
        if self.backbone.fc_layers:
            (kernel6, width6), (kernel7, width7) = self.backbone.fc_layers  # VGG16: 7x7 and 1x1, 4096 channels each
            norm = any(isinstance(layer, nn.BatchNorm2d) for layer in self.backbone.modules())
            layer = partial(FullyConnected, same=geometry == "same", norm=norm, dropout=dropout)
            self.fc6 = layer(channels, width6, kernel=kernel6)
            self.fc7 = layer(width6, width7, kernel=kernel7)
            channels = width7
        init_kaiming_normal(self.fc6)
        init_kaiming_normal(self.fc7)
        self.score_fr = self.score_layer(channels)
        # Where the scores lie on the image; `add_skip` moves it on.
        self.grid = self._pad_grid(coordinates(self.layers_to("fr")))
        self.add_skips()
        self.to_image = upsampling_to(self.grid, CoordMap())
        self.logits_stride = self.to_image.stride
        if upsampling == "learned":
            self.logits_stride = 1
            last = Upscore(self.num_maps, self.to_image.kernel, self.to_image.stride, learned=True)
            self.add_module(self.last_upscore, last)

    @abstractmethod
    def add_skips(self) -> None:
        """Create the score layers of the skips, and the upsampling layers and crops on the way to them."""

    @property
    def num_maps(self) -> int:
        """Number of score maps."""
        return self.num_classes

    def score_layer(self, in_channels: int) -> nn.Module:
        """Return a 1x1 convolution to class scores that starts at zero."""
        return zero_conv(in_channels, self.num_classes)

    def add_skip(self, skip: int) -> tuple[Upscore, int]:
        """Return the layer that upsamples the scores to the stride of backbone map `skip`, and the crop of that map.

        The crop is the position of the first upsampled score on the map, along both axes.
        """
        skip_grid = coordinates(layers_of(self.backbone.modules_to(skip)))
        kernel, stride, _ = upsampling_to(self.grid, skip_grid)
        upsampled_grid = self.grid.then(Layer(kernel, stride, transposed=True).coordinates)
        crop = crop_offset(of=skip_grid, to=upsampled_grid)
        # A negative crop is one of the upsampled scores: their sum then begins where the skip does.
        self.grid = self._pad_grid(upsampled_grid if crop >= 0 else skip_grid)
        return Upscore(self.num_maps, kernel, stride, learned=self.upsampling != "fixed"), crop

    def _pad_grid(self, grid: CoordMap) -> CoordMap:
        return grid.then(Layer(1, padding=1).coordinates) if self.geometry == "same" else grid

    def pad(self, scores: Tensor) -> Tensor:
        """Repeat the outermost scores once on each side; geometry "caffe" needs no such border."""
        return F.pad(scores, (1, 1, 1, 1), mode="replicate") if self.geometry == "same" else scores

    def upsample(self, fused: Tensor, size: tuple[int, int]) -> LowResLogits:
        """Return the scores (B, K, h, w) with the last upsampling to `size`, done here where it is learned."""
        upscore = self.get_submodule(self.last_upscore) if self.upsampling == "learned" else None
        return upsample_to_image(fused, self.to_image, upscore, size)

    def upscore_kernels(self) -> dict[str, int]:
        """Return the kernel size of each upsampling layer by name, the last one included."""
        inner = {name: layer.kernel for name, layer in self.named_children() if isinstance(layer, Upscore)}
        return inner | {self.last_upscore: self.to_image.kernel}

    def layers_to(self, name: str) -> list[Layer]:
        """Return the layers between the image and the map that is scored: "fr" (fc7), "pool4" or "pool3"."""
        if name == "fr":
            return layers_of([*self.backbone.modules_to(), self.fc6, self.fc7])
        return layers_of(self.backbone.modules_to({"pool4": POOL4, "pool3": POOL3}[name]))

    def receptive_fields(self) -> dict[str, ReceptiveField]:
        """Return the receptive field of each map that is scored: fr (fc7), pool4, pool3."""
        names = [layer.removeprefix("score_") for layer in self.score_layer_names]
        return {name: receptive_field(self.layers_to(name)) for name in names}

    def contributions(self, images: Tensor) -> dict[str, Tensor]:
        """Return what each map that is scored adds to the logits: fr, pool4, pool3 -> (B, K, H, W).

        After the score layers everything is linear, so in eval mode these add up to the logits. The network runs once
        per map, with the scores of the other maps set to zero.
        """
        added = {}
        for kept in self.score_layer_names:
            others = [self.get_submodule(name) for name in self.score_layer_names if name != kept]
            hooks = [layer.register_forward_hook(lambda _, __, scores: torch.zeros_like(scores)) for layer in others]
            try:
                added[kept.removeprefix("score_")] = self(images).logits
            finally:
                for hook in hooks:
                    hook.remove()
        return added

    def transplant(self, classifier: ClassifierBackbone) -> None:
        """Copy an image classifier: all convolutions, and fc6 and fc7 reshaped; its last layer has no place.

        Input channels after the third start as the mean of the three color channels. Raises CheckpointError for a
        classifier of another architecture or width, ConfigError for a backbone without its classifier.
        """
        head = classifier.head()
        if head is None:
            what = "the backbone was built without a classifier"
            raise ConfigError("transplant", what, "create it with num_classes=1000")
        given, own = classifier.state_dict(), self.backbone.state_dict()
        first = next(iter(own))
        if first in given and given[first].shape[1] < own[first].shape[1]:
            given[first] = inflate_first_conv(given[first], own[first].shape[1])
        wrong = [name for name, value in own.items() if name not in given or given[name].shape != value.shape]
        linears = [layer for layer in head if isinstance(layer, nn.Linear)][:-1]
        targets = [layer.conv for layer in (self.fc6, self.fc7) if isinstance(layer, FullyConnected)]
        sizes = [(layer.out_features, layer.in_features) for layer in linears]
        if wrong or sizes != [tuple(target.weight.flatten(1).shape) for target in targets]:
            what = f"shape mismatch in {', '.join(wrong[:6]) or 'the fully connected layers'}"
            raise CheckpointError("transplant", what, "use a classifier of the same backbone and width")
        self.backbone.load_state_dict({name: given[name] for name in own})
        for target, linear in zip(targets, linears, strict=True):
            # A fully connected layer flattens its (C, h, w) input in this order, so a reshape makes it a convolution.
            target.load_state_dict({"weight": linear.weight.view_as(target.weight), "bias": linear.bias})

    def caffe_names(self) -> dict[str, str]:
        """Return layer name in the authors' .caffemodel -> submodule here, without the upsampling layers."""
        names = {layer: f"backbone.{module}" for layer, module in self.backbone.caffe_names().items()}
        if self.backbone.fc_layers:
            names |= {"fc6": "fc6.conv", "fc7": "fc7.conv"}
        return names | {name: name for name in self.score_layer_names}


class FCN32s(FCN):
    """FCN-32s: the scores of fc7, one per 32 pixels, upsampled in one step."""

    score_layer_names = ("score_fr",)
    last_upscore = "upscore32"

    def add_skips(self) -> None:
        """Create nothing: there is no skip."""

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute scores of stride 32; images (B, C, H, W), uint8 or float 0..255, RGB."""
        # Sizes in this and the other rungs: VGG16 on an image of 500x500 pixels.
        *_, pool5 = self.backbone(self.preprocess(images))  # 22x22, 512 channels
        fc7 = self.fc7(self.fc6(pool5))  # 16x16, 4096 channels
        score = self.pad(self.score_fr(fc7))
        # upscore32: kernel 64, stride 32 -> 544x544, crop 19 -> 500x500; AlexNet: kernel 63, crop 18
        return self.upsample(score, (images.shape[-2], images.shape[-1]))


class FCN16s(FCN):
    """FCN-16s: the scores of fc7, upsampled twice, plus those of pool4 make one per 16 pixels."""

    score_layer_names = ("score_fr", "score_pool4")
    last_upscore = "upscore16"

    def add_skips(self) -> None:
        """Create the skip from pool4."""
        self.upscore2, self.crop_pool4 = self.add_skip(POOL4)  # VGG16: kernel 4, stride 2; crop 5
        self.score_pool4 = self.score_layer(self.backbone.channels[POOL4])

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute scores of stride 16; images (B, C, H, W), uint8 or float 0..255, RGB."""
        *_, pool4, pool5 = self.backbone(self.preprocess(images))  # 44x44 and 22x22, 512 channels each
        fc7 = self.fc7(self.fc6(pool5))  # 16x16, 4096 channels
        score = self.pad(self.score_fr(fc7))
        score = self.pad(add_cropped(self.upscore2(score), self.score_pool4(pool4), self.crop_pool4))  # 34x34
        # upscore16: kernel 32, stride 16 -> 560x560, crop 27 -> 500x500
        return self.upsample(score, (images.shape[-2], images.shape[-1]))


class FCN8s(FCN):
    """FCN-8s: the scores of fc7 and pool4, upsampled twice, plus those of pool3 make one per 8 pixels."""

    score_layer_names = ("score_fr", "score_pool4", "score_pool3")
    last_upscore = "upscore8"
    scale_pool4, scale_pool3 = 1.0, 1.0

    def add_skips(self) -> None:
        """Create the skips from pool4 and pool3."""
        self.upscore2, self.crop_pool4 = self.add_skip(POOL4)  # VGG16: kernel 4, stride 2; crop 5
        self.score_pool4 = self.score_layer(self.backbone.channels[POOL4])
        self.upscore_pool4, self.crop_pool3 = self.add_skip(POOL3)  # VGG16: kernel 4, stride 2; crop 9
        self.score_pool3 = self.score_layer(self.backbone.channels[POOL3])

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute scores of stride 8; images (B, C, H, W), uint8 or float 0..255, RGB."""
        *_, pool3, pool4, pool5 = self.backbone(self.preprocess(images))  # 88x88, 44x44, 22x22; 256, 512, 512 channels
        fc7 = self.fc7(self.fc6(pool5))  # 16x16, 4096 channels
        score_pool4 = self.score_pool4(pool4 * self.scale_pool4)
        score_pool3 = self.score_pool3(pool3 * self.scale_pool3)
        score = self.pad(self.score_fr(fc7))
        score = self.pad(add_cropped(self.upscore2(score), score_pool4, self.crop_pool4))  # 34x34
        score = self.pad(add_cropped(self.upscore_pool4(score), score_pool3, self.crop_pool3))  # 70x70
        # upscore8: kernel 16, stride 8 -> 568x568, crop 31 -> 500x500
        return self.upsample(score, (images.shape[-2], images.shape[-1]))


class FCN8sAtOnce(FCN8s):
    """FCN-8s trained in one stage: scaling the skips down stands for adding them one after the other.

    Source: the authors' voc-fcn8s-atonce, layers scale_pool4 and scale_pool3.
    """

    scale_pool4, scale_pool3 = 0.01, 0.0001


def add_cropped(upsampled: Tensor, skip: Tensor, crop: int) -> Tensor:
    """Return the sum of two maps of one stride where both exist.

    crop  row and column of `skip` on which the first element of `upsampled` lies; negative where `skip` starts later
    """
    upsampled = upsampled[..., max(-crop, 0) :, max(-crop, 0) :]
    skip = skip[..., max(crop, 0) :, max(crop, 0) :]
    height, width = min(upsampled.shape[-2], skip.shape[-2]), min(upsampled.shape[-1], skip.shape[-1])
    return upsampled[..., :height, :width] + skip[..., :height, :width]


def upsample_to_image(
    fused: Tensor, to_image: Upsampling, upscore: nn.Module | None, size: tuple[int, int]
) -> LowResLogits:
    """Return scores with the last upsampling: fixed bilinear, or done by `upscore` and cropped to `size`."""
    kernel, stride, crop = to_image
    if upscore is None:
        return LowResLogits(fused, TransposedBilinear(kernel, stride, crop))
    full = upscore(fused)[..., crop : crop + size[0], crop : crop + size[1]]
    return LowResLogits(full, Identity())


def build_backbone(name: str, in_channels: int, *, geometry: Geometry, width_mult: float) -> ClassifierBackbone:
    """Return a classifier's convolutions, padded for FCN. Raises ConfigError for a backbone that cannot be."""
    known = [b for b in BACKBONES if issubclass(BACKBONES[b].product, ClassifierBackbone)]
    known = [b for b in known if BACKBONES[b].product.same_stem_padding is not None]
    if name not in known:
        raise ConfigError("backbone", f"unknown FCN backbone {name!r}", suggest(name, known))
    entry, same = BACKBONES[name], geometry == "same"
    padding: dict[str, Any] = {"stem_padding": entry.product.same_stem_padding if same else CAFFE_PADDING}
    # AlexNet's and GoogLeNet's poolings are 3x3, so that "same" pads them too; VGG's are 2x2.
    if "pool_padding" in entry.options:
        padding["pool_padding"] = int(same)
    built = BACKBONES.create(name, in_channels=in_channels, ceil_mode=True, width_mult=width_mult, **padding)
    assert isinstance(built, ClassifierBackbone)
    assert built.strides[POOL3:] == (8, 16, 32), f"{name} has maps of strides {built.strides}"
    return built


# Mean IU of the papers on VOC 2012's test set, and of the released nets by the authors' README.
SCORES = {
    "fcn32s_vgg16": "VOC seg11valid 63.6 (released net)",
    "fcn16s_vgg16": "VOC seg11valid 65.0 (released net)",
    "fcn8s_vgg16": "VOC 2012 test 62.2 (CVPR, table 3), 67.2 (released net)",
    "fcn8s_atonce_vgg16": "VOC seg11valid 65.4 (released net)",
    "fcn32s_alexnet": "VOC seg11valid 48.0 (released net)",
}


def _register(name: str, rung: type[FCN], summary: str, *, width_mult: float = 1 / 16, **defaults: Any) -> None:
    scores, tiny = SCORES.get(name, ""), {"width_mult": width_mult}
    MODELS.register(name, summary=summary, tiny=tiny, paper=PAPER, year=2015, scores=scores, defaults=defaults)(rung)


for _rung, _title, _stride, _skips in (
    (FCN32s, "FCN-32s", "32s", "one score map of stride 32"),
    (FCN16s, "FCN-16s", "16s", "with a skip of stride 16"),
    (FCN8s, "FCN-8s", "8s", "with skips of stride 16 and 8"),
):
    _register(f"fcn{_stride}_vgg16", _rung, f"{_title} on VGG16: {_skips}.")
    _register(f"fcn{_stride}_alexnet", _rung, f"{_title} on CaffeNet: {_skips}.", backbone="alexnet_caffe")
    _summary = f"{_title} on GoogLeNet: {_skips}."
    _register(f"fcn{_stride}_googlenet", _rung, _summary, width_mult=1 / 8, backbone="googlenet", dropout=0.4)
_register("fcn8s_atonce_vgg16", FCN8sAtOnce, "FCN-8s on VGG16 trained in one stage: skips scaled down.")
