"""EfficientNet-Lite files with the names of lukemelas' EfficientNet-PyTorch, the layout of the published weights."""

from __future__ import annotations

from dataclasses import replace

from ...backbones.efficientnet_lite import SCALES, lite_stages
from .load import WeightFile


def lite_names(number: int) -> dict[str, str]:
    """Return module name in the package's file -> module name here, for EfficientNet-Lite `number`.

    lukemelas' EfficientNet-PyTorch counts blocks through and numbers norms from 0, or from 1 in the first block, which
    has no expansion.
    """
    names = {"_conv_stem": "features.0.0", "_bn0": "features.0.1"}
    width, depth, *_ = SCALES[number]
    stages = lite_stages(width, depth)
    block = 0
    for position, stage in enumerate(stages, start=1):
        layers = [("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
        for repeat in range(stage.repeats):
            for i, (conv, norm) in enumerate(layers if stage.expansion > 1 else layers[1:]):
                names[f"_blocks.{block}.{conv}"] = f"features.{position}.{repeat}.block.{i}.0"
                names[f"_blocks.{block}.{norm}"] = f"features.{position}.{repeat}.block.{i}.1"
            block += 1
    last = len(stages) + 1
    return names | {"_conv_head": f"features.{last}.0", "_bn1": f"features.{last}.1", "_fc": "classifier.1"}


def with_our_names(file: WeightFile) -> WeightFile:
    """Return a file of EfficientNet-Lite under our names, with its pixel normalization; any other file as it is."""
    layers = {name.rpartition(".")[0] for name in file.arrays}
    for number in SCALES:
        names = lite_names(number)
        if layers == set(names):
            split = {name: name.rpartition(".") for name in file.arrays}
            arrays = {f"{names[layer]}.{kind}": file.arrays[name] for name, (layer, _, kind) in split.items()}
            return replace(file, arrays=arrays, preprocessing="efficientnet_lite")
    return file
