"""Backbones that were image classifiers: they know their own layers, and the fully connected head that FCN turns into convolutions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from ..errors import ConfigError
from ..nn.geometry import layers_of, receptive_field
from .base import Backbone


class ClassifierBackbone(Backbone):
    """A backbone whose maps lie on one chain of layers, with the paper's classifier where `num_classes` is not 0.

    input_size  height and width in pixels that the classifier was made for
    map_names   the paper's name of each map that `forward` returns
    fc_layers   (kernel, channels) of the head's hidden fully connected layers, read as convolutions; empty after a global
                average pooling
    same_stem_padding  padding of the first convolution that keeps its outputs centred on their pixels; None for backbones
                       whose builder has no option for that padding, so that FCN cannot be built on them
    """

    same_stem_padding: ClassVar[int | None] = None

    input_size: int
    map_names: tuple[str, ...]
    fc_layers: tuple[tuple[int, int], ...] = ()

    @abstractmethod
    def modules_to(self, index: int = -1) -> list[nn.Module]:
        """The chain of modules from the image to map `index`."""

    @abstractmethod
    def head(self) -> nn.Sequential | None:
        """The chain from the last map to the logits of the classes, or None where the backbone was built without."""

    def caffe_names(self) -> Mapping[str, str]:
        """Layer name in the published Caffe file -> module here; empty where there is no such file."""
        return {}

    def classify(self, images: Tensor) -> Tensor:
        """Normalised images (B, C, input_size, input_size) float -> logits (B, num_classes). Raises ConfigError without a head."""
        head = self.head()
        if head is None:
            raise ConfigError("backbone", "was built without a classifier", "create it with num_classes=1000")
        logits: Tensor = head(nn.Sequential(*self.modules_to())(images))
        return logits

    def _read_strides(self) -> tuple[int, ...]:
        return tuple(receptive_field(layers_of(self.modules_to(i))).stride for i in range(len(self.map_names)))


class ChainBackbone(ClassifierBackbone):
    """A backbone that is one chain, `features`, with `avgpool` and `classifier` behind it: AlexNet and VGG, torchvision's names.

    taps    (name, position in `features`) of the maps, finest first
    fc_layers  as in ClassifierBackbone; num_classes 0 leaves the classifier out
    """

    def __init__(
        self,
        features: nn.Sequential,
        taps: Sequence[tuple[str, int]],
        classifier: nn.Sequential | None,
        fc_layers: tuple[tuple[int, int], ...],
        input_size: int,
    ) -> None:
        super().__init__()
        self.features = features
        self.out_indices = tuple(position for _, position in taps)
        self.map_names = tuple(name for name, _ in taps)
        self.fc_layers = fc_layers
        self.input_size = input_size
        self.strides = self._read_strides()
        self.channels = tuple(_last_channels(self.modules_to(i)) for i in range(len(taps)))
        if classifier is not None:
            self.avgpool = nn.AdaptiveAvgPool2d(fc_layers[0][0])
            self.classifier = classifier

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, C, H, W) float -> maps, finest first."""
        maps, cells = [], images
        for position, layer in enumerate(self.features):
            cells = layer(cells)
            if position in self.out_indices:
                maps.append(cells)
        return maps

    def modules_to(self, index: int = -1) -> list[nn.Module]:
        """The chain of modules from the image to map `index`."""
        return list(self.features.children())[: self.out_indices[index] + 1]

    def head(self) -> nn.Sequential | None:
        """Average pool to the classifier's map size, flatten, fully connected layers."""
        if not hasattr(self, "classifier"):
            return None
        return nn.Sequential(self.avgpool, nn.Flatten(1), *self.classifier)

    def caffe_names(self) -> Mapping[str, str]:
        """Convolutions in order under `_caffe_convs`, then fc6, fc7, fc8."""
        convs = [f"features.{i}" for i, layer in enumerate(self.features) if isinstance(layer, nn.Conv2d)]
        names = dict(zip(self._caffe_convs(), convs, strict=True))
        if hasattr(self, "classifier"):
            linears = [f"classifier.{i}" for i, layer in enumerate(self.classifier) if isinstance(layer, nn.Linear)]
            names |= dict(zip(("fc6", "fc7", "fc8"), linears, strict=True))
        return names

    @abstractmethod
    def _caffe_convs(self) -> list[str]:
        """Names of the convolutions in the published Caffe file, in order."""


class MobileBackbone(ClassifierBackbone):
    """A backbone that is one chain, `features`, of which the last map at each stride is handed out; the mobile nets.

    A global average and `classifier`, where there is one, stand behind it.
    """

    features: nn.Sequential
    classifier: nn.Module
    out_indices: tuple[int, ...]

    def _finish(self, layers: Sequence[nn.Module], ends: Sequence[tuple[int, int, int]]) -> None:
        """Keep the chain; ends are (position in it, channels, stride) of each map."""
        self.features = nn.Sequential(*layers)
        self.out_indices, self.channels, self.strides = (tuple(column) for column in zip(*ends, strict=True))
        self.map_names = tuple(f"features.{position}" for position in self.out_indices)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, C, H, W) float -> maps, finest first."""
        maps, cells = [], images
        for position, layer in enumerate(self.features):
            cells = layer(cells)
            if position in self.out_indices:
                maps.append(cells)
        return maps

    def modules_to(self, index: int = -1) -> list[nn.Module]:
        """The chain of modules from the image to map `index`."""
        return list(self.features)[: self.out_indices[index] + 1]

    def head(self) -> nn.Sequential | None:
        """Global average, then the classifier's layers."""
        if not hasattr(self, "classifier"):
            return None
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), *self.classifier.children())


def pool(kernel: int, ceil_mode: bool, padding: int = 0, stride: int = 2) -> nn.MaxPool2d:
    """A max pooling; only odd kernels are padded, as an even one has no middle cell to stay on."""
    return nn.MaxPool2d(kernel, stride, padding=padding if kernel % 2 else 0, ceil_mode=ceil_mode)


def _last_channels(path: Sequence[nn.Module]) -> int:
    return [layer.out_channels for layer in path if isinstance(layer, nn.Conv2d)][-1]
