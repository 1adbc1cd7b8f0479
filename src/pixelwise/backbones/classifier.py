"""Backbones that were published as image classifiers, with the head that FCN turns into convolutions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from ..errors import ConfigError
from ..nn.convolutionalize import Convolutionalized, convolutionalize
from ..nn.geometry import layers_of, receptive_field, spatial_layers
from .base import Backbone


class ClassifierBackbone(Backbone):
    """A backbone whose maps lie on one chain of modules, with the paper's classifier where `num_classes` is not 0.

    input_size         side in pixels of the images that the classifier was made for
    fc_layers          (kernel, channels) of the head's hidden fully connected layers, read as convolutions: VGG16's
                       fc6 and fc7 are (7, 4096) and (1, 4096); empty after a global average pooling
    architecture       common name of its variants, such as AlexNet for CaffeNet; files of one architecture fit the
                       networks on its variants; empty for architectures without variants
    same_stem_padding  padding of the first convolution that keeps its outputs centered on their pixels; None for
                       backbones whose builder has no option for that padding, so that FCN cannot be built on them
    """

    architecture: ClassVar[str] = ""
    same_stem_padding: ClassVar[int | None] = None

    input_size: int
    fc_layers: tuple[tuple[int, int], ...] = ()

    @abstractmethod
    def head(self) -> nn.Sequential | None:
        """Return the chain from the last map to the class logits, or None where the backbone was built without one."""

    def caffe_names(self) -> Mapping[str, str]:
        """Return the module name of each layer name in the published Caffe file; empty where there is no such file."""
        return {}

    def classify(self, images: Tensor) -> Tensor:
        """Compute logits (B, num_classes) of normalized images (B, C, input_size, input_size).

        Raises ConfigError without a classifier.
        """
        logits: Tensor = self._existing_head()(nn.Sequential(*self.modules_to())(images))
        return logits

    def convolutionalize(self, input_size: int = 0) -> Convolutionalized:
        """Return the classifier as a fully convolutional network for images of any size, sharing the weights.

        `input_size` replaces the backbone's own. Raises ConfigError without a classifier, and for a size that does not
        fit its fully connected layers.
        """
        side = input_size or self.input_size
        in_channels = next(self.parameters()).shape[1]
        return convolutionalize(nn.Sequential(*self.modules_to()), self._existing_head(), (in_channels, side, side))

    def _existing_head(self) -> nn.Sequential:
        head = self.head()
        if head is None:
            raise ConfigError("backbone", "has no classifier", "create it with num_classes=1000")
        return head

    def _read_strides(self) -> tuple[int, ...]:
        return tuple(receptive_field(layers_of(self.modules_to(i))).stride for i in range(len(self.map_names)))


class ChainBackbone(ClassifierBackbone):
    """A backbone with torchvision's names `features` and `classifier`: AlexNet, VGG and the mobile networks.

    maps         name -> position in `features` of each map, finest first
    caffe_convs  names of the convolutions in the published Caffe file, in order; empty where there is none
    """

    caffe_convs: tuple[str, ...] = ()

    def __init__(
        self,
        features: nn.Sequential,
        classifier: nn.Sequential | None,
        *,
        maps: Mapping[str, int],
        input_size: int,
        fc_layers: tuple[tuple[int, int], ...] = (),
    ) -> None:
        super().__init__()
        self.features = features
        self.classifier = classifier
        self.map_names, self.out_indices = tuple(maps), tuple(maps.values())
        self.input_size = input_size
        self.fc_layers = fc_layers
        self.strides = self._read_strides()
        chains = [spatial_layers(self.modules_to(i)) for i in range(len(maps))]
        self.channels = tuple([m.out_channels for m in chain if isinstance(m, nn.Conv2d)][-1] for chain in chains)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the maps of normalized images (B, C, H, W), finest first."""
        maps, x = [], images
        for position, layer in enumerate(self.features):
            x = layer(x)
            if position in self.out_indices:
                maps.append(x)
        return maps

    def modules_to(self, index: int = -1) -> list[nn.Module]:
        """Return the chain of modules from the image to map `index`."""
        return list(self.features)[: self.out_indices[index] + 1]

    def head(self) -> nn.Sequential | None:
        """Return the average pooling to the classifier's map size, flatten, and the classifier's layers."""
        if self.classifier is None:
            return None
        map_size = self.fc_layers[0][0] if self.fc_layers else 1
        return nn.Sequential(nn.AdaptiveAvgPool2d(map_size), nn.Flatten(1), *self.classifier)

    def caffe_names(self) -> Mapping[str, str]:
        """Return the convolutions under `caffe_convs`, in order, then fc6, fc7 and fc8."""
        if not self.caffe_convs:
            return {}
        convs = [f"features.{i}" for i, layer in enumerate(self.features) if isinstance(layer, nn.Conv2d)]
        names = dict(zip(self.caffe_convs, convs, strict=True))
        if self.classifier is not None:
            linears = [f"classifier.{i}" for i, layer in enumerate(self.classifier) if isinstance(layer, nn.Linear)]
            names |= dict(zip(("fc6", "fc7", "fc8"), linears, strict=True))
        return names


def max_pool(kernel: int, *, stride: int = 2, ceil_mode: bool, padding: int = 0) -> nn.MaxPool2d:
    """Return a max pooling. Only odd kernels are padded: an even kernel has no center to keep in place."""
    return nn.MaxPool2d(kernel, stride, padding=padding if kernel % 2 else 0, ceil_mode=ceil_mode)
