"""The CRF that follows a network: a preset by name, or the parameters that `crf-search` wrote into the run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..crf import PRESETS, Parameters
from ..errors import CheckpointError, InputError, UnknownNameError, os_reason
from ..files import read_json, write_text
from ..registry import suggest
from .run_file import find_run_file

FILE = "crf.json"
RUN = "run"
"""The value of `--crf` that stands for the parameters in the run."""
_MAX_CRF_BYTES = 2**20


def find_crf(name: str | None, model: str | Path | None) -> Parameters | None:
    """Return the parameters that `--crf NAME` means for a model's folder; None without a CRF.

    Raises UnknownNameError for an unknown preset, CheckpointError for `run` without a search's result.
    """
    if name is None:
        return None
    if name in PRESETS:
        return PRESETS[name]
    if name != RUN:
        raise UnknownNameError(f"--crf {name}", "no such CRF preset", suggest(name, [*PRESETS, RUN]))
    fix = "run `pixelwise crf-search --model RUN --data DATA` first, or name a preset: " + ", ".join(PRESETS)
    if model is None:
        raise CheckpointError("--crf run", "needs --model", fix)
    path = find_run_file(model, FILE)
    if not path.exists():
        raise CheckpointError(path, "contains no CRF parameters", fix)
    return read_crf(path)


def crf_origin(name: str, model: str | Path | None) -> str:
    """Return where the parameters of `--crf NAME` come from; scores on the split of a search are biased."""
    if name in PRESETS:
        return f"preset {name}"
    found = read_json(find_run_file(model or ".", FILE), _MAX_CRF_BYTES).get("found", {})
    return f"found on {found.get('dataset', 'an unknown dataset')} {found.get('split', '')}".strip()


def read_crf(path: Path) -> Parameters:
    """Return the parameters in a file that `write_crf` wrote. Raises CheckpointError for any other file."""
    fix = "run `pixelwise crf-search` again"
    try:
        return Parameters(**read_json(path, _MAX_CRF_BYTES)["parameters"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise CheckpointError(path, f"cannot be read as CRF parameters: {os_reason(error)}", fix) from None
    except InputError as error:
        raise CheckpointError(path, f"{error.subject}: {error.what}", fix) from None


def write_crf(folder: Path, parameters: Parameters, found: dict[str, Any]) -> Path:
    """Write the parameters, and how they were found, into a run or checkpoint folder, atomically."""
    path = folder / FILE
    write_text(path, json.dumps({"parameters": asdict(parameters), "found": found}, indent=1) + "\n")
    return path
