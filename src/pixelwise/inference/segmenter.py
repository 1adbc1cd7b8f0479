"""A model that is ready to label images: `load()` it, call it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from numpy.typing import NDArray
from PIL import Image

from ..core import Prediction, Taxonomy
from ..crf import Parameters, refine
from ..crf.features import find_parameters
from ..errors import CheckpointError, ConfigError, InputError, shown
from ..images import RGB, PixelFormat, from_pil, read_pixels
from ..models import MODELS
from ..registry import suggest
from ..weights.checkpoint import CARD, CONFIG, WEIGHTS, Checkpoint, find_checkpoint, load_checkpoint, save_checkpoint
from .augmented import Augmentation, argmax_of_views, compute_views, probabilities_of_views
from .class_masks import class_probabilities, masks_of_views, masks_upsampled
from .device import find_device
from .label_map import argmax_upsampled, low_res_logits, probabilities
from .temperature import FILE as TEMPERATURE
from .temperature import read_temperature, scaled, write_temperature

SHIPPED = Path(__file__).parent.parent / "shipped" / "compact_camvid"
"""The checkpoint inside the package, which `load()` gives without a path."""

Precision = Literal["float32", "bfloat16"]


class Segmenter(ModelHubMixin):
    """A network with its taxonomy, called with a path, an array or a PIL image.

    `from_pretrained`, `save_pretrained` and `push_to_hub` read and write checkpoint folders.

    model         the network, in eval mode
    taxonomy      names, colors and file values of its classes
    card          recipe, data, scores, license
    second        name and classes of a second label map, for `with_head`; None for most networks
    pixels        channels, bits and ranges of the images that it takes; 8-bit RGB for most
    crf           parameters of the fully connected CRF that refines the labels, or None
    augmentation  views of the image whose probabilities are averaged; by default the image alone
    thresholds    of several labels per pixel, the probability of each class above which a pixel has its label
    temperature   scales the probabilities that `predict` returns, never the labels; see `temperature.py`
    """

    def __init__(
        self, checkpoint: Checkpoint, name: str, *, device: str = "auto", precision: Precision = "float32"
    ) -> None:
        self.crf: Parameters | None = None
        self.augmentation = Augmentation()
        self.temperature = 1.0
        self.device = find_device(device)
        # channels_last is a fifth faster on a CPU, and the layout that tensor cores work on.
        self.model = checkpoint.model.to(self.device)
        self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.taxonomy: Taxonomy = checkpoint.taxonomy
        self.thresholds = checkpoint.thresholds
        self.card = checkpoint.card
        self.pixels = checkpoint.pixels
        self.second = checkpoint.second
        self.name = name
        self.precision: Precision = precision

    def __call__(self, image: str | Path | NDArray[Any] | Image.Image) -> Prediction:
        """Label one image of any size: a file, an array (H, W, 3) uint8 RGB, or a PIL image.

        A model of other images takes a file, or an array (H, W, C) of the numbers that `pixels` declares.

        Raises ImageError naming the file, InputError for an array of another shape or type and for logits that are not
        finite.
        """
        return self.predict(image)

    @torch.inference_mode()
    def predict(
        self,
        image: str | Path | NDArray[Any] | Image.Image,
        *,
        probs: bool = False,
        source: str | Path | None = None,
        tile: int | None = None,
    ) -> Prediction:
        """Label one image, and keep the probabilities (K, H, W) float32 if `probs`.

        source  the name of the image in error messages; by default its path, or "image"
        tile    label in tiles of that many pixels per side, for images that do not fit in memory as a whole; only
                networks of valid convolutions (`unet`) take one, and their labels stay the same
        Raises the errors of `__call__`.
        """
        name = source or (image if isinstance(image, str | Path) else "image")
        pixels = as_pixels(image, self.pixels, source=name)
        if pixels.shape[2] != self.model.in_channels:
            what = f"has {pixels.shape[2]} channels, but {self.name} expects {self.model.in_channels}"
            raise InputError(name, what, "choose a model for such images")
        # What figures show, and the CRF sees.
        rgb = self.pixels.to_rgb(pixels)
        label, probabilities_of = self._run(pixels, tile=tile, source=name)
        if self.crf is None:
            kept = scaled(probabilities_of(), self.temperature) if probs else None
            return Prediction(label(), self.taxonomy, rgb, kept)
        refined = refine(np.ascontiguousarray(rgb), probabilities_of(), self.crf)
        mask = refined.argmax(0).astype(self.taxonomy.dtype)
        return Prediction(mask, self.taxonomy, rgb, scaled(refined, self.temperature) if probs else None)

    def _run(
        self, pixels: NDArray[Any], *, tile: int | None, source: object
    ) -> tuple[Callable[[], NDArray[Any]], Callable[[], NDArray[np.float32]]]:
        """Run the network on an image, and return the functions that make labels and probabilities of its logits."""
        size = (pixels.shape[0], pixels.shape[1])
        multilabel, thresholds = self.taxonomy.multilabel, self.thresholds
        if self.augmentation.is_plain:
            low_res = low_res_logits(
                self.model, pixels, self.device, precision=self.precision, tile=tile, source=source
            )
            if multilabel:
                return partial(masks_upsampled, low_res, size, thresholds), partial(class_probabilities, low_res, size)
            return partial(argmax_upsampled, low_res, size), partial(probabilities, low_res, size)
        views = compute_views(
            self.model, pixels, self.device, self.augmentation, precision=self.precision, tile=tile, source=source
        )
        if multilabel:
            return partial(masks_of_views, views, thresholds), partial(probabilities_of_views, views, torch.sigmoid)
        return partial(argmax_of_views, views), partial(probabilities_of_views, views)

    def with_augmentation(self, *, flip: bool = False, scales: Sequence[float] = (1.0,)) -> Segmenter:
        """Return a copy, sharing the network, that averages the probabilities of mirrored and scaled copies.

        flip    add the mirror image of each
        scales  factors on the size of the image, 0.1 to 4; `inference/augmented.py` has the definition
        The network runs once per view: twice with `flip`, six times with three scales as well.
        """
        augmented = copy(self)
        augmented.augmentation = Augmentation(flip, tuple(float(scale) for scale in scales))
        return augmented

    def with_crf(self, crf: Parameters | str = "deeplabv2") -> Segmenter:
        """Return a copy, sharing the network, that refines its labels by the fully connected CRF.

        crf  the name of a preset, or parameters
        Raises InputError for a model of images without colors, unless its pixel format says what to show.
        """
        self.pixels.check_crf()
        self.taxonomy.require_one_label("the CRF")
        refining = copy(self)
        refining.crf = find_parameters(crf)
        return refining

    def with_head(self, name: str) -> Segmenter:
        """Return a copy, sharing the weights, that returns the second label map of a network with two heads.

        Raises ConfigError for a name that is not that of the second label map.
        """
        if self.second is None or name != self.second[0]:
            known = "none" if self.second is None else self.second[0]
            what = f"{self.name} has no second label map {shown(name)}; it has {known}"
            raise ConfigError("head", what, "leave it out, or name the second label map")
        other = copy(self)
        other.model, (_, other.taxonomy), other.second = self.model.with_second_head(), self.second, None
        return other

    def with_temperature(self, temperature: float) -> Segmenter:
        """Return a copy, sharing the network, whose probabilities are scaled by another temperature; 1 is none."""
        changed = copy(self)
        changed.temperature = float(temperature)
        return changed

    def _save_pretrained(self, save_directory: Path) -> None:
        save_checkpoint(
            save_directory,
            self.model,
            self.taxonomy,
            self.card,
            pixels=self.pixels,
            thresholds=self.thresholds,
            second=self.second,
        )
        if self.temperature != 1:
            write_temperature(Path(save_directory), self.temperature, self.name)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        device: str = "auto",
        precision: Precision = "float32",
        options: Mapping[str, Any] | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        **others: Any,
    ) -> Segmenter:
        """Load a checkpoint folder or a hub id; the further arguments are those of `load` and of huggingface_hub.

        Raises ConfigError for any other argument, and the errors of `load`.
        """
        if others:
            known = ("device", "precision", "options", "revision", "cache_dir", "force_download", "local_files_only")
            name = next(iter(others))
            if name in ("num_classes", "classes", "num_labels", "in_channels"):
                fix = "train a network with other classes from these weights: `pixelwise train --model.init_from`"
            else:
                fix = suggest(name, (*known, "token"))
            raise ConfigError("Segmenter.from_pretrained", f"unknown argument {shown(name)}", fix)
        # Not by the mixin's own method, which first parses config.json without any limit.
        return cls._from_pretrained(
            model_id=str(pretrained_model_name_or_path),
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            device=device,
            precision=precision,
            options=options,
        )

    @classmethod
    def _from_pretrained(  # type: ignore[override]
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        device: str = "auto",
        precision: Precision = "float32",
        options: Mapping[str, Any] | None = None,
    ) -> Segmenter:
        folder = Path(model_id)
        if not folder.is_dir():
            folder = Path(
                snapshot_download(
                    model_id,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                    allow_patterns=[CONFIG, WEIGHTS, CARD, TEMPERATURE],
                )
            )
        segmenter = cls(load_checkpoint(folder, options), model_id, device=device, precision=precision)
        return segmenter.with_temperature(read_temperature(folder)[0])


def load(
    path: str | Path | None = None,
    *,
    device: str = "auto",
    precision: Precision = "float32",
    options: Mapping[str, Any] | None = None,
) -> Segmenter:
    """Load a segmenter from a run (its best checkpoint), a checkpoint folder or a hub id; by default the shipped model.

    device     auto, cpu, cuda or cuda:N
    precision  float32, or bfloat16 on hardware that supports it
    options    replace options that the network was trained with, if its weights fit: {"output_stride": 8}
    Raises CheckpointError naming what is missing or damaged, ResourceError for a device that is not available,
    ConfigError for an option that the network does not have.
    """
    if path is None:
        checkpoint, name = load_checkpoint(SHIPPED, options), "the model that ships with pixelwise"
        segmenter = Segmenter(checkpoint, name, device=device, precision=precision)
        return segmenter.with_temperature(read_temperature(SHIPPED)[0])
    name, folder = str(path), Path(path)
    if folder.exists() or name in MODELS:
        # `find_checkpoint` explains that a network's name is not a checkpoint.
        checkpoint = load_checkpoint(find_checkpoint(folder), options)
        segmenter = Segmenter(checkpoint, name, device=device, precision=precision)
        return segmenter.with_temperature(read_temperature(folder)[0])
    fix = "name a run or checkpoint folder, or a hub id like owner/model; without --model the shipped model is used"
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(name, "no such folder", fix)
    try:
        return Segmenter.from_pretrained(name, device=device, precision=precision, options=options)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        what = f"no such local folder, and not found on the Hugging Face Hub: {reason}"
        raise CheckpointError(name, what, fix) from error


def as_pixels(image: object, pixels: PixelFormat = RGB, *, source: object = "image") -> NDArray[Any]:
    """Return (H, W, 3) uint8 RGB of a file or a PIL image, the same pixels from both; an array (H, W, C) as it is.

    pixels  another format of the image, whose numbers are then returned and checked
    source  name of an array in errors
    Raises ImageError for a file or image that cannot be read, InputError for an array of another shape or type.
    """
    if isinstance(image, str | Path):
        return read_pixels(image, pixels)
    if not pixels.is_rgb:
        if not isinstance(image, np.ndarray):
            what = f"expected a path or an array of {pixels.in_words()}, got {type(image).__name__}"
            raise InputError(source, what, "give the numbers of the file as an array")
        pixels.check(image, source)
        return image
    if isinstance(image, Image.Image):
        return from_pil(image)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or 0 in image.shape:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        what = f"expected a path, a PIL image, or a uint8 array (height, width, 3) in RGB order, got {got}"
        raise InputError("image", what, "convert it first")
    return image
