"""Small blocks shared by several networks: convolution with norm, U-Net's stage, a residual block, Caffe's LRN."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .depthwise_conv import DepthwiseConv2d
from .geometry import MainPath


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch normalization, activation (ReLU by default).

    Padded so that stride 1 keeps the size: padding 1 for 3x3, 2 for 5x5, times the dilation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        act: type[nn.Module] = nn.ReLU,
    ) -> None:
        padding = dilation * (kernel // 2)
        conv: nn.Conv2d
        if groups == in_channels == out_channels:
            conv = DepthwiseConv2d(in_channels, kernel, stride, padding=padding, dilation=dilation)
        else:
            conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(out_channels), act(inplace=True))


def double_conv(in_channels: int, out_channels: int, *, padding: int = 0, batch_norm: bool = False) -> nn.Sequential:
    """Return two 3x3 convolutions with bias, each with a ReLU and optionally a batch normalization before it.

    Without padding, each side of the map shrinks by 4: 572 -> 570 -> 568. Source: U-Net, figure 1.
    """
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers.append(nn.Conv2d(channels, out_channels, 3, padding=padding))
        layers += [nn.BatchNorm2d(out_channels)] if batch_norm else []
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class ResidualBlock(MainPath):
    """Two 3x3 convolutions beside a shortcut; the shortcut is a 1x1 convolution where the shape changes.

    Source: He et al. 2016, "Deep residual learning for image recognition", figure 2 and option B. The ResNets
    themselves, with torchvision's state names, are in `backbones/resnet.py`.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_channels, out_channels, stride=stride, dilation=dilation)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, dilation, dilation, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels or stride != 1:
            conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Compute (B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride))."""
        return F.relu(self.norm2(self.conv2(self.conv1(x))) + self.shortcut(x))

    def main_path(self) -> list[nn.Module]:
        """Return the two 3x3 convolutions."""
        return [self.conv1, self.conv2]


def caffe_lrn() -> nn.LocalResponseNorm:
    """Return Caffe's local response normalization, (B, C, H, W) -> same.

    x / (1 + 1e-4 / 5 * sum of squares over five neighboring channels) ** 0.75. Caffe divides alpha by the window's
    length and adds 1; the AlexNet paper adds 2 and does not divide, which is another function. Source: the BVLC
    CaffeNet and GoogLeNet prototxt files.
    """
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
