"""Published weights: their addresses, digests, licenses and scores, and verified downloads.

Scores, digests and licenses are as their sources state them; nothing here was measured by this project. A digest is as
long as its publisher gives it: torchvision puts the first 8 hexadecimal digits of the SHA-256 into the file's name.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ResourceError
from ..files import atomic_write, make_folder
from ..nn.preprocessing import NYUD_COLOR, NYUD_COLOR_HHA, NYUD_HHA, SIFT_FLOW

MAX_BYTES = 4 * 2**30
_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class PublishedWeights:
    """A published weight file.

    name           our name for it: network.publisher
    url            the publisher's address
    sha256         first hexadecimal digits of the digest that the publisher states, or None
    license        terms of use, as the source states them
    preprocessing  pixel normalization of the training: a name of `pixelwise.nn.preprocessing.PREPROCESSING`, or
                   {order, mean, std}
    num_classes    classes of the last layer; of two heads, those of the semantic one
    score          the score that the source states
    source         where all of this was read
    """

    name: str
    url: str
    sha256: str | None
    license: str
    preprocessing: str | Mapping[str, Any]
    num_classes: int
    score: str
    source: str

    @property
    def file_name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]


_TORCHVISION_LICENSE = (
    "torchvision's README: pretrained models may have their own licenses or terms derived from the dataset used for"
    " training (here ImageNet-1K); checking is up to the user. The code is BSD-3-Clause"
)
_BVLC_LICENSE = "unrestricted use (BVLC model license)"
_FCN_LICENSE = (
    "unrestricted use (its README: as Caffe, BSD-2-Clause, and the BVLC model license); "
    "the VGG16 start has its own terms"
)
_VGG_LICENSE = "see http://www.robots.ox.ac.uk/~vgg/research/very_deep/"
_NO_SCORE = "its source states no score"


def _torchvision(network: str, file: str, **fields: Any) -> PublishedWeights:
    return PublishedWeights(
        name=f"{network}.torchvision",
        url=f"https://download.pytorch.org/models/{file}",
        sha256=file.removesuffix(".pth").rpartition("-")[2],
        **fields,
    )


def _torchvision_classifier(
    network: str, file: str, top1: float, top5: float, preprocessing: str = "torchvision"
) -> PublishedWeights:
    return _torchvision(
        network,
        file,
        license=_TORCHVISION_LICENSE,
        preprocessing=preprocessing,
        num_classes=1000,
        score=f"ImageNet-1K top-1 {top1}, top-5 {top5}",
        source="torchvision 0.28, IMAGENET1K_V1",
    )


def _torchvision_segmentation(network: str, file: str, miou: float, accuracy: float) -> PublishedWeights:
    return _torchvision(
        network,
        file,
        license=_TORCHVISION_LICENSE.replace("ImageNet-1K", "COCO with VOC's classes, from an ImageNet-1K start"),
        preprocessing="torchvision",
        num_classes=21,
        score=f"COCO val2017 with VOC's classes: mean IU {miou}, pixel accuracy {accuracy}",
        source="torchvision 0.28, COCO_WITH_VOC_LABELS_V1",
    )


def _fcn(
    name: str, score: str, num_classes: int = 21, preprocessing: str | Mapping[str, Any] = "caffe"
) -> PublishedWeights:
    # Caffe's publishers state no sha256, so these files have to be downloaded by hand; the URLs are as published.
    return PublishedWeights(
        name=f"{name}.caffe",
        url=f"http://dl.caffe.berkeleyvision.org/{name}.caffemodel",
        sha256=None,
        license=_FCN_LICENSE,
        preprocessing=preprocessing,
        num_classes=num_classes,
        score=score,
        source="shelhamer/fcn.berkeleyvision.org, README and caffemodel-url",
    )


def _bvlc(network: str, file: str, score: str) -> PublishedWeights:
    return PublishedWeights(
        name=f"{network}.caffe",
        url=f"http://dl.caffe.berkeleyvision.org/{file}.caffemodel",
        sha256=None,
        license=_BVLC_LICENSE,
        preprocessing="caffe",
        num_classes=1000,
        score=score,
        source=f"BVLC/caffe, models/{file}/readme.md",
    )


def _deeplab_tflite(name: str, file: str, score: str, checkpoint: str) -> PublishedWeights:
    # The digest is published nowhere, so the files have to be downloaded by hand.
    return PublishedWeights(
        name=f"{name}.google",
        url=f"https://raw.githubusercontent.com/google-coral/test_data/master/{file}.tflite",
        sha256=None,
        license="Apache-2.0, as the checkpoints of tensorflow/models; google-coral/test_data names no license",
        preprocessing={"order": "rgb", "mean": [128.0] * 3, "std": [128.0] * 3},
        num_classes=21,
        score=score,
        source=f"tensorflow/models, research/deeplab/g3doc/quantize.md, {checkpoint}: trained by Google on ImageNet,"
        " COCO and VOC 2012 train_aug",
    )


_TABLE = (
    _torchvision_classifier("alexnet", "alexnet-owt-7be5be79.pth", 56.522, 79.066),
    _torchvision_classifier("vgg11", "vgg11-8a719046.pth", 69.02, 88.628),
    _torchvision_classifier("vgg11_bn", "vgg11_bn-6002323d.pth", 70.37, 89.81),
    _torchvision_classifier("vgg13", "vgg13-19584684.pth", 69.928, 89.246),
    _torchvision_classifier("vgg13_bn", "vgg13_bn-abd245e5.pth", 71.586, 90.374),
    _torchvision_classifier("vgg16", "vgg16-397923af.pth", 71.592, 90.382),
    _torchvision_classifier("vgg16_bn", "vgg16_bn-6c64b313.pth", 73.36, 91.516),
    _torchvision_classifier("vgg19", "vgg19-dcbb9e9d.pth", 72.376, 90.876),
    _torchvision_classifier("vgg19_bn", "vgg19_bn-c79401a0.pth", 74.218, 91.842),
    # Ported from TensorFlow: torchvision re-maps its input to x * 2 / 255 - 1 (transform_input) before the first layer.
    _torchvision_classifier("googlenet", "googlenet-1378be20.pth", 69.778, 89.53, "tensorflow"),
    _torchvision_segmentation("fcn_resnet50", "fcn_resnet50_coco-1167a1af.pth", 60.5, 91.4),
    _torchvision_segmentation("fcn_resnet101", "fcn_resnet101_coco-7ecb50ca.pth", 63.7, 91.9),
    _torchvision_segmentation("deeplabv3_resnet50", "deeplabv3_resnet50_coco-cd0a2569.pth", 66.4, 92.4),
    _torchvision_segmentation("deeplabv3_resnet101", "deeplabv3_resnet101_coco-586e9e4e.pth", 67.4, 92.4),
    _torchvision_segmentation("deeplabv3_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large-fc3c493d.pth", 60.3, 91.2),
    _torchvision_segmentation("lraspp_mobilenet_v3_large", "lraspp_mobilenet_v3_large-d234d4ea.pth", 57.9, 91.2),
    _fcn("fcn32s-heavy-pascal", "mean IU 63.6 on seg11valid"),
    _fcn("fcn16s-heavy-pascal", "mean IU 65.0 on seg11valid"),
    _fcn("fcn8s-heavy-pascal", "mean IU 65.5 on seg11valid, 67.2 on seg12test"),
    _fcn("fcn8s-atonce-pascal", "mean IU 65.4 on seg11valid"),
    _fcn("fcn-alexnet-pascal", "mean IU 48.0 on seg11valid"),
    # The README also describes early fusion (nyud-fcn32s-color-d), but gives no address of its file.
    _fcn("nyud-fcn32s-color-heavy", _NO_SCORE, 40, NYUD_COLOR),
    _fcn("nyud-fcn32s-hha-heavy", _NO_SCORE, 40, NYUD_HHA),
    _fcn("nyud-fcn32s-color-hha-heavy", _NO_SCORE, 40, NYUD_COLOR_HHA),
    *(_fcn(f"siftflow-fcn{stride}s-heavy", _NO_SCORE, 33, SIFT_FLOW) for stride in (32, 16, 8)),
    *(_fcn(f"pascalcontext-fcn{stride}s-heavy", _NO_SCORE, 60) for stride in (32, 16, 8)),
    _deeplab_tflite(
        "deeplabv3_mobilenetv2",
        "deeplabv3_mnv2_pascal_quant",
        "the checkpoint in TensorFlow: mean IU 74.26 on VOC 2012 val",
        "mobilenetv2_coco_voc_trainaug_8bit",
    ),
    _deeplab_tflite(
        "deeplabv3_mobilenetv2_dm05",
        "deeplabv3_mnv2_dm05_pascal_quant",
        "the checkpoint in TensorFlow: mean IU 69.65 on VOC 2012 val",
        "mobilenetv2_dm05_coco_voc_trainaug_8bit",
    ),
    _bvlc("caffenet", "bvlc_reference_caffenet", "ImageNet-1K top-1 57.4, top-5 80.4"),
    _bvlc("googlenet", "bvlc_googlenet", "ImageNet-1K top-1 68.7, top-5 88.9"),
    PublishedWeights(
        name="vgg16.caffe",
        url="http://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe/VGG_ILSVRC_16_layers.caffemodel",
        sha256=None,
        license=_VGG_LICENSE,
        preprocessing="caffe",
        num_classes=1000,
        score="ILSVRC-2012 val top-5 error 8.1 (dense, smallest side 384)",
        source="VGG team's gist 211839e770f7b538e2d8",
    ),
)

WEIGHTS: dict[str, PublishedWeights] = {weights.name: weights for weights in _TABLE}

# Opens a URL as a context manager with `read(size)`.
Opener = Callable[[str], AbstractContextManager[Any]]


def find_by_file_name(path: str | Path) -> PublishedWeights | None:
    """Return the weights whose published file has the name of `path`, or None. The file itself is not read."""
    return next((weights for weights in WEIGHTS.values() if weights.file_name == Path(path).name), None)


def verify_published(path: str | Path) -> PublishedWeights | None:
    """Return the weights that a file's name claims, after a check of its digest, or None for any other file name.

    Raises CheckpointError if the file's digest differs from the published one: the file is incomplete, damaged or
    misnamed.
    """
    weights = find_by_file_name(path)
    if weights is None or weights.sha256 is None:
        return weights
    digest = sha256_of(Path(path))
    if not digest.startswith(weights.sha256):
        what = f"expected the SHA-256 of {weights.name}, {weights.sha256}..., got {digest[: len(weights.sha256)]}..."
        raise CheckpointError(path, what, f"download it again from {weights.url}, or rename it if it is your own")
    return weights


def download(weights: PublishedWeights, folder: str | Path, open_url: Opener | None = None) -> Path:
    """Download the file into `folder` and return its path; an existing file with the right digest is kept.

    Only https is followed, redirects included. The digest is checked before the file gets its name. Raises
    CheckpointError if no digest is published or the digest differs, ResourceError if the network or the disk fails;
    both explain how to download the file by hand.
    """
    target = Path(folder) / weights.file_name
    by_hand = f"download it yourself, save it as {target} and pass that file"
    if weights.sha256 is None:
        raise CheckpointError(weights.url, "has no published sha256, so a download cannot be verified", by_hand)
    if not weights.url.startswith("https://"):
        raise CheckpointError(weights.url, "is not an https address", by_hand)
    if target.is_file() and sha256_of(target).startswith(weights.sha256):
        return target
    make_folder(folder)
    with atomic_write(target) as file:
        sha256 = hashlib.sha256()
        for chunk in _chunks(weights.url, open_url or open_https, by_hand):
            sha256.update(chunk)
            file.write(chunk)
        digest = sha256.hexdigest()
        if not digest.startswith(weights.sha256):
            expected, actual = weights.sha256, digest[: len(weights.sha256)]
            what = f"expected the published SHA-256 {expected}..., got {actual}...; nothing was kept"
            raise CheckpointError(weights.url, what, "try again; if it happens again, do not use the file")
    return target


def _chunks(url: str, open_url: Opener, by_hand: str) -> Iterator[bytes]:
    """Yield the content of a URL; every network failure becomes a ResourceError that explains a download by hand."""
    num_bytes = 0
    try:
        with open_url(url) as response:
            while chunk := response.read(_CHUNK_BYTES):
                num_bytes += len(chunk)
                if num_bytes > MAX_BYTES:
                    raise CheckpointError(url, f"is longer than {MAX_BYTES} bytes; nothing was kept", by_hand)
                yield chunk
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise ResourceError(url, f"cannot be downloaded: {reason}", by_hand) from error


def open_https(url: str) -> Any:
    """Open an https URL; redirects are followed only to https."""
    return urllib.request.build_opener(HttpsRedirectHandler).open(url, timeout=_TIMEOUT_S)


class HttpsRedirectHandler(urllib.request.HTTPRedirectHandler):
    """Follow a redirect only if it stays on https."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        """Return the request to follow. Raises URLError for another scheme."""
        if not newurl.startswith("https://"):
            raise urllib.error.URLError(f"redirected to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def cache_folder() -> Path:
    """Return the folder of downloads: `$PIXELWISE_CACHE`, or `pixelwise` in the user's cache folder."""
    if chosen := os.environ.get("PIXELWISE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pixelwise"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits. Raises CheckpointError if the file cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        raise CheckpointError(path, what, "check the path and its permissions") from error
