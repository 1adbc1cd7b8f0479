"""Steps of a network that is thrown away: the same as in a run, without Lightning, saving and validation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import torch
from lightning.fabric.utilities import move_data_to_device

from ..config import Config
from ..core import Batch
from ..data.dataset import Split
from ..data.inspection import Inspected
from ..inference.device import find_device
from .build import build_model, make_class_weights, make_loader
from .module import TrainingModule
from .multilabel_losses import check_multilabel
from .precision import choose_precision


@contextmanager
def trial(
    config: Config, split: Split, found: Sequence[Inspected] | None
) -> Iterator[tuple[TrainingModule, Iterator[list[Batch]]]]:
    """Give the network of a run before its first step, and the batches of each of its steps.

    found  what `check_dataset` found of the training split, to read no mask again
    """
    device = find_device(config.train.device, "--train.device")
    # As in a run, whose first steps these are.
    torch.manual_seed(config.train.seed)
    check_multilabel(config, split.taxonomy)
    skip_bad = config.train.on_read_error == "skip"
    class_weights = make_class_weights(config.loss, split, skip_bad=skip_bad, found=found)
    model = build_model(config.model, split.taxonomy, split=split)
    module = TrainingModule(
        model,
        config,
        split.taxonomy.ignore_id,
        multilabel=split.taxonomy.multilabel,
        class_weights=class_weights,
        device=device.type,
    ).to(device)
    loader = make_loader(config, split, inspected=found, fill=model.preprocess.fill())

    def steps() -> Iterator[list[Batch]]:
        batches = iter(loader)
        while step := list(islice(batches, config.optimizer.grad_accum_steps)):
            yield [move_data_to_device(batch, device) for batch in step]

    try:
        yield module, steps()
    finally:
        loader.close()


def take_step(module: TrainingModule, batches: Sequence[Batch]) -> float:
    """Take one optimizer step over accumulated batches and return its loss; no step if the loss is not finite."""
    config, device_type = module.config, batches[0].images.device.type
    precision = choose_precision(config.train.precision, device_type)
    labels = batches[0].step_labels or ((batches[0].masks, batches[0].pixel_weights),)
    seeds = [module.batch_seed(number) for number in range(len(batches))]
    total, weights = 0.0, None
    for batch, seed in zip(batches, seeds, strict=True):
        torch.manual_seed(seed)
        module.set_train_mode()
        with torch.autocast(device_type, torch.bfloat16, enabled=precision == "bfloat16"):
            output = module.forward_model(batch.images.contiguous(memory_format=module.memory_format))
        weights = weights or module.loss.mean_label_weights(output, labels, seeds)
        loss = module.loss(output, batch.masks, batch.pixel_weights, seed=seed, mean_weights=weights) / len(batches)
        total += float(loss.detach())
        if not math.isfinite(total):
            return total
        loss.backward()
    if config.optimizer.clip_norm:
        torch.nn.utils.clip_grad_norm_(module.model.parameters(), config.optimizer.clip_norm)
    module.optimizer.step()
    module.optimizer.zero_grad()
    return total
