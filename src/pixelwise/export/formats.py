"""Write a graph as ONNX, OpenVINO's or torch's file, with free batch, height and width."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import InputError, ResourceError, shown
from ..inference.export_info import KEY, ExportInfo, Weights
from .graphs import SIZE
from .metadata import deepness_keys, model_api_keys

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
"""Format -> the ending of its file; OpenVINO writes a `.bin` beside it."""
DYNAMIC = {"images": {0: "batch", 2: "height", 3: "width"}}
_TO_TORCH = {"uint8": torch.uint8, "uint16": torch.uint16, "float32": torch.float32}


class GraphFile:
    """A traced graph; `write` saves it together with a description, as often as needed.

    weights  how the file stores them
    Raises InputError for a network that cannot be traced and for weights that ONNX cannot store as float16,
    ResourceError for a package that is missing.
    """

    def __init__(self, graph: nn.Module, info: ExportInfo, format: str, weights: Weights = "float32") -> None:
        if format == "torch" and weights == "float16":
            what = "torch's files hold the weights in the type that they are computed in"
            raise InputError("--weights float16", what, "choose --format onnx or openvino, or leave --weights out")
        self.format, self.weights = format, weights
        # The batch is 2, because torch takes a size of 1 for one that never changes.
        images = torch.zeros(2, info.in_channels, *SIZE).to(_TO_TORCH[info.input])
        with _quiet():
            try:
                if format == "torch":
                    dynamic = {name: dict.fromkeys(sides, torch.export.Dim.AUTO) for name, sides in DYNAMIC.items()}
                    self._program: Any = torch.export.export(graph, (images,), dynamic_shapes=dynamic)
                else:
                    self._program = _to_onnx(graph, images)
            except ModuleNotFoundError as error:
                what = f"--format {format} needs the package {error.name}, which is not installed"
                raise ResourceError("export", what, 'pip install "pixelwise[export]"') from error
            except Exception as error:
                what = f"{info.name} cannot be traced: {shown(_first_line(error))}"
                raise InputError(
                    "export", what, "try another --format, and report it with the output of --debug"
                ) from error

        if format == "onnx" and weights == "float16":
            from .float16 import store_float16

            store_float16(self._program.model)

    def write(self, path: Path, info: ExportInfo) -> list[Path]:
        """Write the file, and return all files that belong to it, the named one last."""
        text = info.to_json()
        if self.format == "torch":
            with _quiet():
                torch.export.save(self._program, path, extra_files={KEY: text})
            return [path]
        program: ONNXProgram = self._program
        if self.format == "onnx":
            program.model.metadata_props[KEY] = text
            if info.output != "scores":
                program.model.metadata_props.update(deepness_keys(info))
            program.save(path)
            # Protocol buffers end at 2 GB, so that larger weights would lie in a file beside it.
            if path.with_name(f"{path.name}.data").exists():
                what = f"{info.name} has more than 1.5 GB of weights, which do not fit into one ONNX file"
                raise InputError("--format onnx", what, "choose --format openvino or torch")
            return [path]
        return _write_openvino(program, path, info, self.weights)


def _to_onnx(graph: nn.Module, images: torch.Tensor) -> ONNXProgram:
    program = torch.onnx.export(
        graph,
        (images,),
        dynamo=True,
        dynamic_shapes=DYNAMIC,
        input_names=["images"],
        output_names=["output"],
        verbose=False,
    )
    assert program is not None, "dynamo=True returns the program"
    return program


def _write_openvino(program: ONNXProgram, path: Path, info: ExportInfo, weights: Weights) -> list[Path]:
    try:
        import openvino
    except ModuleNotFoundError as error:
        what = "--format openvino needs the package openvino, which is not installed"
        raise ResourceError("export", what, 'pip install "pixelwise[openvino]"') from error
    onnx_file = path.with_suffix(".onnx")
    program.save(onnx_file)
    model = openvino.Core().read_model(str(onnx_file))
    model.set_rt_info(info.to_json(), [KEY])
    for key, value in model_api_keys(info).items():
        model.set_rt_info(value, ["model_info", key])
    openvino.save_model(model, str(path), compress_to_fp16=weights == "float16")
    onnx_file.unlink()
    return [path.with_suffix(".bin"), path]


def _first_line(error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[0] if lines else type(cause).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's reports about its own steps and about packages that are not needed."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
