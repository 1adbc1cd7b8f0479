"""The learning rate as a function of the step, and the optimizer with its parameter groups."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from ..config import OptimizerConfig
from ..nn.upsampling import Upscore


def lr_factor(step: int, steps: int, config: OptimizerConfig) -> float:
    """Return the learning rate of step 0..steps-1, relative to its highest: a linear warm-up, then the schedule.

    Source of poly, (1 - step / steps) ** power: ParseNet (https://arxiv.org/abs/1506.04579); DeepLab v2, section 4.1.2.
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


def build_optimizer(
    model: nn.Module,
    config: OptimizerConfig,
    *,
    head_modules: Iterable[nn.Module] = (),
    backbones: Iterable[nn.Module] = (),
) -> torch.optim.Optimizer:
    """Build SGD or AdamW over the parameters that are not frozen, with a learning rate and a weight decay per group.

    weights  decayed
    biases   `bias_lr_factor` times the learning rate, never decayed (FCN's net files: lr_mult 2, decay_mult 0)
    others   parameters of norms, and bilinear kernels (`Upscore`), never decayed; with `decay_depthwise: false` also
             depthwise kernels (the rule of TensorFlow's Xception, MobileNet and DeepLab)

    Each group is split by part of the network: layers of `head_modules` learn `head_lr_factor` times as fast, those of
    `backbones` `backbone_lr_factor` times; a part whose factor is 1 joins the rest. A group remembers its highest
    learning rate as `base_lr`.
    """
    # The order of the groups numbers the tensors of a saved state.
    factors = {"rest": 1.0, "head": config.head_lr_factor, "backbone": config.backbone_lr_factor}
    part_of = {
        layer: part
        for part, modules in (("head", head_modules), ("backbone", backbones))
        for module in modules
        for layer in module.modules()
        if factors[part] != 1
    }
    groups: dict[tuple[str, str], dict[str, Any]] = {
        (part, kind): {"params": [], "base_lr": config.lr * kind_factor * factor, "weight_decay": decay}
        for part, factor in factors.items()
        for kind, kind_factor, decay in (
            ("weights", 1.0, config.weight_decay),
            ("biases", config.bias_lr_factor, 0.0),
            ("others", 1.0, 0.0),
        )
    }
    for module in model.modules():
        is_depthwise = isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                kind = parameter_kind(module, name, parameter)
                if kind == "weights" and is_depthwise and not config.decay_depthwise:
                    kind = "others"
                groups[part_of.get(module, "rest"), kind]["params"].append(parameter)
    used = [{**group, "lr": group["base_lr"]} for group in groups.values() if group["params"]]
    if config.name == "adamw":
        return torch.optim.AdamW(used, lr=config.lr, betas=(config.momentum, 0.999))
    return torch.optim.SGD(used, lr=config.lr, momentum=config.momentum)


def parameter_kind(module: nn.Module, name: str, parameter: nn.Parameter) -> str:
    """Return "weights", "biases" or "others" for a parameter of `module`."""
    # Upscore's kernels start as bilinear interpolation, which decay would shrink.
    if isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm | Upscore):
        return "others"
    if name == "bias":
        return "biases"
    return "weights" if parameter.ndim >= 2 else "others"


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set the learning rate of each group to its highest one times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
