"""A model that is ready to label images: `load()` it, call it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Self

import torch
from numpy.typing import NDArray

from ..errors import CheckpointError, ConfigError, shown
from ..models import MODELS
from ..models.base import SegmentationModel
from ..registry import suggest
from ..weights.checkpoint import CARD, CONFIG, WEIGHTS, Checkpoint, find_checkpoint, load_checkpoint, save_checkpoint
from .augmented import Augmentation, argmax_of_views, compute_views, probabilities_of_views
from .base import BaseSegmenter, Computed
from .class_masks import class_probabilities, masks_of_views, masks_upsampled
from .device import find_device
from .label_map import argmax_upsampled, low_res_logits, probabilities
from .runtimes import is_exported
from .stored_config import SHIPPED
from .temperature import FILE as TEMPERATURE
from .temperature import read_temperature, write_temperature
from .tiles import check_tile

Precision = Literal["float32", "bfloat16"]


class Segmenter(BaseSegmenter):
    """A network of this package in torch, with its taxonomy.

    `from_pretrained`, `save_pretrained` and `push_to_hub` read and write checkpoint folders, by the names and with the
    arguments of huggingface_hub's `ModelHubMixin`. It is no base class: that would import an HTTP client at each start.

    model         the network, in eval mode
    card          recipe, data, scores, license
    second        name and classes of a second label map, for `with_head`; None for most networks
    digest        sha256 of the file that the weights were read from, "" for other weights
    augmentation  views of the image whose probabilities are averaged; by default the image alone
    """

    def __init__(
        self, checkpoint: Checkpoint, name: str, *, device: str = "auto", precision: Precision = "float32"
    ) -> None:
        self.augmentation = Augmentation()
        self.device = find_device(device)
        # channels_last is a fifth faster on a CPU, and the layout that tensor cores work on.
        self.model = checkpoint.model.to(self.device)
        self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network = self._for_inference()
        self.in_channels = checkpoint.model.in_channels
        self.taxonomy = checkpoint.taxonomy
        self.thresholds = checkpoint.thresholds
        self.card = checkpoint.card
        self.pixels = checkpoint.pixels
        self.second = checkpoint.second
        self.digest = checkpoint.digest
        self.name = name
        self.network = checkpoint.model.spec.name
        self.precision: Precision = precision

    def _for_inference(self) -> SegmentationModel:
        # What is faster on a GPU was not measured.
        return self.model.for_inference() if self.device.type == "cpu" else self.model

    @torch.inference_mode()
    def compute(self, pixels: NDArray[Any], *, tile: int | None, source: object) -> Computed:
        """Run the network on an image (H, W, C)."""
        size = (pixels.shape[0], pixels.shape[1])
        multilabel, thresholds = self.taxonomy.multilabel, self.thresholds
        if self.augmentation.is_plain:
            low_res = low_res_logits(
                self._network, pixels, self.device, precision=self.precision, tile=tile, source=source
            )
            if multilabel:
                return Computed(
                    partial(masks_upsampled, low_res, size, thresholds), partial(class_probabilities, low_res, size)
                )
            return Computed(partial(argmax_upsampled, low_res, size), partial(probabilities, low_res, size))
        views = compute_views(
            self._network, pixels, self.device, self.augmentation, precision=self.precision, tile=tile, source=source
        )
        if multilabel:
            return Computed(
                partial(masks_of_views, views, thresholds), partial(probabilities_of_views, views, torch.sigmoid)
            )
        return Computed(partial(argmax_of_views, views), partial(probabilities_of_views, views))

    def check_tile(self, tile: int) -> None:
        """Raise ConfigError for a size of tiles that the network cannot label as it labels the whole image."""
        check_tile(self.model, tile)

    def with_augmentation(self, *, flip: bool = False, scales: Sequence[float] = (1.0,)) -> Self:
        """Return a copy, sharing the network, that averages the probabilities of mirrored and scaled copies.

        flip    add the mirror image of each
        scales  factors on the size of the image, 0.1 to 4; `inference/augmented.py` has the definition
        The network runs once per view: twice with `flip`, six times with three scales as well.
        """
        augmented = copy(self)
        augmented.augmentation = Augmentation(flip, tuple(float(scale) for scale in scales))
        return augmented

    def with_head(self, name: str) -> Self:
        """Return a copy, sharing the weights, that returns the second label map of a network with two heads.

        Raises ConfigError for a name that is not that of the second label map.
        """
        if self.second is None or name != self.second[0]:
            known = "none" if self.second is None else self.second[0]
            what = f"{self.name} has no second label map {shown(name)}; it has {known}"
            raise ConfigError("head", what, "leave it out, or name the second label map")
        other = copy(self)
        other.model, (_, other.taxonomy), other.second = self.model.with_second_head(), self.second, None
        other._network = other._for_inference()
        return other

    def save_pretrained(
        self, save_directory: str | Path, *, repo_id: str | None = None, push_to_hub: bool = False, **options: Any
    ) -> str | None:
        """Write a checkpoint folder; with `push_to_hub`, also upload it and return the address of the commit.

        repo_id  the repository to upload to; by default the name of the folder
        options  further arguments of `push_to_hub`
        Raises the errors of `save_checkpoint`.
        """
        folder = save_checkpoint(
            save_directory,
            self.model,
            self.taxonomy,
            self.card,
            pixels=self.pixels,
            thresholds=self.thresholds,
            second=self.second,
        )
        if self.temperature != 1:
            write_temperature(folder, self.temperature, self.name)
        return self.push_to_hub(repo_id or folder.name, **options) if push_to_hub else None

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Push a pixelwise checkpoint",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        **options: Any,
    ) -> str:
        """Upload the checkpoint to a repository of the Hugging Face Hub; return the address of the commit.

        private  whether a new repository is private; by default as its owner's settings say
        branch   the default branch, if left out
        options  further arguments of `huggingface_hub.HfApi.upload_folder`, such as `create_pr`
        Raises the errors of huggingface_hub.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            commit: str = api.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message=commit_message, revision=branch, **options
            )
        return commit

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
        name, folder = str(pretrained_model_name_or_path), Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            from huggingface_hub import snapshot_download

            downloaded = snapshot_download(
                name,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
                allow_patterns=[CONFIG, WEIGHTS, CARD, TEMPERATURE],
            )
            folder = Path(downloaded)
        segmenter = cls(load_checkpoint(folder, options), name, device=device, precision=precision)
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
    if is_exported(path):
        what = "is an exported network, which has no layers to look into"
        raise CheckpointError(name, what, "name the run it was exported from; pixelwise.load_exported() labels with it")
    if folder.exists() or name in MODELS:
        # `find_checkpoint` explains that a network's name is not a checkpoint.
        checkpoint = load_checkpoint(find_checkpoint(folder), options)
        segmenter = Segmenter(checkpoint, name, device=device, precision=precision)
        return segmenter.with_temperature(read_temperature(folder)[0])
    fix = "name a run or checkpoint folder, or a hub id like owner/model; without --model the shipped model is used"
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(name, "no such folder", fix)
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Segmenter.from_pretrained(name, device=device, precision=precision, options=options)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        what = f"no such local folder, and not found on the Hugging Face Hub: {reason}"
        raise CheckpointError(name, what, fix) from error
