"""The libraries that run an exported network, each imported on first use.

onnx_runtime  `.onnx` files by ONNX Runtime
openvino      `.xml` files with their `.bin`, and `.onnx` files, by OpenVINO
torch_program `.pt2` files by torch, without the code of the network; the others do not import torch
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ...errors import CheckpointError, InputError, ResourceError, shown

__all__ = ["SUFFIXES", "Runtime", "RuntimeName", "is_exported", "open_runtime"]

RuntimeName = Literal["auto", "onnxruntime", "openvino", "torch"]

SUFFIXES: dict[str, tuple[str, ...]] = {
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
    ".pt2": ("torch",),
}
"""Ending of an exported file -> the runtimes that can run it, the usual one first."""


class Runtime(Protocol):
    """A network in a library.

    name  of the library with its version, for protocols
    text  the description that pixelwise has put into the file, None for other files
    """

    name: str
    text: str | None

    def run(self, images: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the output of the graph for images (B, C, H, W)."""
        ...


def is_exported(model: str | Path | None) -> bool:
    """Return whether a model is named by an exported file, from its ending."""
    return model is not None and Path(model).suffix.lower() in SUFFIXES


def open_runtime(path: str | Path, runtime: RuntimeName = "auto") -> Runtime:
    """Open an exported file.

    Raises CheckpointError for a file that is missing or damaged, ResourceError for a library that is not installed,
    InputError for a runtime that does not run such files.
    """
    path = Path(path)
    if not is_exported(path):
        fix = "name a file that `pixelwise export` wrote; pixelwise.load() opens runs and checkpoints"
        raise CheckpointError(path, f"expected a file that ends in {', '.join(SUFFIXES)}", fix)
    choices = SUFFIXES[path.suffix.lower()]
    name = choices[0] if runtime == "auto" else runtime
    if name not in choices:
        what = f"{shown(runtime)} does not run {path.suffix} files"
        raise InputError("--runtime", what, f"choose {' or '.join(choices)}")
    if not path.is_file():
        raise CheckpointError(path, "no such file", "name a file that `pixelwise export` wrote")
    try:
        if name == "onnxruntime":
            from .onnx_runtime import OnnxRuntime

            return OnnxRuntime(path)
        if name == "openvino":
            from .openvino import OpenVino

            return OpenVino(path)
        from .torch_program import TorchProgram

        return TorchProgram(path)
    except ModuleNotFoundError as error:
        what = f"needs the package {name}, which is not installed"
        raise ResourceError(path, what, f"pip install {name}") from error
