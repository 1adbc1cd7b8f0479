"""FCN: an image classifier turned into convolutions only, so that it labels every pixel of an image of any size.

The class scores of its last layer, one per 32 pixels, are upsampled to the image; FCN-16s and FCN-8s first add the
scores of finer, shallower feature maps (the skips of figure 3). Read FCN32s, FCN16s and FCN8s first; FCN holds what
they share.

Paper: Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015,
https://arxiv.org/abs/1411.4038; Shelhamer, Long and Darrell, PAMI 2017, https://arxiv.org/abs/1605.06211

Faithful (geometry "caffe"); the numbers beside the code are those of the authors' nets, for VGG16:

- The classifier's last layer is dropped; fc6 and fc7 become convolutions. `alexnet_caffe` is CaffeNet, as in the
  authors' files.
- The first convolution is padded by 100 pixels, and poolings round up.
- The 1x1 score layers start at zero. Upsampling is a bilinear transposed convolution with one kernel per class.
- Crops align the maps. Kernels and crops are computed by `nn/geometry.py` and equal the authors'.
- FCN-8s at once scales pool4 by 0.01 and pool3 by 0.0001.

Deviations:

- Without a pretrained classifier (`transplant`, `pixelwise import`) training starts from He's initialization.
- All upsampling kernels are fixed, as in the authors' code; the paper learns all but the last (`upsampling`
  "intermediate").
- Only VGG16 has skips in the paper; the other backbones use their own maps of stride 16 and 8 under the names pool4
  and pool3.
- GoogLeNet loses its average pooling; the 907 pixels of table 1 include it, its receptive field without is 715. No
  padding or kernel was published. Its poolings are 3x3, so only an odd kernel aligns: 63 at stride 32.
- geometry "same" pads every layer instead of padding the image by 100. It repeats the outermost scores before each
  upsampling, so that border pixels are interpolated, not faded out.
- `width_mult` scales all channel counts; `batch_norm` adds a norm to the backbone and after fc6 and fc7.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from copy import copy
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..backbones.classifier import ChainBackbone, ClassifierBackbone
from ..core import LowResLogits
from ..errors import CheckpointError, ConfigError
from ..nn.channels import inflate_first_conv
from ..nn.constant_margin import ConstantMargin
from ..nn.convolutionalize import conv_of_linear
from ..nn.geometry import (
    CoordMap,
    Layer,
    ReceptiveField,
    coordinates,
    crop_offset,
    layers_of,
    receptive_field,
    upsampling_to,
)
from ..nn.init import init_kaiming_normal, zero_conv
from ..nn.upsampling import Upscore, add_cropped, repeat_border, with_last_upsampling
from . import MODELS
from .base import SegmentationModel
from .fcn_backbone import POOL3, POOL4, POOL5, Geometry, build_backbone

PAPER = "https://arxiv.org/abs/1411.4038"

Kernels = Literal["fixed", "intermediate", "learned"]

# Score layer -> the map that it scores. score_fr is the authors' name for the score layer on fc7.
SCORED_MAPS = {"score_fr": "fc7", "score_pool4": "pool4", "score_pool3": "pool3"}
IMAGE = CoordMap()  # coordinates of the image itself


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
    """Base of FCN-32s, 16s and 8s: the network up to fc7, and the upsampling and crops that all three use.

    backbone    name of an image classifier; in geometry "caffe" one of VGG, AlexNet and GoogLeNet
    geometry    "caffe": the image padded by 100 pixels, as published; "same": every layer padded by itself
    upsampling  kernels that are trained: none ("fixed", the authors' code), all but the last ("intermediate", the
                paper), all ("learned")
    batch_norm  the variant of the backbone with batch norm, and norms after fc6 and fc7
    width_mult  factor on all channel counts
    dropout     after fc6 and fc7; GoogLeNet: before the score layer
    Raises ConfigError for a backbone that does not exist or is not one of these, and for values out of range.
    """

    import_format = "caffe"
    backbone_names = ("backbone",)
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
            raise ConfigError("dropout", f"must be at least 0 and below 1, got {dropout}", "give 0.5, as in the paper")
        self.upsampling = upsampling
        # Scores repeated at the border before each upsampling: 1 in geometry "same".
        self.border = int(geometry == "same")
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
        self.score_fr = self.make_score_layer(channels)
        fused = self.add_skips(self.coordinates_of("fc7"))
        self.to_image = upsampling_to(self.bordered(fused), IMAGE)
        self.logits_stride = self.to_image.stride
        if upsampling == "learned":
            self.logits_stride = 1
            last = Upscore(self.num_maps, self.to_image.kernel, self.to_image.stride, learned=True)
            self.add_module(self.last_upscore, last)

    @abstractmethod
    def add_skips(self, fc7: CoordMap) -> CoordMap:
        """Create the score layers of the skips and the upsampling layers before them.

        fc7  coordinates of the scores of fc7 on the image
        Returns those of the scores that the last layer upsamples to the image.
        """

    @property
    def num_maps(self) -> int:
        """Number of score maps."""
        return self.num_classes

    def make_score_layer(self, in_channels: int) -> nn.Module:
        """Return a 1x1 convolution to class scores that starts at zero."""
        return zero_conv(in_channels, self.num_classes)

    def align(self, scores: CoordMap, skip: CoordMap) -> tuple[Upscore, int, CoordMap]:
        """Return what it takes to add a skip: the upsampling layer, the crop, and the coordinates of the sum.

        The crop is the row (= column) of the skip's map on which the first upsampled score lies.
        """
        scores = self.bordered(scores)
        up = upsampling_to(scores, skip)
        upscore = Upscore(self.num_maps, up.kernel, up.stride, learned=self.upsampling != "fixed", border=self.border)
        upsampled = scores.then(Layer(up.kernel, up.stride, transposed=True).coordinates)
        crop = crop_offset(cropped=skip, onto=upsampled)
        # crop < 0 (geometry "same"): the upsampled scores are cropped by -crop, so the sum begins where the skip does.
        return upscore, crop, upsampled if crop >= 0 else skip

    def bordered(self, scores: CoordMap) -> CoordMap:
        """Return the coordinates of scores whose border is repeated."""
        # That moves every position by one, as a 1x1 layer with padding 1 does.
        return scores.then(Layer(1, padding=self.border).coordinates)

    def for_inference(self) -> FCN:
        """Return a copy that skips the part of the padding that no image changes; in training mode, itself."""
        chain = self.backbone.modules_to()
        if self.training or not isinstance(self.backbone, ChainBackbone) or not ConstantMargin.fits(chain):
            return self
        faster = copy(self)
        vars(faster)["_modules"] = dict(self._modules)
        faster.add_module("backbone", ConstantMargin(chain, self.backbone.out_indices))
        return faster.eval()

    def to_low_res(self, scores: Tensor, images: Tensor) -> LowResLogits:
        """Pair the scores (B, K, h, w) with the last upsampling, which `forward` applies.

        A learned one is applied here.
        """
        upscore = self.get_submodule(self.last_upscore) if self.upsampling == "learned" else None
        return with_last_upsampling(repeat_border(scores, self.border), self.to_image, upscore, images)

    def upscore_kernels(self) -> dict[str, int]:
        """Return the kernel size of each upsampling layer by name, the last one included."""
        inner = {name: layer.kernel for name, layer in self.named_children() if isinstance(layer, Upscore)}
        return inner | {self.last_upscore: self.to_image.kernel}

    def layers_to(self, name: str) -> list[Layer]:
        """Return the layers from the image to a map that is scored: "fc7", "pool4" or "pool3".

        GoogLeNet has no fc7; its last map stands in for it.
        """
        if name == "fc7":
            return layers_of([*self.backbone.modules_to(), self.fc6, self.fc7])
        return layers_of(self.backbone.modules_to({"pool4": POOL4, "pool3": POOL3}[name]))

    def coordinates_of(self, name: str) -> CoordMap:
        """Return where the positions of a map that is scored lie on the image."""
        return coordinates(self.layers_to(name))

    def receptive_fields(self) -> dict[str, ReceptiveField]:
        """Return the receptive field of each map that is scored: fc7 (VGG16: 404 pixels, table 1), pool4, pool3."""
        names = [SCORED_MAPS[layer] for layer in self.score_layer_names]
        return {name: receptive_field(self.layers_to(name)) for name in names}

    def contributions(self, images: Tensor) -> dict[str, Tensor]:
        """Return what each map that is scored adds to the logits: fc7, pool4, pool3 -> (B, K, H, W).

        After the score layers everything is linear, so in eval mode these add up to the logits.
        """
        added = {}
        # Hooks set the scores of all other maps to zero, so that `forward_low_res` needs no code for it. The price is
        # one run of the network per map.
        for kept in self.score_layer_names:
            others = [self.get_submodule(name) for name in self.score_layer_names if name != kept]
            hooks = [layer.register_forward_hook(lambda _, __, scores: torch.zeros_like(scores)) for layer in others]
            try:
                added[SCORED_MAPS[kept]] = self(images).logits
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
        if first in given and given[first].shape[1] != own[first].shape[1]:
            in_channels = own[first].shape[1]
            given[first] = inflate_first_conv(given[first], in_channels, (0, 1, 2) if in_channels > 3 else ())
        wrong = [name for name, value in own.items() if name not in given or given[name].shape != value.shape]
        linears = [layer for layer in head if isinstance(layer, nn.Linear)][:-1]
        targets = [layer.conv for layer in (self.fc6, self.fc7) if isinstance(layer, FullyConnected)]
        sizes = [(layer.out_features, layer.in_features) for layer in linears]
        if wrong or sizes != [tuple(target.weight.flatten(1).shape) for target in targets]:
            what = f"shape mismatch in {', '.join(wrong[:6]) or 'the fully connected layers'}"
            raise CheckpointError("transplant", what, "use a classifier of the same backbone and width")
        self.backbone.load_state_dict({name: given[name] for name in own})
        for target, linear in zip(targets, linears, strict=True):
            # Section 3.1: a fully connected layer on a 7x7 map is a convolution with a 7x7 kernel.
            height, width = target.kernel_size
            target.load_state_dict(conv_of_linear(linear, (height, width)).state_dict())

    def caffe_names(self) -> dict[str, str]:
        """Return layer name in the authors' .caffemodel -> submodule here, without the upsampling layers."""
        names = {layer: f"backbone.{module}" for layer, module in self.backbone.caffe_names().items()}
        if self.backbone.fc_layers:
            names |= {"fc6": "fc6.conv", "fc7": "fc7.conv"}
        return names | {name: name for name in self.score_layer_names}

    def extra_repr(self) -> str:
        """Return the last upsampling, which is not a module, and the crops, for print(model)."""
        last = f"{self.last_upscore}: kernel {self.to_image.kernel}, stride {self.to_image.stride}"
        return f"{last}, crop {self.to_image.crop}"


class FCN32s(FCN):
    """FCN-32s: the scores of fc7, one per 32 pixels, upsampled in one step."""

    score_layer_names = ("score_fr",)
    last_upscore = "upscore32"

    def add_skips(self, fc7: CoordMap) -> CoordMap:
        """Create nothing: the scores of fc7 are the only ones."""
        return fc7

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute scores of stride 32; images (B, C, H, W), uint8 or float 0..255, RGB."""
        # Sizes in all three networks: VGG16 on an image of 500x500 pixels.
        *_, pool5 = self.backbone(self.preprocess(images))  # 22x22, 512 channels
        fc7 = self.fc7(self.fc6(pool5))  # 16x16, 4096 channels
        score_fr = self.score_fr(fc7)  # 16x16
        # upscore32: kernel 64, stride 32 -> 544x544, crop 19 -> 500x500; AlexNet: kernel 63, crop 18
        return self.to_low_res(score_fr, images)


class FCN16s(FCN):
    """FCN-16s: the scores of fc7 upsampled by 2, plus those of pool4: one score per 16 pixels."""

    score_layer_names = ("score_fr", "score_pool4")
    last_upscore = "upscore16"

    def add_skips(self, fc7: CoordMap) -> CoordMap:
        """Create the skip from pool4."""
        self.upscore2, self.crop_pool4, fuse_pool4 = self.align(fc7, self.coordinates_of("pool4"))  # 4/2, crop 5
        self.score_pool4 = self.make_score_layer(self.backbone.channels[POOL4])
        return fuse_pool4

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute scores of stride 16; images (B, C, H, W), uint8 or float 0..255, RGB."""
        *_, pool4, pool5 = self.backbone(self.preprocess(images))  # 44x44 and 22x22, 512 channels each
        fc7 = self.fc7(self.fc6(pool5))  # 16x16, 4096 channels
        score_fr = self.score_fr(fc7)  # 16x16
        score_pool4 = self.score_pool4(pool4)  # 44x44
        fuse_pool4 = add_cropped(self.upscore2(score_fr), score_pool4, self.crop_pool4)  # 34x34
        # upscore16: kernel 32, stride 16 -> 560x560, crop 27 -> 500x500
        return self.to_low_res(fuse_pool4, images)


class FCN8s(FCN):
    """FCN-8s: the sum of FCN-16s upsampled by 2, plus the scores of pool3: one score per 8 pixels."""

    score_layer_names = ("score_fr", "score_pool4", "score_pool3")
    last_upscore = "upscore8"
    scale_pool4, scale_pool3 = 1.0, 1.0

    def add_skips(self, fc7: CoordMap) -> CoordMap:
        """Create the skips from pool4 and pool3."""
        pool4, pool3 = self.coordinates_of("pool4"), self.coordinates_of("pool3")
        self.upscore2, self.crop_pool4, fuse_pool4 = self.align(fc7, pool4)  # kernel 4, stride 2; crop 5
        self.score_pool4 = self.make_score_layer(self.backbone.channels[POOL4])
        self.upscore_pool4, self.crop_pool3, fuse_pool3 = self.align(fuse_pool4, pool3)  # kernel 4, stride 2; crop 9
        self.score_pool3 = self.make_score_layer(self.backbone.channels[POOL3])
        return fuse_pool3

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute scores of stride 8; images (B, C, H, W), uint8 or float 0..255, RGB."""
        *_, pool3, pool4, pool5 = self.backbone(self.preprocess(images))  # 88x88, 44x44, 22x22; 256, 512, 512 channels
        fc7 = self.fc7(self.fc6(pool5))  # 16x16, 4096 channels
        score_fr = self.score_fr(fc7)  # 16x16
        score_pool4 = self.score_pool4(pool4 * self.scale_pool4)  # 44x44
        score_pool3 = self.score_pool3(pool3 * self.scale_pool3)  # 88x88
        fuse_pool4 = add_cropped(self.upscore2(score_fr), score_pool4, self.crop_pool4)  # 34x34
        fuse_pool3 = add_cropped(self.upscore_pool4(fuse_pool4), score_pool3, self.crop_pool3)  # 70x70
        # upscore8: kernel 16, stride 8 -> 568x568, crop 31 -> 500x500
        return self.to_low_res(fuse_pool3, images)


class FCN8sAtOnce(FCN8s):
    """FCN-8s trained in one stage: scaling the skips down stands for adding them one after the other.

    Source: the authors' voc-fcn8s-atonce, layers scale_pool4 and scale_pool3.
    """

    scale_pool4, scale_pool3 = 0.01, 0.0001


def _register(
    name: str, network: type[FCN], summary: str, *, scores: str = "", width_mult: float = 1 / 16, **defaults: Any
) -> None:
    tiny = {"width_mult": width_mult}
    MODELS.register(name, summary=summary, tiny=tiny, paper=PAPER, year=2015, scores=scores, defaults=defaults)(network)


_caffenet = partial(_register, backbone="alexnet_caffe")
_googlenet = partial(_register, backbone="googlenet", dropout=0.4, width_mult=1 / 8)

# Mean IU, tables of CVPR 2015. "Released": the authors' later nets (heavy learning), by their README.
# seg11valid: the images of VOC 2011 val that are not in SBD's training set.
_8S = "VOC seg11valid 62.7 (table 2), 65.5 (released); VOC 2012 test 62.2 (table 3), 67.2 (released)"
_ALEXNET = "VOC 2011 val 39.8 (table 1), seg11valid 48.0 (released)"
_register("fcn32s_vgg16", FCN32s, "FCN-32s on VGG16.", scores="VOC seg11valid 59.4 (table 2), 63.6 (released)")
_register(
    "fcn16s_vgg16", FCN16s, "FCN-16s on VGG16: skip pool4.", scores="VOC seg11valid 62.4 (table 2), 65.0 (released)"
)
_register("fcn8s_vgg16", FCN8s, "FCN-8s on VGG16: skips pool4, pool3.", scores=_8S)
_register("fcn8s_atonce_vgg16", FCN8sAtOnce, "FCN-8s trained at once.", scores="VOC seg11valid 65.4 (released)")
_caffenet("fcn32s_alexnet", FCN32s, "FCN-32s on CaffeNet.", scores=_ALEXNET)
_caffenet("fcn16s_alexnet", FCN16s, "FCN-16s on CaffeNet, a skip of stride 16.")
_caffenet("fcn8s_alexnet", FCN8s, "FCN-8s on CaffeNet, skips of stride 16 and 8.")
_googlenet("fcn32s_googlenet", FCN32s, "FCN-32s on GoogLeNet.", scores="VOC 2011 val 42.5 (table 1)")
_googlenet("fcn16s_googlenet", FCN16s, "FCN-16s on GoogLeNet, a skip of stride 16.")
_googlenet("fcn8s_googlenet", FCN8s, "FCN-8s on GoogLeNet, skips of stride 16 and 8.")

# Without fc6 and fc7: the score layers read the last maps of strides 32, 16 and 8.
_lite = partial(
    _register, backbone="efficientnet_lite0", geometry="same", preprocessing="efficientnet_lite", width_mult=0.1
)
_lite("fcn32s", FCN32s, "FCN-32s on any classifier, EfficientNet-Lite0 by default.")
_lite("fcn16s", FCN16s, "FCN-16s on any classifier, a skip of stride 16.")
_lite("fcn8s", FCN8s, "FCN-8s on any classifier, skips of stride 16 and 8.")
