"""Load any model by name: a run, a checkpoint, a hub id, or an exported file, which needs no torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigError, InputError
from .base import BaseSegmenter
from .exported import ExportedSegmenter, load_exported
from .runtimes import RuntimeName, is_exported
from .stored_config import checkpoint_folder, stored_digest, stored_pixels, stored_taxonomy, stored_thresholds
from .temperature import read_temperature

EXPORTED = "model.onnx"
"""The exported form of a checkpoint, in its folder. It labels images without torch, whose import takes seconds."""


def load_any(
    path: str | Path | None = None,
    *,
    device: str = "auto",
    precision: Literal["float32", "bfloat16"] = "float32",
    options: Mapping[str, Any] | None = None,
    runtime: RuntimeName = "auto",
) -> BaseSegmenter:
    """Load a segmenter from a run, a checkpoint folder, a hub id or an exported file; by default the shipped model.

    device     auto, cpu, cuda or cuda:N
    precision  float32, or bfloat16 on hardware that supports it
    options    replace options that the network was trained with, if its weights fit: {"output_stride": 8}
    runtime    of an exported file; "auto" takes the usual one of its kind

    An exported file (`.onnx`, `.xml`, `.pt2`) is computed in float32 on the CPU, as it is. Raises the errors of
    `segmenter.load` and of `load_exported`, and ConfigError for an option that does not fit the kind of model.
    """
    if not is_exported(path):
        if runtime not in ("auto", "torch"):
            what = f"{runtime} runs exported files"
            raise InputError("--runtime", what, "write one with `pixelwise export`, and name it with --model")
        from .segmenter import load

        return load(path, device=device, precision=precision, options=options)
    assert path is not None
    refused = {"--options": options, "--precision": precision != "float32", "--device": device not in ("auto", "cpu")}
    for option, is_given in refused.items():
        if is_given:
            what = f"{path} is an exported file, which is computed as it is, in float32 on the CPU"
            raise ConfigError(option, what, f"leave {option} out, or name the run it was exported from")
    return load_exported(path, runtime=runtime)


def load_without_torch(
    model: str | Path | None,
    *,
    device: str = "auto",
    precision: Literal["float32", "bfloat16"] = "float32",
    options: Mapping[str, Any] | None = None,
    runtime: RuntimeName = "auto",
    is_plain: bool = True,
) -> BaseSegmenter | None:
    """Load an exported file, or the exported form of a checkpoint; None for a model that torch has to compute.

    is_plain  whether each image is labeled once, as it is: other views, tiles and heads are torch's
    Raises the errors of `load_any`.
    """
    if is_exported(model):
        return load_any(model, device=device, precision=precision, options=options, runtime=runtime)
    on_cpu = device == "cpu" or (device == "auto" and not Path("/proc/driver/nvidia").exists())
    if not (is_plain and on_cpu) or options or precision != "float32" or runtime not in ("auto", "onnxruntime"):
        return None
    return load_exported_form(model)


def load_exported_form(model: str | Path | None) -> ExportedSegmenter | None:
    """Load the file `model.onnx` in the folder of a run, a checkpoint or the shipped model, if it is of its weights.

    Returns None where there is no such file, where it was exported from other weights, for other classes or with labels
    alone, and where ONNX Runtime is not installed. Raises CheckpointError for a file that is damaged.
    """
    folder = checkpoint_folder(model)
    if folder is None or not (folder / EXPORTED).is_file() or importlib.util.find_spec("onnxruntime") is None:
        return None
    # A checkpoint with new.* files was being replaced when its writer was killed; torch sorts them out.
    if any(folder.glob("new.*")):
        return None
    exported = load_exported(folder / EXPORTED)
    info = exported.info
    is_same = info.checkpoint == stored_digest(folder) != "" and info.output == "scores"
    is_same &= (info.taxonomy, info.pixels) == (stored_taxonomy(folder), stored_pixels(folder))
    if not is_same or info.thresholds != stored_thresholds(folder):
        return None
    return exported.with_temperature(read_temperature(model or folder)[0])
