"""Published weights: where they lie, how they are proved, what they mean, and the one safe way to fetch them.

Scores, digests and licences are as their sources state them; nothing here was measured by this project. A digest is as
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
from typing import IO, Any

from ..errors import CheckpointError, ResourceError, UnknownNameError
from ..files import atomic_write, make_folder
from ..nn.preprocessing import NYUD_COLOR, NYUD_COLOR_HHA, NYUD_HHA, SIFT_FLOW
from ..registry import suggest

MAX_BYTES = 4 * 2**30
_CHUNK = 1 << 20
_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class PublishedWeights:
    """A published file of numbers with its meaning.

    name           how this project calls it: network.publisher
    url            where its publisher has it
    sha256         the digest's first hexadecimal digits as the publisher states them; None: nobody stated one
    licence        what the source says about use
    preprocessing  what the numbers were trained with: a name of `pixelwise.nn.preprocessing.PREPROCESSING`, or {order, mean, std}
    num_classes    how many classes its last layer scores; of two heads, the semantic one
    score          the score that the source states
    source         where all of this was read
    """

    name: str
    url: str
    sha256: str | None
    licence: str
    preprocessing: str | Mapping[str, Any]
    num_classes: int
    score: str
    source: str

    @property
    def file_name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]


_TORCHVISION_LICENCE = (
    "torchvision's README: pre-trained models may have their own licenses or terms derived from the dataset used for"
    " training (here ImageNet-1K); checking is up to the user. The code is BSD-3-Clause"
)
_BVLC_LICENCE = "unrestricted use (BVLC model license)"
_FCN_LICENCE = "unrestricted use (its README: as Caffe, BSD-2-Clause, and the BVLC model license); the VGG16 start has its own terms"
_NO_SCORE = "its source states no score"
_VGG_LICENCE = "see http://www.robots.ox.ac.uk/~vgg/research/very_deep/"


def _torchvision(
    network: str, file: str, top1: float, top5: float, preprocessing: str = "torchvision"
) -> PublishedWeights:
    return PublishedWeights(
        f"{network}.torchvision",
        f"https://download.pytorch.org/models/{file}",
        file.removesuffix(".pth").rpartition("-")[2],
        _TORCHVISION_LICENCE,
        preprocessing,
        1000,
        f"ImageNet-1K top-1 {top1}, top-5 {top5}",
        "torchvision 0.28, IMAGENET1K_V1",
    )


def _torchvision_segmentation(network: str, file: str, miou: float, accuracy: float) -> PublishedWeights:
    return PublishedWeights(
        f"{network}.torchvision",
        f"https://download.pytorch.org/models/{file}",
        file.removesuffix(".pth").rpartition("-")[2],
        _TORCHVISION_LICENCE.replace("ImageNet-1K", "COCO with VOC's classes, from an ImageNet-1K start"),
        "torchvision",
        21,
        f"COCO val2017 with VOC's classes: mean IU {miou}, pixel accuracy {accuracy}",
        "torchvision 0.28, COCO_WITH_VOC_LABELS_V1",
    )


def _caffe(
    name: str,
    url: str,
    licence: str,
    num_classes: int,
    score: str,
    source: str,
    preprocessing: str | Mapping[str, Any] = "caffe",
) -> PublishedWeights:
    """Caffe's publishers state no sha256, so these are to be fetched by hand; the URLs are as published."""
    return PublishedWeights(f"{name}.caffe", url, None, licence, preprocessing, num_classes, score, source)


def _fcn(
    name: str, score: str, num_classes: int = 21, preprocessing: str | Mapping[str, Any] = "caffe"
) -> PublishedWeights:
    url = f"http://dl.caffe.berkeleyvision.org/{name}.caffemodel"
    source = "shelhamer/fcn.berkeleyvision.org, README and caffemodel-url"
    return _caffe(name, url, _FCN_LICENCE, num_classes, score, source, preprocessing)


def _bvlc(network: str, file: str, score: str) -> PublishedWeights:
    url = f"http://dl.caffe.berkeleyvision.org/{file}"
    return _caffe(
        network, url, _BVLC_LICENCE, 1000, score, f"BVLC/caffe, models/{file.removesuffix('.caffemodel')}/readme.md"
    )


_TABLE = (
    _torchvision("alexnet", "alexnet-owt-7be5be79.pth", 56.522, 79.066),
    _torchvision("vgg11", "vgg11-8a719046.pth", 69.02, 88.628),
    _torchvision("vgg11_bn", "vgg11_bn-6002323d.pth", 70.37, 89.81),
    _torchvision("vgg13", "vgg13-19584684.pth", 69.928, 89.246),
    _torchvision("vgg13_bn", "vgg13_bn-abd245e5.pth", 71.586, 90.374),
    _torchvision("vgg16", "vgg16-397923af.pth", 71.592, 90.382),
    _torchvision("vgg16_bn", "vgg16_bn-6c64b313.pth", 73.36, 91.516),
    _torchvision("vgg19", "vgg19-dcbb9e9d.pth", 72.376, 90.876),
    _torchvision("vgg19_bn", "vgg19_bn-c79401a0.pth", 74.218, 91.842),
    # Ported from TensorFlow: torchvision re-maps its input to x * 2 / 255 - 1 (transform_input) before the first layer.
    _torchvision("googlenet", "googlenet-1378be20.pth", 69.778, 89.53, "tensorflow"),
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
    # Early fusion (nyud-fcn32s-color-d) is described there, and no address of its file was found.
    _fcn("nyud-fcn32s-color-heavy", _NO_SCORE, 40, NYUD_COLOR),
    _fcn("nyud-fcn32s-hha-heavy", _NO_SCORE, 40, NYUD_HHA),
    _fcn("nyud-fcn32s-color-hha-heavy", _NO_SCORE, 40, NYUD_COLOR_HHA),
    *(_fcn(f"siftflow-fcn{stride}s-heavy", _NO_SCORE, 33, SIFT_FLOW) for stride in (32, 16, 8)),
    *(_fcn(f"pascalcontext-fcn{stride}s-heavy", _NO_SCORE, 60) for stride in (32, 16, 8)),
    _bvlc("caffenet", "bvlc_reference_caffenet.caffemodel", "ImageNet-1K top-1 57.4, top-5 80.4"),
    _bvlc("googlenet", "bvlc_googlenet.caffemodel", "ImageNet-1K top-1 68.7, top-5 88.9"),
    _caffe(
        "vgg16",
        "http://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe/VGG_ILSVRC_16_layers.caffemodel",
        _VGG_LICENCE,
        1000,
        "ILSVRC-2012 val top-5 error 8.1 (dense, smallest side 384)",
        "VGG team's gist 211839e770f7b538e2d8",
    ),
)

WEIGHTS: dict[str, PublishedWeights] = {weights.name: weights for weights in _TABLE}

Opener = Callable[[str], AbstractContextManager[Any]]


def find_weights(name: str) -> PublishedWeights:
    """The entry of that name. Raises UnknownNameError that lists the nearest ones."""
    try:
        return WEIGHTS[name]
    except KeyError:
        raise UnknownNameError(name, "no published weights of that name", suggest(name, WEIGHTS)) from None


def download(weights: PublishedWeights, folder: str | Path, open_url: Opener | None = None) -> Path:
    """Fetch the file into `folder`, unless it lies there with the right digest already, and return its path.

    Only https is followed, redirects too; the digest is checked while the bytes arrive; the file appears whole or not at
    all. `open_url` opens a URL as a context manager with `read(size)`. Raises CheckpointError where no digest is
    published or it does not match, ResourceError when the network or the disk fails; both say what to do by hand.
    """
    target = Path(folder) / weights.file_name
    by_hand = f"download it yourself, save it as {target} and pass that file"
    if weights.sha256 is None:
        raise CheckpointError(weights.url, "has no published sha256, so that a download could not be proved", by_hand)
    if not weights.url.startswith("https://"):
        raise CheckpointError(weights.url, "is not an https address", by_hand)
    if target.is_file() and _digest(_pieces_of_file(target)).startswith(weights.sha256):
        return target
    make_folder(folder)
    with atomic_write(target) as file:
        pieces = _pieces_of_url(weights.url, open_url or _open_https, by_hand)
        digest = _digest(_written(pieces, file))
        if not digest.startswith(weights.sha256):
            what = f"arrived with sha256 {digest[: len(weights.sha256)]}..., published is {weights.sha256}...; nothing was kept"
            raise CheckpointError(weights.url, what, "try again; if it stays so, do not use the file")
    return target


def named_as(path: str | Path) -> PublishedWeights | None:
    """The entry whose file name `path` has, or None; the file itself is not looked at."""
    return next((entry for entry in WEIGHTS.values() if entry.file_name == Path(path).name), None)


def published(path: str | Path) -> PublishedWeights | None:
    """The entry whose file name `path` has, or None.

    Raises CheckpointError when the entry has a digest and the file another one: it is cut, damaged, or not what it is called.
    """
    weights = named_as(path)
    if weights is None or weights.sha256 is None:
        return weights
    digest = _digest(_pieces_of_file(Path(path)))
    if not digest.startswith(weights.sha256):
        what = f"has sha256 {digest[: len(weights.sha256)]}..., {weights.name} of that name has {weights.sha256}..."
        raise CheckpointError(path, what, f"download it again from {weights.url}, or rename it if it is your own")
    return weights


def cache_folder() -> Path:
    """Where downloads are kept: `$PIXELWISE_CACHE`, or `pixelwise` in the user's cache folder."""
    chosen = os.environ.get("PIXELWISE_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pixelwise"


def _digest(pieces: Iterator[bytes]) -> str:
    sha = hashlib.sha256()
    for piece in pieces:
        sha.update(piece)
    return sha.hexdigest()


def _written(pieces: Iterator[bytes], file: IO[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        file.write(piece)
        yield piece


def _pieces_of_file(path: Path) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            while piece := file.read(_CHUNK):
                yield piece
    except OSError as error:
        raise CheckpointError(
            path, f"cannot be read: {error.strerror or error}", "check the path and its rights"
        ) from error


def _pieces_of_url(url: str, open_url: Opener, by_hand: str) -> Iterator[bytes]:
    """The bytes behind a URL; every way in which a network fails becomes one ResourceError with the way out."""
    total = 0
    try:
        with open_url(url) as answer:
            while piece := answer.read(_CHUNK):
                total += len(piece)
                if total > MAX_BYTES:
                    raise CheckpointError(url, f"is longer than {MAX_BYTES} bytes; nothing was kept", by_hand)
                yield piece
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ResourceError(url, f"cannot be downloaded: {reason}", by_hand) from error


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only where it stays on https."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        """The request to follow. Raises URLError for another scheme."""
        if not newurl.startswith("https://"):
            raise urllib.error.URLError(f"redirected to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open_https(url: str) -> Any:
    opener = urllib.request.build_opener(_HttpsOnly)
    return opener.open(url, timeout=_TIMEOUT_S)
