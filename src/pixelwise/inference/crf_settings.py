"""Which CRF stands behind a network: a preset by name, or the parameters that `crf-search` left in the run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..crf import PRESETS, Parameters
from ..errors import CheckpointError, InputError, UnknownNameError
from ..files import write_text
from ..registry import suggest

FILE = "crf.json"
FOUND = "run"
"""The word for the parameters that lie in the run."""


def find_crf(name: str | None, model: str | Path | None) -> Parameters | None:
    """What `--crf NAME` means for a model's folder; None where no CRF is asked for.

    Raises UnknownNameError for a name that is no preset, CheckpointError where `run` is asked for and no search has been made.
    """
    if name is None:
        return None
    if name in PRESETS:
        return PRESETS[name]
    if name != FOUND:
        raise UnknownNameError(f"--crf {name}", "no such CRF preset", suggest(name, [*PRESETS, FOUND]))
    path = _file_of(model or ".")
    if model is None or not path.is_file():
        fix = "run `pixelwise crf-search --model RUN --data DATA` first, or name a preset: " + ", ".join(PRESETS)
        raise CheckpointError(
            path if model else "--crf run", "holds no CRF parameters" if model else "needs --model", fix
        )
    return read_crf(path)


def crf_origin(name: str, model: str | Path | None) -> str:
    """Where the parameters of `--crf NAME` come from, for the protocol: scores on the split that was searched flatter them."""
    if name in PRESETS:
        return f"preset {name}"
    found = json.loads(_file_of(model or ".").read_text(encoding="utf-8")).get("found", {})
    return f"found on {found.get('dataset', 'an unknown dataset')} {found.get('split', '')}".strip()


def _file_of(model: str | Path) -> Path:
    """The file in a folder; a checkpoint inside a run shares the run's."""
    folder = Path(model)
    run = folder.resolve().parent.parent
    shared = folder.resolve().parent.name == "checkpoints" and not (folder / FILE).is_file()
    return (run if shared and (run / FILE).is_file() else folder) / FILE


def read_crf(path: Path) -> Parameters:
    """The parameters in a file that `write_crf` wrote. Raises CheckpointError for another file."""
    fix = "run `pixelwise crf-search` again"
    try:
        return Parameters(**json.loads(path.read_text(encoding="utf-8"))["parameters"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(path, f"is no file of CRF parameters: {error}", fix) from None
    except InputError as error:
        raise CheckpointError(path, f"{error.subject} {error.what}", fix) from None


def write_crf(folder: Path, parameters: Parameters, how: dict[str, Any]) -> Path:
    """Write the parameters, and how they were found, into a run or checkpoint folder, whole or not at all."""
    path = folder / FILE
    write_text(path, json.dumps({"parameters": asdict(parameters), "found": how}, indent=1) + "\n")
    return path
