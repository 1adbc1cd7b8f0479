"""`torch.export` programs, in float32 on the CPU: a network without the code that built it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import CheckpointError
from ..export_info import KEY


class TorchProgram:
    """A program of `torch.export`. Raises CheckpointError for a file that torch cannot read."""

    def __init__(self, path: Path) -> None:
        extra = {KEY: ""}
        try:
            program = torch.export.load(path, extra_files=extra)
        except Exception as error:  # zip, JSON and pickle errors, by the place of the damage
            raise CheckpointError(path, f"cannot be read by torch: {error}", "export the model again") from error
        self.name = f"torch {torch.__version__}"
        self.text = extra[KEY] or None
        # Guards and ranges repeat what the traced image was like, such as sides of 17 and more; the graph itself needs
        # none, as the comparison on images of 1x1 pixels shows.
        program.range_constraints.clear()
        self._module = program.module(check_guards=False)

    @torch.inference_mode()
    def run(self, images: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the output of the graph for images (B, C, H, W)."""
        output: NDArray[np.generic] = self._module(torch.from_numpy(images)).numpy()
        return output
