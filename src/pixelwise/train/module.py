"""One optimiser step, as Lightning's Trainer calls it: forward, loss over all ranks, guarded numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import get_total_norm

from ..config import Config
from ..core import Batch, LowResLogits, Output
from ..data.border_weights import border_weights, label_cells
from ..errors import InputError, ResourceError
from ..models.base import SegmentationModel
from ..nn.upsampling import low_res_labels
from .build import forward_of
from .ema import ModelEMA
from .losses import bootstrapped_cross_entropy, lovasz_softmax, pixel_cross_entropy, sample_patches
from .ranks import copy_from_first, mean_over_ranks
from .schedule import build_optimizer, lr_factor, set_lr
from .state import Progress, optimizer_tensors

LOSS_SAMPLING, LOVASZ_SAMPLING = 0x5EED_CE11, 0x5EED_1054
"""Turn a batch's seed into that of its loss sampling and of the pixels of its Lovász term."""

MIX = 1_000_003
"""A prime that spreads (seed, batch, rank) over the generator's seeds."""


class TrainingModule(lightning.LightningModule):
    """The network with its loss and optimiser; `step` counts the optimiser steps of the whole run, resumed or not.

    after_step is called with this module after each optimiser step: validation, logging, saving hang there.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        model: SegmentationModel,
        config: Config,
        ignore_id: int,
        class_weights: Tensor | None,
        after_step: Callable[[TrainingModule], None],
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.ignore_id = ignore_id
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.after_step = after_step
        self.average = ModelEMA(model, config.train.ema) if config.train.ema else None
        self.optimizer = build_optimizer(model, config.optimizer, model.new_modules())
        # A function: the network itself would be registered a second time.
        run = forward_of(model, config)
        self.run_model = torch.compile(run) if config.train.compile else run
        self.progress = Progress()
        self.step = 0
        self.num_bad = 0
        self.loss_of_step = 0.0
        self.keys_of_step: list[str] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser that was built, and maybe restored, before."""
        return self.optimizer

    def on_train_batch_start(self, batch: tuple[Batch, int], batch_idx: int) -> None:
        """Set what this batch depends on from its number alone: the learning rate and the chance in dropout."""
        accumulate = self.config.optimizer.grad_accum_steps
        if batch_idx % accumulate == 0:
            self.loss_of_step = 0.0
            self.keys_of_step = []
        set_lr(self.optimizer, lr_factor(self.step, self.config.train.steps, self.config.optimizer))
        torch.manual_seed(self._batch_seed(batch_idx))
        self.model.train()
        for module in self.model.modules():
            # A frozen layer's statistics are as frozen as its weights.
            if isinstance(module, _BatchNorm) and (self.config.train.freeze_norm or not module.weight.requires_grad):
                module.eval()

    def _batch_seed(self, batch_idx: int) -> int:
        number = self.step * self.config.optimizer.grad_accum_steps + batch_idx % self.config.optimizer.grad_accum_steps
        # Seeds are numbers of 64 bits.
        return ((self.config.train.seed * MIX + number) * MIX + self.global_rank) % 2**63

    def training_step(self, batch: tuple[Batch, int], batch_idx: int) -> Tensor:
        """The loss of one batch. Raises InputError naming step and images when it is not finite."""
        (images, masks, keys), num_bad = batch
        self.num_bad += num_bad
        self.keys_of_step += keys
        context = self.config.augment.context_px
        masks = masks[:, context : masks.shape[1] - context, context : masks.shape[2] - context]
        extra = self._border_map(masks)
        masks = self._sampled(masks, batch_idx)
        loss = self._loss(self._forward(images), masks, batch_idx, extra)
        # All ranks look at the same number, so that none waits for one that has stopped.
        value = float(mean_over_ranks(loss.detach()))
        if not math.isfinite(value):
            raise self._not_finite("loss")
        self.loss_of_step += value / self.config.optimizer.grad_accum_steps
        self.log_live("loss", value)
        return loss

    def _forward(self, images: Tensor) -> Output | LowResLogits:
        try:
            output = self.run_model(images.contiguous(memory_format=torch.channels_last))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            what = f"batch normalisation sees a single value a channel in a batch of {len(images)}"
            fix = "a larger --data.batch_size or --augment.crop, or --train.freeze_norm true"
            raise InputError("training", what, fix) from error
        except torch._dynamo.exc.BackendCompilerFailed as error:
            what = f"torch.compile failed: {str(error).splitlines()[0]}"
            raise ResourceError("--train.compile", what, "install a C++ compiler, or leave the option out") from error
        return output

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Raise InputError naming step and images when the gradient is not finite: no such step is taken."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not bool(get_total_norm(gradients).isfinite()):
            raise self._not_finite("gradient")

    def _not_finite(self, what: str) -> InputError:
        images = ", ".join(self.keys_of_step[:8])
        what = f"the {what} of step {self.step + 1} is not finite, images {images}"
        return InputError(
            "training", what, "lower --optimizer.lr, or set --optimizer.clip_norm 1; what was saved before is whole"
        )

    def _sampled(self, masks: Tensor, batch_idx: int) -> Tensor:
        probability = self.config.loss.patch_keep_prob
        if probability == 1:
            return masks
        return sample_patches(
            masks, self.ignore_id, probability, self.model.logits_stride, self._loss_generator(batch_idx, LOSS_SAMPLING)
        )

    def _border_map(self, masks: Tensor) -> Tensor | None:
        """What each pixel weighs more for lying between two cells, (B, H, W), or None where that is not asked for."""
        config = self.config.loss
        if not config.border_weight:
            return None
        cells = [label_cells(mask, self.ignore_id) for mask in masks.cpu().numpy()]
        maps = [border_weights(numbered, config.border_weight, config.border_sigma) for numbered in cells]
        return torch.from_numpy(np.stack(maps)).to(masks.device)

    def _loss_generator(self, batch_idx: int, stream: int) -> torch.Generator:
        """Chance that belongs to the loss of this batch alone: dropout draws from the batch's own seed."""
        return torch.Generator().manual_seed(self._batch_seed(batch_idx) ^ stream)

    def _loss(
        self, output: Output | LowResLogits, masks: Tensor, batch_idx: int, extra: Tensor | None = None
    ) -> Tensor:
        config = self.config.loss
        logits, labels, auxiliary = output.logits, masks, output.aux
        if isinstance(output, LowResLogits):
            labels = low_res_labels(output, masks, self.ignore_id)
            auxiliary = output.upsample_to((masks.shape[-2], masks.shape[-1])).aux
        loss = self._cross_entropy(logits, labels, extra)
        for aux in auxiliary:
            loss = loss + config.aux_weight * self._cross_entropy(aux, masks, extra)
        if config.lovasz:
            generator = self._loss_generator(batch_idx, LOVASZ_SAMPLING)
            term = lovasz_softmax(logits, labels, self.ignore_id, config.lovasz_pixels, generator)
            loss = loss + config.lovasz * term
        return loss

    def _cross_entropy(self, logits: Tensor, masks: Tensor, extra: Tensor | None = None) -> Tensor:
        if self.config.loss.bootstrap_top_k:
            return bootstrapped_cross_entropy(
                logits, masks, self.ignore_id, self.config.loss.bootstrap_top_k, self.class_weights
            )
        total, weight = pixel_cross_entropy(logits, masks, self.ignore_id, self.class_weights, extra)
        if self.config.loss.reduction == "sum":
            return total / len(masks)
        # Ranks average their gradients; scaled so, the average is the mean over the pixels of all ranks.
        return total / mean_over_ranks(weight).clamp_min(1e-12)

    @contextmanager
    def ema_weights(self) -> Iterator[None]:
        """Lend the model the weights that are validated and shipped: the moving average where there is one."""
        with nullcontext() if self.average is None else self.average.applied_to(self.model):
            copy_from_first(self.model)
            yield

    def state_tensors(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in self.average.state.items()}
        return tensors | optimizer_tensors(self.optimizer)

    def log_live(self, name: str, value: float) -> None:
        """Show a number at the end of the progress bar."""
        self.log(name, value, prog_bar=True, logger=False, rank_zero_only=True)

    def on_train_batch_end(self, outputs: object, batch: tuple[Batch, int], batch_idx: int) -> None:
        """Count a finished optimiser step and call what hangs on it."""
        if (batch_idx + 1) % self.config.optimizer.grad_accum_steps:
            return
        self.step += 1
        if self.average is not None:
            self.average.update(self.model, self.step)
        self.after_step(self)
