"""Backbones of the timm library, for those who have it: `timm:convnext_tiny`. Nothing here needs timm until such a name is used.

Paper: none of its own; timm, https://github.com/huggingface/pytorch-image-models, names the paper of each of its networks.

Deviations: maps, channels and strides are timm's `features_only` ones, its state names too. Normalisation is the model's option
`preprocessing`, as for every backbone.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from torch import Tensor

from ..errors import ConfigError, ResourceError, UnknownNameError
from ..registry import suggest
from .base import Backbone

PREFIX = "timm:"


class TimmBackbone(Backbone):
    """The feature maps of a network of timm, finest first.

    name           as timm knows it
    output_stride  32, or 16 and 8 where timm can turn its strides into rates
    pretrained     whether timm fetches its published weights
    Raises ResourceError without timm, UnknownNameError for the name, ConfigError for what timm cannot build.
    """

    def __init__(self, name: str, in_channels: int = 3, *, output_stride: int = 32, pretrained: bool = False) -> None:
        super().__init__()
        timm = _timm()
        if name.partition(".")[0] not in timm.list_models():
            raise UnknownNameError(PREFIX + name, "timm knows no such network", suggest(name, timm.list_models()))
        options = {} if output_stride == 32 else {"output_stride": output_stride}
        try:
            self.net = timm.create_model(
                name, features_only=True, in_chans=in_channels, pretrained=pretrained, **options
            )
        except (TypeError, ValueError, AssertionError, NotImplementedError, RuntimeError) as error:
            what = f"timm cannot build it with maps at output stride {output_stride}: {error or type(error).__name__}"
            raise ConfigError(PREFIX + name, what, "take output stride 32, or another network") from error
        self.channels = tuple(self.net.feature_info.channels())
        self.strides = tuple(self.net.feature_info.reduction())

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, C, H, W) float -> maps, finest first."""
        return list(self.net(images))


def _timm() -> ModuleType:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        what = f"timm cannot be imported: {str(error).splitlines()[0]}"
        fix = "pip install 'pixelwise[timm]', beside the torchvision that fits your torch"
        raise ResourceError(PREFIX.rstrip(":"), what, fix) from error
