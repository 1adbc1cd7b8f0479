"""The temperature of a model: a number that makes its probabilities honest, in a file beside its checkpoint.

`pixelwise evaluate --fit-temperature SPLIT` fits it (`evaluation/calibration.py` has the definition) and writes it into
the model's folder, as `crf-search` writes its parameters; `pixelwise.load` reads it, and probabilities that are asked
for are scaled by it. Labels, the CRF's input and the mean over views are those without it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError, os_reason
from ..files import read_json, write_text
from .run_file import find_run_file

FILE = "temperature.json"
LIMITS = (0.01, 100.0)
"""The least and the greatest temperature."""
_MAX_BYTES = 2**16


def log_probabilities(probs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logarithms of probabilities; 0 counts as float32's smallest normal number."""
    return np.log(np.maximum(probs, np.finfo(np.float32).tiny))


def scaled(probs: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Return p^(1/T) / sum p^(1/T) along the first axis: the softmax of logits / T. The order of classes stays."""
    if temperature == 1:
        return probs
    powers = log_probabilities(probs) / np.float32(temperature)
    powers -= powers.max(0)
    np.exp(powers, out=powers)
    powers /= powers.sum(0)
    return powers


def read_temperature(model: str | Path) -> tuple[float, str]:
    """Return the temperature of a run or checkpoint folder and what it was fitted on; 1 and "" without a file.

    Raises CheckpointError for a file that holds none.
    """
    path = find_run_file(model, FILE)
    if not path.exists():
        return 1.0, ""
    fix = "remove it, or run `pixelwise evaluate --fit-temperature` again"
    try:
        data = read_json(path, _MAX_BYTES)
        temperature, fitted_on = float(data["temperature"]), str(data["fitted_on"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise CheckpointError(path, f"cannot be read as a temperature: {os_reason(error)}", fix) from None
    if not math.isfinite(temperature) or not LIMITS[0] <= temperature <= LIMITS[1]:
        raise CheckpointError(path, f"expected a temperature of {LIMITS[0]} to {LIMITS[1]}, got {temperature}", fix)
    return temperature, fitted_on


def write_temperature(folder: Path, temperature: float, fitted_on: str) -> Path:
    """Write the temperature, and what it was fitted on, into a run or checkpoint folder, atomically."""
    path = folder / FILE
    write_text(path, json.dumps({"temperature": temperature, "fitted_on": fitted_on}, indent=1) + "\n")
    return path
