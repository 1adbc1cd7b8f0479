"""OpenVINO's own files and ONNX files by OpenVINO, on the CPU.

On chips with AMX, OpenVINO computes in bfloat16 by default, and labels then differ. So float32 is set.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from ...errors import CheckpointError
from ...jit.threads import available_threads
from ..export_info import KEY


class OpenVino:
    """A compiled model of OpenVINO. Raises CheckpointError for a file that it cannot read."""

    def __init__(self, path: Path) -> None:
        core = openvino.Core()
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": available_threads()}
        try:
            model = core.read_model(str(path))
            self._request = core.compile_model(model, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise CheckpointError(path, f"cannot be read by OpenVINO: {error}", "export the model again") from error
        self.name = f"openvino {openvino.__version__.partition('-')[0]}"
        # Its own files hold the description below the root, ONNX files below "framework".
        place = [KEY] if path.suffix.lower() == ".xml" else ["framework", KEY]
        self.text = str(model.get_rt_info(place).astype(str)) if model.has_rt_info(place) else None

    def run(self, images: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the output of the graph for images (B, C, H, W)."""
        output: NDArray[np.generic] = self._request.infer([images])[0]
        return output
