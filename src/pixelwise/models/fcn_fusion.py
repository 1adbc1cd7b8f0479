"""FCN with two inputs or two tasks: late fusion (RGB-HHA, NYUDv2) and two heads (semantic and geometric, SIFT Flow).

Paper: Shelhamer, Long and Darrell, https://arxiv.org/abs/1411.4038, section 5; the numbers are those of the authors' code.

Faithful: late fusion is two whole backbones up to score_fr, fused as half and half (the paper's text says summed; the code halves),
one upsampling. Two heads share the backbone through fc7 and the skips, and have score layers, upsampling and crops of their own.
Early fusion needs no net of its own: `in_channels=4` on any FCN, and `transplant` gives the fourth plane the mean of the
colour planes.

Deviations: those of `fcn.py`. The authors add the two heads' losses with weight 1; here that is the caller's, through
`forward_low_res_all`: the train command knows one mask an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..backbones.classifier import ClassifierBackbone
from ..core import LowResLogits
from ..errors import ConfigError
from ..nn.init import zero_conv
from ..nn.preprocessing import NYUD_COLOR_HHA
from .base import MODELS, SegmentationModel
from .fcn import FCN, PAPER, FCNEncoder, SkipHead, build_encoder, load_from, transplant

NUM_COLOR = 3


class LateFusionFCN(SegmentationModel):
    """Two FCN-32s streams whose scores are averaged before the upsampling: colour, and what else there is (HHA, depth)."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        preprocessing: str | Mapping[str, Any],
        color: FCNEncoder,
        other: FCNEncoder,
        upsampling: str = "fixed",
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        self.color = color
        self.other = other
        self.color_head = SkipHead(color, num_classes, upsampling)
        self.logits_stride = 1 if upsampling == "learned" else self.color_head.final.stride
        # One upsampling serves both streams, so the second has a score layer only.
        self.other_score = zero_conv(other.channels[0], num_classes)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """images (B, 3 + D, H, W), uint8 or float 0..255, RGB and D further channels -> scores before the last upsampling."""
        color_scores, other_scores = self.stream_scores(images)
        fused = self.color_head.fuse([0.5 * color_scores + 0.5 * other_scores])
        return self.color_head.finish(fused, (images.shape[-2], images.shape[-1]))

    def stream_scores(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """score_fr (B, K, h, w) of the colour stream and of the other one."""
        pixels = self.preprocess(images)
        [color] = self.color_head.score(self.color(pixels[:, :NUM_COLOR]))
        [other] = self.other(pixels[:, NUM_COLOR:])
        return color, self.other_score(other)

    def classifier_modules(self) -> list[nn.Module]:
        """What stays trainable when only the classifier is trained: the score layers."""
        return [*self.color_head.scores, self.other_score]

    def transplant(self, classifier: ClassifierBackbone) -> None:
        """Start both streams from an image classifier, all but its last layer. Raises CheckpointError for another net."""
        transplant(self.color, classifier)
        transplant(self.other, classifier)

    def init_from(self, color: FCN, other: FCN) -> None:
        """Start from two FCN-32s, one per stream, score layers included. Raises CheckpointError where they do not fit."""
        for backbone, score, source in (
            (self.color, self.color_head.scores[0], color),
            (self.other, self.other_score, other),
        ):
            load_from(backbone, source.encoder)
            load_from(score, source.head.scores[0])

    def caffe_names(self) -> dict[str, str]:
        """Layer name in the authors' .caffemodel -> module here: every name carries its stream as suffix."""
        names: dict[str, str] = {}
        for suffix, stream, score in (("color", "color", "color_head.scores.0"), ("hha", "other", "other_score")):
            encoder: FCNEncoder = getattr(self, stream)
            names |= {f"{layer}{suffix}": f"{stream}.{module}" for layer, module in encoder.caffe_names().items()}
            names[f"score_fr{suffix}"] = score
        return names


class TwoHeadFCN(FCN):
    """One backbone, two labellings: `forward` gives the first (semantic), `forward_low_res_all` both.

    num_geometric  classes of the second head
    """

    num_heads = 2

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        preprocessing: str | Mapping[str, Any],
        encoder: FCNEncoder,
        num_geometric: int,
        upsampling: str = "fixed",
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing, encoder, upsampling)
        if num_geometric < 1:
            raise ConfigError("num_geometric", f"got {num_geometric}, allowed are 1 and more")
        self.num_geometric = num_geometric
        self.geometric_head = SkipHead(encoder, num_geometric, upsampling)

    def forward_low_res_all(self, images: Tensor) -> tuple[LowResLogits, LowResLogits]:
        """images (B, C, H, W), uint8 or float 0..255, RGB -> semantic and geometric scores before the last upsampling."""
        maps = self.encoder(self.preprocess(images))
        size = (images.shape[-2], images.shape[-1])
        semantic, geometric = (
            head.finish(head.fuse(head.score(maps)), size) for head in (self.head, self.geometric_head)
        )
        return semantic, geometric

    def classifier_modules(self) -> list[nn.Module]:
        """What stays trainable when only the classifier is trained: the score layers of both heads."""
        return [*self.head.scores, *self.geometric_head.scores]

    def caffe_names(self) -> dict[str, str]:
        """Layer name in the authors' .caffemodel -> module here: score layers carry their task as suffix."""
        names = {layer: f"encoder.{module}" for layer, module in self.encoder.caffe_names().items()}
        for suffix, head in (("sem", "head"), ("geo", "geometric_head")):
            names |= {f"score_{name}_{suffix}": f"{head}.scores.{i}" for i, name in enumerate(self.encoder.names)}
        return names


@MODELS.register(
    "fcn32s_late_fusion_vgg16", tiny={"width_mult": 1 / 16}, paper=PAPER, year=2015, scores="NYUDv2 34.0 (16s, table 4)"
)
def fcn32s_late_fusion_vgg16(
    num_classes: int,
    in_channels: int = 6,
    *,
    backbone: str = "vgg16",
    geometry: str = "caffe",
    upsampling: str = "fixed",
    batch_norm: bool = False,
    width_mult: float = 1.0,
    dropout: float = 0.5,
    preprocessing: str | Mapping[str, Any] | None = None,
) -> LateFusionFCN:
    """Two FCN-32s streams (colour, HHA) with averaged scores; in_channels is 3 + those of the second image."""
    num_other = in_channels - NUM_COLOR
    if num_other < 1:
        what = f"got {in_channels}; late fusion takes 3 colour channels and at least one more"
        raise ConfigError("in_channels", what, "create the model with in_channels=6 (RGB and HHA)")
    streams = [
        build_encoder(backbone, n, (), geometry, batch_norm, width_mult, dropout) for n in (NUM_COLOR, num_other)
    ]
    spec = preprocessing or (NYUD_COLOR_HHA if in_channels == 6 else "caffe")
    return LateFusionFCN(num_classes, in_channels, spec, streams[0], streams[1], upsampling)


def _register_two_heads(name: str, summary: str, strides: tuple[int, ...]) -> None:
    def build(
        num_classes: int,
        in_channels: int = 3,
        *,
        num_geometric: int = 3,
        backbone: str = "vgg16",
        geometry: str = "caffe",
        upsampling: str = "fixed",
        batch_norm: bool = False,
        width_mult: float = 1.0,
        dropout: float = 0.5,
        preprocessing: str | Mapping[str, Any] = "caffe",
    ) -> TwoHeadFCN:
        body = build_encoder(backbone, in_channels, strides, geometry, batch_norm, width_mult, dropout)
        return TwoHeadFCN(num_classes, in_channels, preprocessing, body, num_geometric, upsampling)

    build.__doc__ = summary
    MODELS.register(name, tiny={"width_mult": 1 / 16}, paper=PAPER, year=2015, scores="SIFT Flow 39.5 (16s, table 5)")(
        build
    )


_register_two_heads("fcn32s_two_heads_vgg16", "FCN-32s on VGG16 with a semantic and a geometric head.", ())
_register_two_heads(
    "fcn16s_two_heads_vgg16", "FCN-16s on VGG16 with a semantic and a geometric head, as for SIFT Flow.", (16,)
)
_register_two_heads("fcn8s_two_heads_vgg16", "FCN-8s on VGG16 with a semantic and a geometric head.", (16, 8))
