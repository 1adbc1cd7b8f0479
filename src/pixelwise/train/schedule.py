"""The learning rate as a function of the step, and which weights it moves how."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from ..config import OptimizerConfig


def lr_factor(step: int, steps: int, config: OptimizerConfig) -> float:
    """The learning rate of step 0..steps-1, relative to its highest: warm-up, then constant, poly, cosine or step.

    Source of poly: (1 - step / steps) ** power, ParseNet and DeepLab v2, section 4.1.2.
    """
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    if config.schedule == "step":
        return float(config.step_factor ** ((step - config.warmup_steps) // config.step_every))
    progress = (step - config.warmup_steps) / max(steps - config.warmup_steps, 1)
    if config.schedule == "poly":
        return float((1 - progress) ** config.power)
    if config.schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return 1.0


def build_optimizer(model: nn.Module, config: OptimizerConfig, head: Iterable[nn.Module] = ()) -> torch.optim.Optimizer:
    """SGD or AdamW over groups: weights (decayed), biases (Caffe's rule: own factor, no decay), others; those of `head` apart.

    Norm parameters and those that a layer names in `no_weight_decay` (bilinear kernels) are never decayed. Frozen
    parameters are left out.
    Each group remembers its highest rate as `base_lr`: that of the layers in `head` is `head_lr_factor` times the others'.
    """
    in_head = {layer for part in head for layer in part.modules()} if config.head_lr_factor != 1 else set()
    groups: dict[tuple[bool, str], dict[str, Any]] = {
        (is_head, kind): {"params": [], "base_lr": config.lr * factor * of_part, "weight_decay": decay}
        for is_head, of_part in ((False, 1.0), (True, config.head_lr_factor))
        for kind, factor, decay in (
            ("weights", 1.0, config.weight_decay),
            ("biases", config.bias_lr_factor, 0.0),
            ("others", 1.0, 0.0),
        )
    }
    for module in model.modules():
        norm = isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm)
        kept = getattr(module, "no_weight_decay", ())
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                plain = norm or name in kept or (name != "bias" and parameter.ndim < 2)
                kind = "others" if plain else "biases" if name == "bias" else "weights"
                groups[module in in_head, kind]["params"].append(parameter)
    used = [{**group, "lr": group["base_lr"]} for group in groups.values() if group["params"]]
    if config.name == "adamw":
        return torch.optim.AdamW(used, lr=config.lr, betas=(config.momentum, 0.999))
    return torch.optim.SGD(used, lr=config.lr, momentum=config.momentum)


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give each group its highest rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
