"""FCN with two inputs or two outputs: late fusion of color and depth, and one network for two label maps.

Late fusion runs one FCN-32s on the color image and one on the HHA image (depth encoded in three channels) and averages
their scores. A network with two heads labels each pixel with a semantic and a geometric class from the same features.

Paper: Long, Shelhamer and Darrell, CVPR 2015, section 5 (NYUDv2 and SIFT Flow), https://arxiv.org/abs/1411.4038;
numbers of the authors' code.

Faithful: each stream of late fusion is a whole FCN-32s up to its scores; their mean is upsampled once (the paper's text
says summed, the code halves). Two heads share the backbone, fc6, fc7 and the maps of the skips; each has its own score
layers. The authors' stages are `start_from_streams` (two FCN-32s, then late fusion) and `start_from_single` (one head,
then two).

Deviations: those of `fcn.py`. `pixelwise train` adds the losses of the two heads with weight 1, as the authors do
(`train/two_heads.py`).

Early fusion is any FCN with `in_channels=4`; `transplant` starts the fourth channel as the mean of the color channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones.classifier import ClassifierBackbone
from ..core import LowResLogits
from ..errors import CheckpointError, ConfigError
from ..nn.init import zero_conv
from ..nn.preprocessing import NYUD_COLOR_HHA
from ..nn.upsampling import Upscore, with_last_upsampling
from . import MODELS
from .base import SegmentationModel
from .fcn import FCN, PAPER, FCN8s, FCN16s, FCN32s, Kernels
from .fcn_backbone import Geometry

NUM_COLOR = 3


class LateFusionFCN(SegmentationModel):
    """Two FCN-32s, one on color and one on HHA (or other channels), whose scores are averaged before the upsampling.

    in_channels  3 of color and at least one more; the other options are those of `FCN`
    """

    import_format = "caffe"
    score_layer_names = ("color.score_fr", "hha.score_fr")
    backbone_names = ("color.backbone", "hha.backbone")
    stream_names = ("color", "hha")

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 6,
        *,
        backbone: str = "vgg16",
        geometry: Geometry = "caffe",
        upsampling: Kernels = "fixed",
        batch_norm: bool = False,
        width_mult: float = 1.0,
        dropout: float = 0.5,
        preprocessing: str | Mapping[str, Any] | None = None,
    ) -> None:
        num_further = in_channels - NUM_COLOR
        if num_further < 1:
            what = f"expected 3 color channels and at least one more, got {in_channels}"
            raise ConfigError("in_channels", what, "give images of 4 channels or more, such as 6 of RGB and HHA")
        default = NYUD_COLOR_HHA if in_channels == 6 else "caffe"
        super().__init__(num_classes, in_channels, preprocessing or default)

        def stream(channels: int) -> FCN32s:
            # The two inputs are normalized together, before they are split.
            no_normalization = {"order": "rgb", "mean": [0.0] * channels, "std": [1.0] * channels}
            return FCN32s(
                num_classes,
                channels,
                backbone=backbone,
                geometry=geometry,
                batch_norm=batch_norm,
                width_mult=width_mult,
                dropout=dropout,
                preprocessing=no_normalization,
            )

        self.color = stream(NUM_COLOR)
        self.hha = stream(num_further)
        # One upsampling for the mean of both: kernel 64, stride 32, crop 19 for VGG16.
        self.to_image = self.color.to_image
        self.upscore32 = (
            Upscore(num_classes, self.to_image.kernel, self.to_image.stride, learned=True)
            if upsampling == "learned"
            else None
        )
        self.logits_stride = 1 if upsampling == "learned" else self.to_image.stride

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute averaged scores of stride 32 for images (B, 3 + D, H, W), uint8 or float 0..255: RGB, D channels."""
        x = self.preprocess(images)
        score_color = self.color.forward_low_res(x[:, :NUM_COLOR]).logits  # 16x16 for 500x500 pixels
        score_hha = self.hha.forward_low_res(x[:, NUM_COLOR:]).logits
        score_fused = 0.5 * score_color + 0.5 * score_hha
        return with_last_upsampling(score_fused, self.to_image, self.upscore32, images)

    def transplant(self, classifier: ClassifierBackbone) -> None:
        """Start both streams from an image classifier. Errors are those of `FCN.transplant`."""
        self.color.transplant(classifier)
        self.hha.transplant(classifier)

    def start_from_streams(self, color: FCN32s, hha: FCN32s) -> None:
        """Start from two trained FCN-32s, one per stream. Raises CheckpointError where layers do not fit."""
        for stream, source in ((self.color, color), (self.hha, hha)):
            given = {key: value for key, value in source.state_dict().items() if not key.startswith("upscore32.")}
            _load(stream, given)

    def upscore_kernels(self) -> dict[str, int]:
        """Return the kernel size of the one upsampling layer by its name."""
        return {"upscore32": self.to_image.kernel}

    def caffe_names(self) -> dict[str, str]:
        """Return layer name in the authors' .caffemodel -> submodule here: every layer has its stream as suffix."""
        names = {f"{layer}color": f"color.{module}" for layer, module in self.color.caffe_names().items()}
        return names | {f"{layer}hha": f"hha.{module}" for layer, module in self.hha.caffe_names().items()}


class TwoTaskScores(nn.Module):
    """The score layers of both tasks side by side, (B, C, h, w) -> (B, K + num_geometric, h, w)."""

    def __init__(self, in_channels: int, num_classes: int, num_geometric: int) -> None:
        super().__init__()
        self.semantic = zero_conv(in_channels, num_classes)
        self.geometric = zero_conv(in_channels, num_geometric)

    def forward(self, x: Tensor) -> Tensor:
        """Return semantic scores, then geometric ones."""
        return torch.cat([self.semantic(x), self.geometric(x)], 1)


class TwoHeadFCN(FCN):
    """An FCN with two label maps: `forward` returns the semantic one, `forward_low_res_all` both.

    It has K + num_geometric score maps, which are split at the end: after the score layers every map is treated by
    itself. Subclasses name one of FCN32s, FCN16s and FCN8s as their second base, whose layers and `forward_low_res`
    they use.

    num_geometric  classes of the second head; the other options are those of `FCN`
    """

    num_heads = 2
    second_head_option = "num_geometric"
    # The head that `forward_low_res` returns.
    _head = 0

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        num_geometric: int = 3,
        backbone: str = "vgg16",
        geometry: Geometry = "caffe",
        upsampling: Kernels = "fixed",
        batch_norm: bool = False,
        width_mult: float = 1.0,
        dropout: float = 0.5,
        preprocessing: str | Mapping[str, Any] = "caffe",
    ) -> None:
        if num_geometric < 1:
            raise ConfigError("num_geometric", f"must be >= 1, got {num_geometric}", "give their number")
        # Set first: the constructor of the base class calls `make_score_layer`.
        self.num_geometric = num_geometric
        super().__init__(
            num_classes,
            in_channels,
            backbone=backbone,
            geometry=geometry,
            upsampling=upsampling,
            batch_norm=batch_norm,
            width_mult=width_mult,
            dropout=dropout,
            preprocessing=preprocessing,
        )

    @property
    def num_maps(self) -> int:
        """Number of score maps of both tasks."""
        return self.num_classes + self.num_geometric

    def make_score_layer(self, in_channels: int) -> nn.Module:
        """Return the 1x1 convolutions of both tasks."""
        return TwoTaskScores(in_channels, self.num_classes, self.num_geometric)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute the semantic scores; images (B, C, H, W), uint8 or float 0..255, RGB."""
        return self.forward_low_res_all(images)[self._head]

    @property
    def head_classes(self) -> tuple[int, ...]:
        """Number of semantic and of geometric classes."""
        return self.num_classes, self.num_geometric

    def with_second_head(self) -> TwoHeadFCN:
        """Return a copy that shares the weights, whose `forward` returns the geometric label map."""
        second = copy(self)
        second._head = 1
        return second

    def forward_low_res_all(self, images: Tensor) -> tuple[LowResLogits, LowResLogits]:
        """Compute the semantic and the geometric scores; images (B, C, H, W), uint8 or float 0..255, RGB."""
        # `super()` is the second base: FCN32s, FCN16s or FCN8s.
        scores, upsample, _ = super().forward_low_res(images)  # type: ignore[safe-super]
        semantic, geometric = scores[:, : self.num_classes], scores[:, self.num_classes :]
        return LowResLogits(semantic, upsample), LowResLogits(geometric, upsample)

    def start_from_single(self, single: FCN) -> None:
        """Start from a trained FCN with the semantic head alone. Raises CheckpointError where layers do not fit."""
        own = self.state_dict()
        given: dict[str, Tensor] = {}
        for key, value in single.state_dict().items():
            layer, _, kind = key.partition(".")
            if layer in self.score_layer_names:
                given[f"{layer}.semantic.{kind}"] = value
            elif layer.startswith("upscore") and key in own:
                given[key] = torch.cat([value, own[key][self.num_classes :]])
            else:
                given[key] = value
        _load(self, given | {key: value for key, value in own.items() if ".geometric." in key})

    def caffe_names(self) -> dict[str, str]:
        """Return layer name in the authors' .caffemodel -> submodule here: score layers have their task as suffix."""
        names = super().caffe_names()
        for score in self.score_layer_names:
            names |= {f"{score}_sem": f"{score}.semantic", f"{score}_geo": f"{score}.geometric"}
            del names[score]
        return names


class TwoHeadFCN32s(TwoHeadFCN, FCN32s):
    """FCN-32s with two heads."""


class TwoHeadFCN16s(TwoHeadFCN, FCN16s):
    """FCN-16s with two heads: the authors' SIFT Flow net."""


class TwoHeadFCN8s(TwoHeadFCN, FCN8s):
    """FCN-8s with two heads."""


def _load(module: nn.Module, given: Mapping[str, Tensor]) -> None:
    own = module.state_dict()
    wrong = [n for n in own | dict(given) if n not in own or n not in given or own[n].shape != given[n].shape]
    if wrong:
        what = f"shape mismatch or missing layers: {', '.join(wrong[:6])}"
        raise CheckpointError("source network", what, "use networks of one backbone, width and class list")
    module.load_state_dict(dict(given))


MODELS.register(
    "fcn32s_late_fusion_vgg16",
    summary="Two FCN-32s streams (color, HHA) with averaged scores; in_channels is 3 + those of the second image.",
    tiny={"width_mult": 1 / 16},
    paper=PAPER,
    year=2015,
    scores="NYUDv2 32.8 (FCN-32s RGB-HHA, table 4)",
)(LateFusionFCN)


def _register_two_heads(stride: str, network: type[TwoHeadFCN], *, scores: str = "") -> None:
    MODELS.register(
        f"fcn{stride}_two_heads_vgg16",
        summary=f"FCN-{stride} on VGG16 with a semantic and a geometric head, as for SIFT Flow.",
        tiny={"width_mult": 1 / 16},
        paper=PAPER,
        year=2015,
        scores=scores,
    )(network)


_register_two_heads("32s", TwoHeadFCN32s)
_register_two_heads("16s", TwoHeadFCN16s, scores="SIFT Flow 39.5, geometric pixel accuracy 94.3 (table 5)")
_register_two_heads("8s", TwoHeadFCN8s)
