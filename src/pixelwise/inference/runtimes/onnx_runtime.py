"""ONNX files by ONNX Runtime, in float32 on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ...errors import CheckpointError
from ...jit.threads import available_threads
from ..export_info import KEY

_ERRORS_ONLY = 3


class OnnxRuntime:
    """A session of ONNX Runtime. Raises CheckpointError for a file that it cannot read."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = available_threads()
        options.log_severity_level = _ERRORS_ONLY
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no common class of their own
            raise CheckpointError(path, f"cannot be read by ONNX Runtime: {error}", "export the model again") from error
        self.name = f"onnxruntime {onnxruntime.__version__}"
        self.text = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        self._input = self._session.get_inputs()[0].name

    def run(self, images: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the output of the graph for images (B, C, H, W)."""
        output: NDArray[np.generic] = self._session.run(None, {self._input: images})[0]
        return output
