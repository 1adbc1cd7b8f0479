"""The network and the class weights that a configuration asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import AugmentConfig, Config, LossConfig, ModelConfig
from ..core import LowResLogits, Output, Taxonomy
from ..data.counts import count_pixels
from ..data.dataset import Split
from ..data.instances import InstanceCrops
from ..data.transforms import Augment, Transform
from ..errors import CheckpointError, ConfigError
from ..models import MODELS, create_model
from ..models.base import SegmentationModel
from ..weights.checkpoint import find_checkpoint, load_checkpoint
from .losses import class_weights_from_counts


def build_model(settings: ModelConfig, taxonomy: Taxonomy, resumed: Path | None = None) -> SegmentationModel:
    """The network with fresh weights or, with `init_from`, those of a run or checkpoint; frozen as `train_only` says.

    PublishedWeights mean nothing without the pixels that they were learned on, so the normalisation is the checkpoint's unless the
    options name one. `resumed` is the checkpoint of a run that goes on: it remembers them, and where the run once started
    from need not be there any more.
    """
    start = (resumed or settings.init_from) if settings.init_from else None
    source = load_checkpoint(find_checkpoint(start)).model if start else None
    options = dict(settings.options)
    if source is not None and (preprocessing := _preprocessing_of(source)) is not None:
        options = {"preprocessing": preprocessing, **options}
    model = create_model(settings.name, taxonomy.num_classes, **options)
    if model.in_channels != 3 or model.num_heads != 1:
        what = (
            f"{settings.name} takes {model.in_channels} channels"
            if model.in_channels != 3
            else f"{settings.name} has two heads"
        )
        raise ConfigError(
            "--model.name", f"{what}; the command reads RGB images with one mask each", "train it from Python"
        )
    if source is not None and resumed is None:
        print(start_from(model, source, settings.init_from))
    if settings.train_only == "classifier":
        if not model.classifier_modules():
            raise ConfigError(
                "--model.train_only", f"{settings.name} does not say which layers are its classifier", "use all"
            )
        model.requires_grad_(False)
        for layer in model.classifier_modules():
            layer.requires_grad_(True)
    laid_out: SegmentationModel = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return laid_out


def forward_of(model: SegmentationModel, config: Config) -> Callable[[Tensor], Output | LowResLogits]:
    """What a training step calls: to the logits, to the scores, or to those of crops that bring their own surroundings.

    Raises ConfigError for surroundings that the network does not take.
    """
    if not config.augment.context_px:
        return model.forward_low_res if config.loss.resolution == "logits" else model.forward
    if model.context_px != config.augment.context_px:
        what = f"got {config.augment.context_px}, {config.model.name} takes {model.context_px}"
        raise ConfigError("--augment.context_px", what, "give that number, or leave the option out")
    context = config.augment.context_px
    return lambda images: model.forward_with_context(images).upsample_to(
        (images.shape[-2] - 2 * context, images.shape[-1] - 2 * context)
    )


def _preprocessing_of(model: SegmentationModel) -> Any:
    """The option that a network was built with, or its builder's default."""
    spec = model.spec
    return spec.options.get("preprocessing", MODELS[spec.name].options["preprocessing"].default)


def training_transform(settings: AugmentConfig, ignore_id: int) -> Transform:
    """The augmentation that a configuration asks for."""
    augment = Augment(settings, ignore_id)
    return augment if settings.instance_crops == "none" else InstanceCrops(augment, settings.instance_crops, ignore_id)


def start_from(model: SegmentationModel, source: SegmentationModel, name: object) -> str:
    """Copy each tensor whose name and shape the two networks share; the others keep their fresh values.

    So FCN-16s starts from FCN-32s with its new score layers at zero. Returns a line that counts and lists the fresh ones,
    and what of the source has no place. Raises CheckpointError when nothing fits.
    """
    own, given = model.state_dict(), source.state_dict()
    shared = {key: given[key] for key in own if key in given and own[key].shape == given[key].shape}
    if not shared:
        raise CheckpointError(name, "shares no tensor with the network", "start from a checkpoint of the same backbone")
    model.load_state_dict({**own, **shared})
    fresh, left = [key for key in own if key not in shared], [key for key in given if key not in own]
    line = f"started from {name}: {len(shared)} tensors taken over, {len(fresh)} fresh{_listed(fresh)}"
    return line + (f"; {len(left)} of the checkpoint have no place{_listed(left)}" if left else "")


def _listed(keys: list[str]) -> str:
    return f": {', '.join(keys[:8])}{', ...' if len(keys) > 8 else ''}" if keys else ""


def class_weights(settings: LossConfig, split: Split, *, skip_bad: bool = False) -> Tensor | None:
    """PublishedWeights (K,) float32 that the loss multiplies each class with, or None; `skip_bad` as in `count_pixels`."""
    scheme, count = settings.class_weights, split.taxonomy.num_classes
    if scheme == "none":
        return None
    if isinstance(scheme, list):
        if len(scheme) != count:
            raise ConfigError(
                "--loss.class_weights", f"got {scheme}", f"give {count} numbers of 0 or more, one a class"
            )
        return torch.tensor(scheme, dtype=torch.float32)
    return class_weights_from_counts(torch.from_numpy(count_pixels(split, skip_bad=skip_bad)), scheme)
