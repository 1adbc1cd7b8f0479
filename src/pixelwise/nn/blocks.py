"""The blocks that most backbones are made of."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch normalisation, `act` (ReLU); padded so that stride 1 keeps the size."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        act: type[nn.Module] = nn.ReLU,
    ) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias=False),
            nn.BatchNorm2d(out_channels),
            act(inplace=True),
        )


def double_conv(in_channels: int, out_channels: int, padding: int = 0, batch_norm: bool = False) -> nn.Sequential:
    """U-Net's stage: twice a 3x3 convolution with bias and a ReLU, between them a norm on request.

    Source: U-Net, figure 1. Without padding each side loses four cells.
    """
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers.append(nn.Conv2d(channels, out_channels, 3, padding=padding))
        layers += [nn.BatchNorm2d(out_channels)] if batch_norm else []
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the shortcut is a 1x1 convolution where the shape changes.

    Source: He et al. 2016, "Deep residual learning for image recognition", figure 2 and option B.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_channels, out_channels, 3, stride, dilation)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, dilation, dilation, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        same = in_channels == out_channels and stride == 1
        self.shortcut = nn.Identity() if same else _projection(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, about H / stride, about W / stride)."""
        return F.relu(self.norm2(self.conv2(self.conv1(x))) + self.shortcut(x))


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


def caffe_lrn() -> nn.LocalResponseNorm:
    """x / (1 + 1e-4 / 5 * sum of squares over five neighbouring channels) ** 0.75, (B, C, H, W) -> same.

    Caffe divides alpha by the window's length and adds 1; the AlexNet paper adds 2 and does not divide, which is
    another function. Source: BVLC CaffeNet and GoogLeNet prototxt files.
    """
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
