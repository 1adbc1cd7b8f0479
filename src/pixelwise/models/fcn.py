"""FCN: Shelhamer, Long and Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015 and PAMI 2017.

Paper: https://arxiv.org/abs/1411.4038, https://arxiv.org/abs/1605.06211

Faithful (geometry="caffe"): a classifier without its last layer, its fully connected layers read as convolutions; 100 pixels of
padding at the first convolution, ceil poolings; 1x1 score layers that start at zero; skips from stride 16 and 8, summed;
bilinear transposed convolutions, one kernel per class; crops. Kernels, crops and strides come from `geometry.py`.
AlexNet is CaffeNet; GoogLeNet loses its average pooling (its margin and upsampling were never published: 63/32 follows
from its odd poolings). At once: pool4 times 0.01, pool3 times 0.0001 before their score layers.

Deviations: without a published net to start from (`transplant`), the backbone starts from He's weights. All upsampling kernels are
fixed, as in the authors' code; the text learns all but the last (`upsampling` "intermediate"). Only VGG has skips in the paper; the
other backbones take their own maps of stride 16 and 8. GoogLeNet sees 715 pixels; the 907 of table 1 are with the average pooling that
it lost. geometry="same" pads every layer so that no margin is needed, and repeats the scores' border cells so that border pixels
are interpolated, not faded out. `width_mult` narrows all layers, `batch_norm` adds it to the backbone and behind fc6 and fc7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import BACKBONES
from ..backbones.classifier import ClassifierBackbone
from ..core import LowResLogits
from ..errors import CheckpointError, ConfigError
from ..nn.channels import inflate_first_conv
from ..nn.convolutionalize import convolutionalize
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
from ..nn.upsampling import Identity, TransposedBilinear, Upscore
from ..registry import suggest
from .base import MODELS, SegmentationModel

PAPER = "https://arxiv.org/abs/1411.4038"
SCORES = "VOC 2012 test 62.2 (8s on VGG16); tables 1 to 3"

# First convolution's padding that keeps its cells on the pixels, by backbone family.
SAME_MARGIN = {"vgg": 1, "alexnet": 5, "googlenet": 3}
CAFFE_MARGIN = 100
UPSAMPLINGS = ("fixed", "intermediate", "learned")
# Source: voc-fcn8s-atonce, layers scale_pool4 and scale_pool3.
AT_ONCE_SCALES = (0.01, 0.0001)


class FCNEncoder(nn.Module):
    """A convolutionalised classifier without its last layer: images -> the map behind fc7, then the skip maps, coarsest first.

    strides   pixels per cell of the skip maps, as (16, 8)
    names, channels, frames  of all maps: "fr", then the backbone's own name; a frame is where a map's cells lie on the image
    """

    def __init__(
        self, backbone: ClassifierBackbone, strides: Sequence[int], same: bool, dropout: float, batch_norm: bool
    ) -> None:
        super().__init__()
        self.same = same
        self.backbone = backbone
        self.skips = [backbone.strides.index(stride) for stride in strides]
        self.fc = _fully_connected(backbone, same, dropout, batch_norm)
        last = backbone.fc_layers[-1][1] if backbone.fc_layers else backbone.channels[-1]
        self.names = ("fr", *(backbone.map_names[i] for i in self.skips))
        self.channels = (last, *(backbone.channels[i] for i in self.skips))
        self.frames = tuple(coordinates(layers) for layers in self.layers())

    def layers(self) -> list[list[Layer]]:
        """For each map, the layers between the image and it."""
        ends = [*self.backbone.modules_to(), self.fc]
        return [layers_of(ends), *(layers_of(self.backbone.modules_to(i)) for i in self.skips)]

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Normalised images (B, C, H, W) -> maps (B, channels[i], h, w), coarsest first."""
        maps = self.backbone(pixels)
        return [self.fc(maps[-1]), *(maps[i] for i in self.skips)]

    def caffe_names(self) -> dict[str, str]:
        """Layer name in the published .caffemodel -> module here: the backbone's convolutions, fc6 and fc7."""
        convs = [f"fc.{i}" for i, layer in enumerate(self.fc) if isinstance(layer, nn.Conv2d)]
        names = {layer: f"backbone.{module}" for layer, module in self.backbone.caffe_names().items()}
        return names | dict(zip(("fc6", "fc7"), convs, strict=False))


def _fully_connected(backbone: ClassifierBackbone, same: bool, dropout: float, batch_norm: bool) -> nn.Sequential:
    """fc6 and fc7 as convolutions; behind a global average pool there were none, and the classifier's dropout stays."""
    layers: list[nn.Module] = []
    channels = backbone.channels[-1]
    for kernel, num_hidden in backbone.fc_layers:
        layers.append(nn.Conv2d(channels, num_hidden, kernel, padding=kernel // 2 if same else 0))
        layers += [nn.BatchNorm2d(num_hidden)] if batch_norm else []
        layers += [nn.ReLU(inplace=True), nn.Dropout(dropout)]
        channels = num_hidden
    fc = nn.Sequential(*layers) if layers else nn.Sequential(nn.Dropout(dropout))
    init_kaiming_normal(fc)
    return fc


class SkipHead(nn.Module):
    """Score layers on the backbone's maps, and the way from the coarsest score through the skips to the image.

    upsampling  one of UPSAMPLINGS: all kernels fixed (the authors' code), the intermediate ones learned (CVPR), all learned
    scales      what each skip map is multiplied with before its score layer; none stands for 1
    """

    def __init__(self, encoder: FCNEncoder, num_classes: int, upsampling: str, scales: Sequence[float] = ()) -> None:
        super().__init__()
        if upsampling not in UPSAMPLINGS:
            raise ConfigError("upsampling", f"got {upsampling!r}, allowed are {', '.join(UPSAMPLINGS)}")
        self.edge = 1 if encoder.same else 0
        self.scales = (1.0, *(scales or [1.0] * len(encoder.skips)))
        self.scores = nn.ModuleList(zero_conv(channels, num_classes) for channels in encoder.channels)
        self.upscores = nn.ModuleList()
        self.shifts: list[int] = []
        frame = self._with_edge(encoder.frames[0])
        for skip in encoder.frames[1:]:
            kernel, stride, _ = upsampling_to(frame, skip)
            self.upscores.append(Upscore(num_classes, kernel, stride, learned=upsampling != "fixed"))
            frame = frame.then(Layer(kernel, stride, transposed=True).coordinates)
            self.shifts.append(crop_offset(of=skip, to=frame))
            # What is cut off at the front moves the first cell: the sum starts where the later of the two starts.
            frame = self._with_edge(frame if self.shifts[-1] >= 0 else skip)
        self.final = upsampling_to(frame, CoordMap())
        self.upscore = (
            Upscore(num_classes, self.final.kernel, self.final.stride, learned=True)
            if upsampling == "learned"
            else None
        )

    def _with_edge(self, frame: CoordMap) -> CoordMap:
        return frame.then(Layer(1, padding=self.edge).coordinates)

    def score(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The backbone's maps -> class scores (B, K, h, w) of each, coarsest first."""
        scaled = [cells if scale == 1 else cells * scale for cells, scale in zip(maps, self.scales, strict=True)]
        return [layer(cells) for layer, cells in zip(self.scores, scaled, strict=True)]

    def fuse(self, scores: Sequence[Tensor]) -> Tensor:
        """Scores of each map, coarsest first -> their sum at the finest map's stride."""
        fused = self._extend(scores[0])
        for upscore, skip, shift in zip(self.upscores, scores[1:], self.shifts, strict=True):
            fused = self._extend(_add_overlap(upscore(fused), skip, shift))
        return fused

    def finish(self, fused: Tensor, size: tuple[int, int]) -> LowResLogits:
        """The summed scores, and the last upsampling: fixed ones are left to the caller."""
        kernel, stride, offset = self.final
        if self.upscore is None:
            return LowResLogits(fused, TransposedBilinear(kernel, stride, offset))
        full = self.upscore(fused)[..., offset : offset + size[0], offset : offset + size[1]]
        return LowResLogits(full, Identity())

    def _extend(self, scores: Tensor) -> Tensor:
        return F.pad(scores, (self.edge,) * 4, mode="replicate") if self.edge else scores


def _add_overlap(up: Tensor, skip: Tensor, shift: int) -> Tensor:
    """Sum of two maps of one stride where both exist; `shift` is the cell of `skip` on which the first cell of `up` lies."""
    up, skip = up[..., max(-shift, 0) :, max(-shift, 0) :], skip[..., max(shift, 0) :, max(shift, 0) :]
    height, width = min(up.shape[-2], skip.shape[-2]), min(up.shape[-1], skip.shape[-1])
    return up[..., :height, :width] + skip[..., :height, :width]


class FCN(SegmentationModel):
    """FCN-32s, 16s and 8s: a backbone, score layers, skips, upsampling. Options as in SkipHead; raises ConfigError for them."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        preprocessing: str | Mapping[str, Any],
        encoder: FCNEncoder,
        upsampling: str = "fixed",
        scales: Sequence[float] = (),
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        self.encoder = encoder
        self.head = SkipHead(encoder, num_classes, upsampling, scales)
        self.logits_stride = 1 if upsampling == "learned" else self.head.final.stride

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """images (B, C, H, W), uint8 or float 0..255, RGB -> scores before the last upsampling."""
        maps = self.encoder(self.preprocess(images))
        fused = self.head.fuse(self.head.score(maps))
        return self.head.finish(fused, (images.shape[-2], images.shape[-1]))

    def contributions(self, images: Tensor) -> dict[str, Tensor]:
        """What each map adds: its name -> logits (B, K, H, W); their sum is `forward`'s, since all behind the scores is linear."""
        scores = self.head.score(self.encoder(self.preprocess(images)))
        size = (images.shape[-2], images.shape[-1])
        added = {}
        for i, name in enumerate(self.encoder.names):
            alone = [score if j == i else torch.zeros_like(score) for j, score in enumerate(scores)]
            added[name] = self.head.finish(self.head.fuse(alone), size).upsample_to(size).logits
        return added

    def receptive_fields(self) -> dict[str, ReceptiveField]:
        """Map name -> receptive field of its cells, in pixels."""
        return {
            name: receptive_field(layers)
            for name, layers in zip(self.encoder.names, self.encoder.layers(), strict=True)
        }

    def classifier_modules(self) -> list[nn.Module]:
        """What stays trainable when only the classifier is trained: the score layers."""
        return list(self.head.scores)

    def transplant(self, classifier: ClassifierBackbone) -> None:
        """Start from an image classifier: everything but its last layer, which the score layers at zero replace.

        Further input channels than its three get the mean of its colour planes. Raises CheckpointError for another net.
        """
        transplant(self.encoder, classifier)

    def caffe_names(self) -> dict[str, str]:
        """Layer name in the authors' .caffemodel -> module here; upsampling kernels are not listed, they are bilinear."""
        names = {layer: f"encoder.{module}" for layer, module in self.encoder.caffe_names().items()}
        return names | {f"score_{name}": f"head.scores.{i}" for i, name in enumerate(self.encoder.names)}


def transplant(encoder: FCNEncoder, classifier: ClassifierBackbone) -> None:
    """Copy a classifier into a backbone: its convolutions, and its hidden fully connected layers read as convolutions.

    Raises CheckpointError when a layer is missing or has another shape.
    """
    given, mine = classifier.state_dict(), encoder.backbone.state_dict()
    first = next(iter(mine))
    if first in given and given[first].shape[1] < mine[first].shape[1]:
        given[first] = inflate_first_conv(given[first], mine[first].shape[1])
    wrong = [name for name, value in mine.items() if name not in given or given[name].shape != value.shape]
    hidden = [layer for layer in encoder.fc if isinstance(layer, nn.Conv2d)]
    sliding = convolutionalize(classifier, classifier.input_size, next(classifier.parameters()).shape[1]).head
    convs = [layer for layer in sliding if isinstance(layer, nn.Conv2d)][:-1]
    if wrong or [c.weight.shape for c in convs] != [h.weight.shape for h in hidden]:
        what = f"layers do not fit: {', '.join(wrong[:6]) or 'the fully connected ones'}"
        raise CheckpointError("transplant", what, "use a classifier of the same backbone and width")
    encoder.backbone.load_state_dict({name: given[name] for name in mine})
    for target, source in zip(hidden, convs, strict=True):
        target.load_state_dict(source.state_dict())


def load_from(module: nn.Module, source: nn.Module) -> None:
    """Copy the state of an equal module. Raises CheckpointError that lists what is missing, unexpected or mis-shaped."""
    mine, given = module.state_dict(), source.state_dict()
    wrong = [n for n in mine | given if n not in mine or n not in given or mine[n].shape != given[n].shape]
    if wrong:
        raise CheckpointError(
            "init_from", f"layers do not fit: {', '.join(wrong[:6])}", "use one backbone, width and class list"
        )
    module.load_state_dict(given)


def build_encoder(
    name: str,
    in_channels: int,
    strides: Sequence[int],
    geometry: str,
    batch_norm: bool,
    width_mult: float,
    dropout: float,
) -> FCNEncoder:
    """A registered classifier as FCN's backbone. Raises ConfigError for a backbone, geometry or norm that does not exist."""
    if geometry not in ("caffe", "same"):
        raise ConfigError("geometry", f"got {geometry!r}, allowed are caffe, same")
    if in_channels < 1:
        raise ConfigError("in_channels", f"got {in_channels}, allowed are 1 and more")
    if not 0 <= dropout < 1:
        raise ConfigError("dropout", f"got {dropout}, allowed are 0 to below 1")
    family = next((f for f in SAME_MARGIN if name.startswith(f)), None)
    full_name = name + "_bn" if batch_norm and not name.endswith("_bn") else name
    if family is None or full_name not in BACKBONES:
        known = [b for b in BACKBONES if b.startswith(tuple(SAME_MARGIN))]
        raise ConfigError("backbone", f"{full_name!r} does not exist", suggest(full_name, known))
    same = geometry == "same"
    padding: dict[str, Any] = {"stem_padding": SAME_MARGIN[family] if same else CAFFE_MARGIN, "ceil_mode": True}
    if family != "vgg":
        padding["pool_padding"] = int(same)
    backbone = BACKBONES.create(full_name, in_channels=in_channels, width_mult=width_mult, **padding)
    assert isinstance(backbone, ClassifierBackbone)
    return FCNEncoder(backbone, strides, same, dropout, full_name.endswith("_bn"))


def _register(
    name: str, summary: str, default_backbone: str, strides: tuple[int, ...], scales: tuple[float, ...] = ()
) -> None:
    own_dropout = 0.4 if default_backbone == "googlenet" else 0.5

    def build(
        num_classes: int,
        in_channels: int = 3,
        *,
        backbone: str = default_backbone,
        geometry: str = "caffe",
        upsampling: str = "fixed",
        batch_norm: bool = False,
        width_mult: float = 1.0,
        dropout: float = own_dropout,
        preprocessing: str | Mapping[str, Any] = "caffe",
    ) -> FCN:
        body = build_encoder(backbone, in_channels, strides, geometry, batch_norm, width_mult, dropout)
        return FCN(num_classes, in_channels, preprocessing, body, upsampling, scales)

    build.__doc__ = summary
    MODELS.register(
        name,
        tiny={"width_mult": 1 / 16 if default_backbone != "googlenet" else 1 / 8},
        paper=PAPER,
        year=2015,
        scores=SCORES,
    )(build)


_BACKBONES = (
    ("vgg16", "vgg16", "VGG16"),
    ("alexnet", "alexnet_caffe", "CaffeNet"),
    ("googlenet", "googlenet", "GoogLeNet"),
)
for _short, _backbone, _title in _BACKBONES:
    _register(f"fcn32s_{_short}", f"FCN-32s on {_title}: one score map of stride 32.", _backbone, ())
    _register(f"fcn16s_{_short}", f"FCN-16s on {_title}: with a skip of stride 16.", _backbone, (16,))
    _register(f"fcn8s_{_short}", f"FCN-8s on {_title}: with skips of stride 16 and 8.", _backbone, (16, 8))
_register(
    "fcn8s_atonce_vgg16", "FCN-8s on VGG16 trained in one go: skip maps scaled down.", "vgg16", (16, 8), AT_ONCE_SCALES
)
