"""Aligned Xception, the modified Xception of DeepLab v3+ (Chen et al., ECCV 2018).

Residual blocks of depthwise separable convolutions in an entry, a middle and an exit flow. DeepLab v3+'s strongest
backbone.

Paper: https://arxiv.org/abs/1802.02611, "Encoder-Decoder with Atrous Separable Convolution for Semantic Image
Segmentation", figure 4; after Chollet, https://arxiv.org/abs/1610.02357

Faithful to the authors' TensorFlow code: entry, middle and exit flow of 41, 65 and 71 layers; every pooling is a
strided separable convolution; batch normalization (eps 0.001) after each depthwise 3x3; the shortcut reads the map
before the ReLU. The finer maps are taken after the second separable convolution of a strided block, as the authors'
decoder does.

Deviations: the paper's text has a ReLU after every depthwise 3x3; the released code, which is followed here, only in
the last block. `output_stride` is 8, 16 or 32; `width_mult` is ours.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from ..nn.channels import scale_channels
from ..nn.geometry import MainPath
from ..nn.init import init_kaiming_normal
from ..nn.output_stride import StrideDilation
from ..nn.separable_conv import relu_separable_conv, separable_conv_relu
from . import BACKBONES
from .classifier import ClassifierBackbone

PAPER = "https://arxiv.org/abs/1802.02611"
EPS = 1e-3

# (channels, stride) of the entry flow's blocks, and the number of blocks of the middle flow. Source: the authors'
# xception.py.
ENTRY_41_65 = ((128, 2), (256, 2), (728, 2))
ENTRY_71 = ((128, 2), (256, 1), (256, 2), (728, 1), (728, 2))
FLOWS: dict[int, tuple[tuple[tuple[int, int], ...], int]] = {
    41: (ENTRY_41_65, 8),
    65: (ENTRY_41_65, 16),
    71: (ENTRY_71, 16),
}


class XceptionBlock(MainPath):
    """Three separable convolutions, each after a ReLU, added to the input, or to a 1x1 of it with `project`."""

    def __init__(
        self,
        in_channels: int,
        channels: tuple[int, int, int],
        *,
        stride: int = 1,
        dilation: int = 1,
        project: bool,
    ) -> None:
        super().__init__()
        first, second, third = channels
        self.separable1 = relu_separable_conv(in_channels, first, dilation=dilation, eps=EPS)
        self.separable2 = relu_separable_conv(first, second, dilation=dilation, eps=EPS)
        self.separable3 = relu_separable_conv(second, third, stride=stride, dilation=dilation, eps=EPS)
        self.shortcut: nn.Module = nn.Identity()
        if project:
            conv = nn.Conv2d(in_channels, third, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(third, EPS))

    def forward_with_low_level(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the block's output, and the map after its second separable convolution, before stride and ReLU."""
        low_level = self.separable2(self.separable1(x))
        return self.separable3(low_level) + self.shortcut(x), low_level

    def forward(self, x: Tensor) -> Tensor:
        """Compute (B, in_channels, H, W) -> (B, channels[2], ceil(H / stride), ceil(W / stride))."""
        return self.forward_with_low_level(x)[0]

    def main_path(self) -> list[nn.Module]:
        """Return the separable convolutions."""
        return [self.separable1, self.separable2, self.separable3]


class Xception(ClassifierBackbone):
    """Aligned Xception with `depth` layers; maps conv, low_level, entry, middle, exit at strides 2, 4, 8, 16, 32."""

    input_size = 299
    map_names = ("conv", "low_level", "entry", "middle", "exit")

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        *,
        num_classes: int = 0,
        output_stride: int = 32,
        width_mult: float = 1.0,
    ) -> None:
        super().__init__()
        entry_flow, num_middle = FLOWS[depth]
        c32, c64, c1024, c1536, c2048 = (scale_channels(c, width_mult) for c in (32, 64, 1024, 1536, 2048))
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, c32, 3, 2, 1, bias=False), nn.BatchNorm2d(c32, EPS), nn.ReLU(inplace=True),
            nn.Conv2d(c32, c64, 3, 1, 1, bias=False), nn.BatchNorm2d(c64, EPS), nn.ReLU(inplace=True),
        )  # fmt: skip
        tracker = StrideDilation(output_stride, stride=2)

        # Entry flow. The maps low_level and entry are taken inside its second and third strided block.
        channels = c64
        entry: list[XceptionBlock] = []
        for base_channels, nominal_stride in entry_flow:
            out = scale_channels(base_channels, width_mult)
            dilation, stride = tracker.dilation, tracker.step(nominal_stride)
            entry.append(XceptionBlock(channels, (out, out, out), stride=stride, dilation=dilation, project=True))
            channels = out
        self.entry = nn.ModuleList(entry)
        self.low_level_blocks = tuple(i for i, (_, stride) in enumerate(entry_flow) if stride == 2)[1:]
        low_level, before_middle = (scale_channels(entry_flow[i][0], width_mult) for i in self.low_level_blocks)

        # Middle flow, 728 channels.
        self.middle = nn.Sequential(
            *(
                XceptionBlock(channels, (channels,) * 3, dilation=tracker.dilation, project=False)
                for _ in range(num_middle)
            )
        )

        # Exit flow.
        dilation, stride = tracker.dilation, tracker.step(2)
        self.exit1 = XceptionBlock(channels, (channels, c1024, c1024), stride=stride, dilation=dilation, project=True)
        self.exit2 = nn.Sequential(
            separable_conv_relu(c1024, c1536, dilation=tracker.dilation, eps=EPS),
            separable_conv_relu(c1536, c1536, dilation=tracker.dilation, eps=EPS),
            separable_conv_relu(c1536, c2048, dilation=tracker.dilation, eps=EPS),
        )
        self.channels = (c64, low_level, before_middle, channels, c2048)
        self.strides = self._read_strides()
        self.fc = nn.Linear(c2048, num_classes) if num_classes else None
        init_kaiming_normal(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the maps of normalized images (B, C, H, W), finest first."""
        x = self.stem(images)
        maps = [x]
        for i, block in enumerate(self.entry):
            assert isinstance(block, XceptionBlock)
            x, low_level = block.forward_with_low_level(x)
            if i in self.low_level_blocks:
                maps.append(low_level)
        middle = self.middle(x)
        return [*maps, middle, self.exit2(self.exit1(middle))]

    def modules_to(self, index: int = -1) -> list[nn.Module]:
        """Return the chain of modules from the image to map `index`."""
        name = self.map_names[index]
        if name == "conv":
            return [self.stem]
        if name in ("low_level", "entry"):
            position = self.low_level_blocks[0 if name == "low_level" else 1]
            block = self.entry[position]
            assert isinstance(block, XceptionBlock)
            return [self.stem, *self.entry[:position], block.separable1, block.separable2]
        flow: list[nn.Module] = [self.stem, *self.entry, *self.middle]
        return flow if name == "middle" else [*flow, self.exit1, self.exit2]

    def head(self) -> nn.Sequential | None:
        """Return global average and fully connected layer."""
        return None if self.fc is None else nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), self.fc)


for _depth in FLOWS:
    BACKBONES.register(
        f"xception{_depth}",
        summary=f"Aligned Xception with {_depth} layers, as modified by DeepLab v3+.",
        tiny={"width_mult": 1 / 32},
        paper=PAPER,
        year=2018,
    )(partial(Xception, _depth))
