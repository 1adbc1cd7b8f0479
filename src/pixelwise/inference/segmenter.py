"""A model that is ready to label images: `load()` it, call it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..core import Prediction, Taxonomy
from ..crf import Parameters, refine
from ..crf.features import find_parameters
from ..errors import CheckpointError, ImageError, InputError
from ..images import read_image
from ..images.decode import DECODER_FAULTS
from ..weights.checkpoint import CARD, CONFIG, WEIGHTS, Checkpoint, find_checkpoint, load_checkpoint, save_checkpoint
from .device import find_device
from .label_map import argmax_upsampled, low_res_logits, probabilities

SHIPPED = Path(__file__).parent.parent / "shipped" / "compact_camvid"
"""The checkpoint inside the package: what `load()` without a path gives."""

Precision = Literal["float32", "bfloat16"]


class Segmenter(ModelHubMixin):
    """A network with its taxonomy. Call it with a path, an array or a PIL image; `from_pretrained`,
    `save_pretrained` and `push_to_hub` read and write checkpoint folders.

    model      the nn.Module, in eval mode
    taxonomy   what its classes mean
    card       recipe, data, scores, licence
    crf        parameters of the fully connected CRF behind the network, or None
    """

    def __init__(
        self, checkpoint: Checkpoint, name: str, device: str = "auto", precision: Precision = "float32"
    ) -> None:
        self.crf: Parameters | None = None
        self.device = find_device(device)
        self.model = checkpoint.model.to(self.device)
        # A fifth faster on a CPU, and what tensor cores want.
        self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.taxonomy: Taxonomy = checkpoint.taxonomy
        self.card = checkpoint.card
        self.name = name
        self.precision: Precision = precision

    def __call__(self, image: str | Path | NDArray[np.uint8] | Image.Image) -> Prediction:
        """Label one image of any size: a file, an array (H, W, 3) uint8 RGB, or a PIL image.

        Raises ImageError naming the file, InputError for an array of another shape or type.
        """
        return self.predict(image)

    @torch.inference_mode()
    def predict(self, image: str | Path | NDArray[np.uint8] | Image.Image, probs: bool = False) -> Prediction:
        """As calling, with `probs` (K, H, W) float32 on request."""
        pixels = as_pixels(image)
        if pixels.shape[2] != self.model.in_channels:
            what = f"has {pixels.shape[2]} channels, {self.name} takes {self.model.in_channels}"
            raise InputError(image if isinstance(image, str | Path) else "image", what, "choose a model of such images")
        low_res = low_res_logits(self.model, pixels, self.device, self.precision)
        size = (pixels.shape[0], pixels.shape[1])
        shown = pixels[..., :3] if pixels.shape[2] > 3 else pixels
        if self.crf is not None:
            refined = refine(np.ascontiguousarray(shown), probabilities(low_res, size), self.crf)
            mask = refined.argmax(0).astype(self.taxonomy.dtype)
            return Prediction(mask, self.taxonomy, shown, refined if probs else None)
        return Prediction(
            argmax_upsampled(low_res, size), self.taxonomy, shown, probabilities(low_res, size) if probs else None
        )

    def with_crf(self, crf: Parameters | str = "deeplabv2") -> Segmenter:
        """A twin, of the same network, that refines its labels by the fully connected CRF: a preset's name, or parameters."""
        twin = copy(self)
        twin.crf = find_parameters(crf)
        return twin

    def _save_pretrained(self, save_directory: Path) -> None:
        save_checkpoint(save_directory, self.model, self.taxonomy, self.card)

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
                    allow_patterns=[CONFIG, WEIGHTS, CARD],
                )
            )
        return cls(load_checkpoint(folder, options), model_id, device, precision)


def load(
    path: str | Path | None = None,
    *,
    device: str = "auto",
    precision: Precision = "float32",
    options: Mapping[str, Any] | None = None,
) -> Segmenter:
    """A segmenter from a run (its best checkpoint), a checkpoint folder, a hub id, or, left out, the shipped model.

    device     auto, cpu or cuda
    precision  float32, or bfloat16 for chips that compute it
    options    of the network in place of those that it was trained with, where its weights fit: {"output_stride": 8}
    Raises CheckpointError naming what is missing or damaged, ResourceError for a device that is not there, ConfigError
    for an option that the network does not have.
    """
    if path is None:
        return Segmenter(load_checkpoint(SHIPPED, options), "the model that ships with pixelwise", device, precision)
    folder = Path(path)
    if folder.exists():
        return Segmenter(load_checkpoint(find_checkpoint(folder), options), str(path), device, precision)
    return _from_hub(str(path), device, precision, options)


def _from_hub(name: str, device: str, precision: Precision, options: Mapping[str, Any] | None) -> Segmenter:
    fix = "name a run or checkpoint folder, or a hub id like owner/model; without --model the shipped one is taken"
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(name, "no such folder", fix)
    try:
        return Segmenter.from_pretrained(name, device=device, precision=precision, options=options)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(name, f"is neither a folder here nor to be had from the hub: {reason}", fix) from error


def as_pixels(image: object) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a file or a PIL image, with the same pixels from both; an array (H, W, C) as it is.

    Raises ImageError for a file or image that cannot be read, InputError for an array of another shape or type.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        return _pixels_of(image)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or 0 in image.shape:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(
            "image", f"got {got}", "hand over a path, a PIL image, or a uint8 array (height, width, 3) in RGB order"
        )
    return image


def _pixels_of(image: Image.Image) -> NDArray[np.uint8]:
    """A PIL image as `read_image` reads its file: turned upright, 16 bits scaled to 8."""
    name = getattr(image, "filename", "") or "image"
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):
            deep = np.asarray(upright).astype(np.uint32)
            return np.repeat(((deep * 255 + 32767) // 65535).astype(np.uint8)[..., None], 3, axis=2)
        if upright.mode in ("I", "F"):
            what = f"has pixels of mode {upright.mode}, and which range they fill is unknown"
            raise ImageError(name, what, "hand over its path, or a uint8 array (height, width, 3)")
        return np.asarray(upright.convert("RGB"))
    except DECODER_FAULTS as error:
        raise ImageError(
            name, f"cannot be read: {error}", "copy or download it again, or export it as 8-bit RGB"
        ) from error
