"""Networks with random numbers, and the files that Caffe and PyTorch would have written of them.

The names are in the order of the publishers' prototxt files, not taken from the code under test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.caffe_file import Layer
from pixelwise.models import MODELS
from pixelwise.weights.importing import Imported, import_model

Network = TypeVar("Network", bound=nn.Module)

# Convolutions in the order of the published prototxt files.
VGG16 = [f"conv{stage}_{i}" for stage, count in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, count + 1)]
CAFFENET = ["conv1", "conv2", "conv3", "conv4", "conv5"]
INCEPTION = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")
GOOGLENET = ["conv1/7x7_s2", "conv2/3x3_reduce", "conv2/3x3"]
GOOGLENET += [
    f"inception_{m}/{conv}" for m in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b") for conv in INCEPTION
]
FC = ["fc6", "fc7"]
NUM_GEOMETRIC = 3
OFFICIAL = {
    "fcn32s_vgg16": ([*VGG16, *FC, "score_fr"], [("upscore", 64)]),
    "fcn16s_vgg16": ([*VGG16, *FC, "score_fr", "score_pool4"], [("upscore2", 4), ("upscore16", 32)]),
    "fcn8s_vgg16": (
        [*VGG16, *FC, "score_fr", "score_pool4", "score_pool3"],
        [("upscore2", 4), ("upscore_pool4", 4), ("upscore8", 16)],
    ),
    "fcn8s_atonce_vgg16": (
        [*VGG16, *FC, "score_fr", "score_pool4", "score_pool3"],
        [("upscore2", 4), ("upscore_pool4", 4), ("upscore8", 16)],
    ),
    "fcn32s_late_fusion_vgg16": (
        [
            *[layer + "color" for layer in (*VGG16, *FC, "score_fr")],
            *[layer + "hha" for layer in (*VGG16, *FC, "score_fr")],
        ],
        [("upscore", 64)],
    ),
    "fcn32s_two_heads_vgg16": (
        [*VGG16, *FC, "score_fr_sem", "score_fr_geo"],
        [("upscore_sem", 64), ("upscore_geo", 64)],
    ),
    "fcn16s_two_heads_vgg16": (
        [*VGG16, *FC, *[f"score_{part}_{task}" for part in ("fr", "pool4") for task in ("sem", "geo")]],
        [
            (f"{upscore}_{task}", kernel)
            for task in ("sem", "geo")
            for upscore, kernel in (("upscore2", 4), ("upscore16", 32))
        ],
    ),
    "fcn8s_two_heads_vgg16": (
        [*VGG16, *FC, *[f"score_{part}_{task}" for part in ("fr", "pool4", "pool3") for task in ("sem", "geo")]],
        [
            (f"{upscore}_{task}", kernel)
            for task in ("sem", "geo")
            for upscore, kernel in (("upscore2", 4), ("upscore_pool4", 4), ("upscore8", 16))
        ],
    ),
    "fcn32s_alexnet": ([*CAFFENET, *FC, "score_fr"], [("upscore", 63)]),
    "fcn32s_googlenet": ([*GOOGLENET, "score_fr"], [("upscore", 63)]),
}


def filled(network: Network, seed: int = 0) -> Network:
    """The network with random numbers everywhere, variances positive, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
                if name.endswith("running_var"):
                    value.abs_().add_(0.5)
    return network.eval()


def dense_bilinear(num_classes: int, kernel: int) -> np.ndarray:
    """Caffe's blob: K x K kernels, bilinear on the diagonal, written as two loops."""
    half = (kernel + 1) // 2
    center = half - 1 if kernel % 2 == 1 else half - 0.5
    blob = np.zeros((num_classes, num_classes, kernel, kernel), np.float32)
    for row in range(kernel):
        for column in range(kernel):
            blob[range(num_classes), range(num_classes), row, column] = (1 - abs(row - center) / half) * (
                1 - abs(column - center) / half
            )
    return blob


def layers_of(
    network: nn.Module, names: Sequence[str], kinds: type[nn.Module] | tuple[type[nn.Module], ...] = nn.Conv2d
) -> list[Layer]:
    """The network's layers of these kinds, in order, under Caffe's names."""
    modules = [m for m in network.modules() if isinstance(m, kinds)]
    layers: list[Layer] = []
    for name, module in zip(names, modules, strict=True):
        kind = "InnerProduct" if isinstance(module, nn.Linear) else "Convolution"
        state = module.state_dict()
        layers.append((name, kind, [state["weight"].numpy(), state["bias"].numpy()]))
    return layers


def official_layers(name: str, network: nn.Module, num_classes: int) -> list[Layer]:
    """All layers with weights of the published net `name`, numbers taken from our network."""
    convs, upscores = OFFICIAL[name]
    layers = layers_of(network, convs)
    for layer, kernel in upscores:
        count = NUM_GEOMETRIC if layer.endswith("_geo") else num_classes
        layers.append((layer, "Deconvolution", [dense_bilinear(count, kernel)]))
    if "atonce" in name:
        layers += [
            (f"scale_{pool}", "Scale", [np.full(32, scale, np.float32)])
            for pool, scale in (("pool4", 0.01), ("pool3", 0.0001))
        ]
    return [("data", "Python", []), *layers, ("loss", "SoftmaxWithLoss", [])]


def images(size: tuple[int, int] = (33, 40), num_channels: int = 3) -> Tensor:
    return torch.randint(
        0, 256, (1, num_channels, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def import_tiny(
    path: Path,
    name: str,
    num_classes: int | None = None,
    *,
    in_channels: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Imported:
    """`import_model` with the network in its test size."""
    small = {**MODELS[name].tiny, **(options or {})}
    return import_model(path, name, num_classes, in_channels=in_channels, options=small)


def conv(x: Tensor, blobs: Sequence[Tensor], *, stride: int = 1, padding: int = 0, groups: int = 1) -> Tensor:
    """Caffe's convolution of a layer's blobs: the weight and the bias."""
    weight, bias = blobs
    return F.conv2d(x, weight, bias, stride=stride, padding=padding, groups=groups)


def make_imports_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """`pixelwise import` builds its networks in their test size."""
    monkeypatch.setattr("pixelwise.weights.importing.import_model", import_tiny)


def save(path: Path, state: dict[str, Tensor]) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path
