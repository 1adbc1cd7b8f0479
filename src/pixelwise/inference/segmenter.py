"""A model that is ready to label pictures: `load()` it, call it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from numpy.typing import NDArray
from PIL.Image import Image

from ..checkpoint import CARD, CONFIG, WEIGHTS, Checkpoint, is_checkpoint, load_checkpoint, save_checkpoint
from ..core import Prediction, Taxonomy
from ..errors import CheckpointError, EnvironmentFault, InputError
from ..images import read_image
from .dense import argmax_upsampled, coarse_scores, probabilities

SHIPPED = Path(__file__).parent.parent / "shipped" / "compact_camvid"
"""The checkpoint inside the package: what `load()` without a path gives."""

Precision = Literal["float32", "bfloat16"]


class Segmenter(ModelHubMixin):
    """A network with its taxonomy. Call it with a path, an array or a PIL picture; `from_pretrained`,
    `save_pretrained` and `push_to_hub` read and write checkpoint folders.

    model      the nn.Module, in eval mode
    taxonomy   what its classes mean
    card       recipe, data, scores, licence
    """

    def __init__(self, checkpoint: Checkpoint, name: str, device: str = "auto", precision: Precision = "float32") -> None:
        self.device = _device(device)
        self.model = checkpoint.model.to(self.device, memory_format=torch.channels_last)
        self.taxonomy: Taxonomy = checkpoint.taxonomy
        self.card = checkpoint.card
        self.name = name
        self.precision: Precision = precision

    def __call__(self, image: str | Path | NDArray[np.uint8] | Image) -> Prediction:
        """Label one picture of any size: a file, an array (H, W, 3) uint8 RGB, or a PIL picture.

        Raises ImageError naming the file, InputError for an array of another shape or type.
        """
        return self.predict(image)

    @torch.inference_mode()
    def predict(self, image: str | Path | NDArray[np.uint8] | Image, probs: bool = False) -> Prediction:
        """As calling, with `probs` (K, H, W) float32 on request."""
        pixels = as_pixels(image)
        coarse = coarse_scores(self.model, pixels, self.device, self.precision)
        return Prediction(argmax_upsampled(coarse), self.taxonomy, pixels, probabilities(coarse) if probs else None)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_checkpoint(save_directory, self.model, self.taxonomy, self.card)

    @classmethod
    def _from_pretrained(
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
        return cls(load_checkpoint(folder), model_id, device, precision)


def load(path: str | Path | None = None, *, device: str = "auto", precision: Precision = "float32") -> Segmenter:
    """A segmenter from a run (its best checkpoint), a checkpoint folder, a hub id, or, left out, the shipped model.

    device     auto, cpu or cuda
    precision  float32, or bfloat16 for chips that compute it
    Raises CheckpointError naming what is missing or damaged, EnvironmentFault for a device that is not there.
    """
    if path is None:
        return Segmenter(load_checkpoint(SHIPPED), "the model that ships with pixelwise", device, precision)
    folder = Path(path)
    if folder.exists():
        return Segmenter(load_checkpoint(_checkpoint_in(folder)), str(path), device, precision)
    return _from_hub(str(path), device, precision)


def _checkpoint_in(folder: Path) -> Path:
    """A run's best checkpoint, else its last one, else the folder itself."""
    if not folder.is_dir():
        raise CheckpointError(folder, "is a file, not a checkpoint folder", "name the folder; `pixelwise import` reads foreign weight files")
    for name in ("best", "last"):
        if is_checkpoint(folder / "checkpoints" / name):
            return folder / "checkpoints" / name
    return folder


def _from_hub(name: str, device: str, precision: Precision) -> Segmenter:
    fix = "name a run or checkpoint folder, or a hub id like owner/model; without --model the shipped one is taken"
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(name, "no such folder", fix)
    try:
        return Segmenter.from_pretrained(name, device=device, precision=precision)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(name, f"is neither a folder here nor to be had from the hub: {str(error).splitlines()[0]}", fix) from error


def as_pixels(image: str | Path | NDArray[np.uint8] | Image) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a file, an array or a PIL picture."""
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image):
        return np.asarray(image.convert("RGB"))
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or 0 in image.shape:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError("image", f"got {got}", "hand over a path, a PIL picture, or a uint8 array (height, width, 3) in RGB order")
    return image


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise EnvironmentFault(f"device {name}", "is not there; devices: cpu", "use --device auto")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name}", "is not known", "choose auto, cpu or cuda") from error
