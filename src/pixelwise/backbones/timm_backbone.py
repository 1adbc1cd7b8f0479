"""Backbones of the timm library, such as `timm:convnext_tiny`. timm is imported only when such a name is used.

Paper: none of its own; timm, https://github.com/huggingface/pytorch-image-models, names the paper of each of its
networks.

Faithful: maps, channels, strides and state names are those of timm's `features_only` networks.

Deviations: none. Normalization is the option `preprocessing` of the model, as for every backbone.
"""

from __future__ import annotations

import importlib

from torch import Tensor, nn

from ..errors import ConfigError, ResourceError, UnknownNameError
from ..registry import suggest
from . import PREFIX
from .base import Backbone


class TimmBackbone(Backbone):
    """The feature maps of a network of timm, finest first.

    name           name of the network in timm
    output_stride  32, or 16 and 8 where timm can replace strides by dilation
    pretrained     True to download timm's published weights
    Raises ResourceError without timm, UnknownNameError for the name, ConfigError for options that timm cannot build.
    """

    def __init__(self, name: str, in_channels: int = 3, *, output_stride: int = 32, pretrained: bool = False) -> None:
        super().__init__()
        try:
            timm = importlib.import_module("timm")
        except ImportError as error:
            what = f"timm cannot be imported: {str(error).splitlines()[0]}"
            fix = "pip install 'pixelwise[timm]', with the torchvision version that fits your torch"
            raise ResourceError("timm", what, fix) from error
        if name.partition(".")[0] not in timm.list_models():
            raise UnknownNameError(PREFIX + name, "no such network in timm", suggest(name, timm.list_models()))
        options = {} if output_stride == 32 else {"output_stride": output_stride}
        try:
            self.net = timm.create_model(
                name, features_only=True, in_chans=in_channels, pretrained=pretrained, **options
            )
        except (TypeError, ValueError, AssertionError, NotImplementedError, RuntimeError) as error:
            what = f"timm cannot build it at output stride {output_stride}: {error or type(error).__name__}"
            raise ConfigError(PREFIX + name, what, "use output stride 32, or another network") from error
        self.channels = tuple(self.net.feature_info.channels())
        self.strides = tuple(self.net.feature_info.reduction())
        self.map_names = tuple(f"map{i}" for i in range(len(self.strides)))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the maps of normalized images (B, C, H, W), finest first."""
        return list(self.net(images))

    def modules_to(self, index: int = -1) -> list[nn.Module]:
        """Raise ConfigError: timm does not say which modules lie before a map."""
        what = "timm does not say which of its modules lie before a map"
        raise ConfigError("backbone", what, "take a backbone of `pixelwise backbones`")
