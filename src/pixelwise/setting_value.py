"""Convert a value from YAML to the type of its setting, or raise an error that says how to write it.

A setting that does not exist is answered with those that may be meant, found by the terms of other toolkits.

The options of networks, which are Python values, are checked by `registry.py`, in the same words.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import operator
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import ConfigError, shown
from .registry import type_in_words

# Characters of a value in the fix of a message.
MAX_EXAMPLE = 100
BOUNDS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}

# Settings, and options of `pixelwise train`, by what other toolkits call them.
TERMS = {
    "data.path": "dataset data_root data_dir root datadir data_path train_data dataroot",
    "data.format": "dataset_type data_format",
    "data.train_split": "split train_set trainset",
    "data.val_split": "val valid validation val_set eval_split test_split",
    "data.batch_size": "batch batchsize bs b samples_per_gpu imgs_per_batch ims_per_batch train_batch_size "
    "per_device_train_batch_size",
    "data.sampling": "shuffle sampler",
    "data.workers": "num_workers n_workers nw j workers_per_gpu dataloader_num_workers threads num_threads",
    "data.cache_mib": "cache cache_images cache_size",
    "augment.crop": "crop_size random_crop imgsz img_size image_size input_size size resize patch_size "
    "height width base_size",
    "augment.scale": "random_scale scale_range ratio_range multi_scale zoom random_resize",
    "augment.rotate": "rotation degrees random_rotation",
    "augment.flip": "hflip horizontal_flip fliplr flip_prob random_flip mirror",
    "augment.brightness": "color_jitter jitter photometric hsv",
    "augment.elastic": "elastic_transform",
    "augment.class_balanced_prob": "cat_max_ratio oversample class_balanced",
    "augment.classmix_prob": "classmix cutmix mixup copy_paste",
    "model.init_from": "weights pretrained checkpoint ckpt load load_from init_weights finetune from_checkpoint "
    "pretrained_model model_path",
    "model.train_only": "freeze freeze_backbone freeze_layers",
    "model.options": "output_stride backbone encoder encoder_name width_mult dropout os",
    "loss.class_weights": "class_weight weighting class_balance",
    "loss.name": "criterion loss_type loss_fn loss_function ohem hard_mining focal focal_loss cross_entropy ce "
    "bootstrapped",
    "loss.reduction": "size_average normalize",
    "loss.ohem_threshold": "thresh ohem_thresh thres ohem_thres",
    "loss.ohem_min_kept": "min_kept n_min ohem_min ohemkeep",
    "loss.bootstrap_top_k": "topk top_k_percent_pixels",
    "loss.aux_weight": "aux_loss aux auxiliary_weight aux_loss_weight",
    "loss.dice": "dice_loss dice_weight loss_dice",
    "loss.lovasz": "lovasz_weight lovasz_loss iou_loss loss_lovasz",
    "optimizer.name": "optimizer optim opt solver optimizer_type",
    "optimizer.lr": "learning_rate base_lr lr0 init_lr initial_lr max_lr learningrate rate",
    "optimizer.weight_decay": "wd decay l2",
    "optimizer.schedule": "scheduler lr_scheduler sched lr_schedule lr_policy policy",
    "optimizer.step_every": "step_size lr_step milestones lr_steps decay_steps",
    "optimizer.step_factor": "lr_gamma decay_rate",
    "optimizer.warmup_steps": "warmup warmup_iters warmup_epochs",
    "optimizer.clip_norm": "clip grad_clip clip_grad gradient_clip_val max_grad_norm",
    "optimizer.grad_accum_steps": "accumulate accum grad_accum accumulate_grad_batches gradient_accumulation_steps "
    "iter_size",
    "optimizer.head_lr_factor": "lr_mult head_lr backbone_lr",
    "train.steps": "iterations iters iter num_iterations max_iter max_iters max_steps num_steps total_steps epochs "
    "epoch max_epochs num_epochs n_epochs num_train_epochs",
    "train.validate_every": "val_interval eval_interval eval_every eval_steps val_every val_check_interval "
    "check_val_every_n_epoch",
    "train.early_stop": "patience early_stopping early_stopping_patience es_patience",
    "train.save_every": "save_interval save_steps save_period save_freq checkpoint_interval ckpt_every",
    "train.log_every": "log_interval log_freq logging_steps print_freq",
    "train.seed": "random_seed manual_seed random_state",
    "train.precision": "amp fp16 bf16 half mixed_precision use_amp autocast dtype",
    "train.ema": "ema_decay model_ema",
    "train.compile": "torch_compile",
    "train.freeze_norm": "freeze_bn freeze_batchnorm fix_bn",
    "train.device": "gpu cuda use_gpu accelerator cpu no_cuda gpu_id",
    "train.devices": "gpus num_gpus n_gpu ngpus nproc_per_node world_size",
    "train.nodes": "num_nodes nnodes",
    "train.loggers": "logger tensorboard wandb log report_to",
    "train.on_read_error": "skip_bad skip_errors ignore_errors",
    "model": "arch architecture net network m model_name",
    "out": "output output_dir save_dir work_dir workdir project logdir log_dir run_dir exp exp_name name",
    "lr-range": "lr_find lr_finder auto_lr_find find_lr lr_range_test",
    "resume": "resume_from resume_from_checkpoint auto_resume continue",
}
_EPOCHS = ("epoch", "epochs", "max_epochs", "num_epochs", "n_epochs", "num_train_epochs")
_CLASSES = ("num_classes", "classes", "nc", "n_classes", "nclass", "num_class", "class_names")
_IGNORED = ("ignore", "ignore_index", "ignore_label", "void")


def asks_for_epochs(name: str) -> bool:
    """Return whether an unknown option is a number of epochs, which other toolkits count a run in."""
    return _word(name) in _EPOCHS


def suggest_setting(name: str, known: Iterable[str], *, prefix: str = "--") -> str:
    """Return the fix for an unknown setting: those with that name, or term, or else those with the nearest names.

    name    as given, with or without a section, with dashes or underscores
    known   the names of all settings as "section.option", and of options without a section
    prefix  of the names in the answer
    """
    known = list(known)
    path, word = name.lstrip("-").replace("-", "_").casefold(), _word(name)
    if word in _EPOCHS:
        return f"a run is counted in steps, {prefix}train.steps; an epoch has (images / batch size) steps"
    if word in (*_CLASSES, *_IGNORED):
        return f"`{'ignore' if word in _IGNORED else 'classes'}` stands in the dataset's classes.yaml"
    exact = [option for option in known if path == option.replace(".", "_") or word == option.split(".")[-1]]
    by_term = [option for option, terms in TERMS.items() if word in terms.split() and option in known]
    section = [option for option in known if option.startswith(f"{path}.")]
    if section and not by_term:
        return f"choose one of {', '.join(prefix + option for option in section)}"
    found = exact or by_term
    if not found:
        near = {term: option for option, terms in TERMS.items() if option in known for term in terms.split()}
        near |= {option.replace(".", "_"): option for option in known}
        near |= {option.split(".")[-1]: option for option in known}
        found = list(dict.fromkeys(near[term] for term in difflib.get_close_matches(word, near, n=2, cutoff=0.7)))
    near_ones = " or ".join(prefix + option for option in found[:3])
    return f"did you mean {near_ones}?" if near_ones else "see `pixelwise train --help`"


def _word(name: str) -> str:
    """Return the last part of a setting's name, as the terms are written."""
    return name.lstrip("-").replace("-", "_").casefold().split(".")[-1]


@cache
def types_of(section: type) -> dict[str, Any]:
    """Return the types of a dataclass's fields by name."""
    return get_type_hints(section)


def alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the type itself."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def checked(value: Any, option: dataclasses.Field[Any], section: type, subject: str) -> Any:
    """Return `value` as the field's type. Raises ConfigError with `subject` for a wrong type or range."""
    hint = types_of(section)[option.name]
    kinds = alternatives(hint)
    for kind in kinds:
        with suppress(TypeError):
            converted = _convert(value, kind)
            break
    else:
        words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
        near = difflib.get_close_matches(str(value), words, n=1)
        fix = f"did you mean {near[0]}?" if near else _example(value, option, kinds[0], subject)
        raise ConfigError(subject, f"expected {type_in_words(hint)}, got {shown(value)}", fix)
    numbers = [n for n in (converted if isinstance(converted, list) else [converted]) if isinstance(n, int | float)]
    bounds = option.metadata["bounds"]
    if not all(math.isfinite(number) for number in numbers):
        raise ConfigError(subject, f"must be finite, got {shown(value)}", _example(None, option, kinds[0], subject))
    if not all(BOUNDS[sign](number, bound) for number in numbers for sign, bound in bounds.items()):
        expected = " and ".join(f"{sign} {bound:.10g}" for sign, bound in bounds.items())
        what = f"must be {expected}, got {shown(value)}"
        raise ConfigError(subject, what, _example(None, option, kinds[0], subject))
    if isinstance(converted, list) and option.metadata["length"] not in (None, len(converted)):
        fix = _example(value, option, kinds[0], subject)
        raise ConfigError(subject, f"expected {option.metadata['length']} numbers, got {shown(value)}", fix)
    return converted


def _example(value: Any, option: dataclasses.Field[Any], kind: Any, subject: str) -> str:
    """Return the fix for a wrong value: how to write it, with the given value where it can be meant, or the default."""
    item = get_args(kind)[0] if get_origin(kind) is list else None
    example = default = option.default_factory() if callable(option.default_factory) else option.default
    with suppress(TypeError):
        # A number in place of a list: the list of that number.
        _convert(value, item)
        example = [value] * (option.metadata["length"] or 1)
    if str in (kind, item) and not isinstance(value, list | dict | None):
        # A number in place of a text.
        example = [str(value)] if item else str(value)
    # Only where settings are read or written: help shows them without the YAML library.
    from .strict_yaml import to_yaml

    text = to_yaml(example)
    if example in ([], "") or len(text) > MAX_EXAMPLE:
        return f"leave it out: the default is {shown(default)}"
    if subject.startswith("--"):
        return f"write {subject} " + (f'"{text}"' if isinstance(example, list | dict) else text)
    return f"write `{option.name}: {text}`"


def _convert(value: Any, kind: Any) -> Any:
    """Return `value` as `kind`, integers as floats where floats are expected. Raises TypeError."""
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
    elif get_origin(kind) is list and isinstance(value, list):
        return [_convert(item, get_args(kind)[0]) for item in value]
    elif kind is float and type(value) is int:
        return float(value) if abs(value) < 2**1000 else math.inf
    elif type(value) is (get_origin(kind) or kind):
        return value
    raise TypeError
