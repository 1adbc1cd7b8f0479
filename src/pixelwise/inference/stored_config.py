"""What the configuration in a model's folder says, read without torch; loading the model says what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core import Taxonomy
from ..errors import InputError
from ..files import read_json
from ..images import RGB, PixelFormat

SHIPPED = Path(__file__).parent.parent / "shipped" / "compact_camvid"
"""The checkpoint inside the package, which `load()` gives without a path."""


def checkpoint_folder(model: str | Path | None) -> Path | None:
    """Return the folder of the checkpoint of a run or checkpoint, the shipped one for None; None if there is none."""
    if model is None:
        return SHIPPED
    folders = (Path(model, place) for place in ("checkpoints/best", "checkpoints/last", ""))
    # A checkpoint whose writer was killed while it renamed is one too, as for `weights.checkpoint.find_checkpoint`.
    names = ("config.json", "new.config.json")
    return next((folder for folder in folders if any((folder / name).is_file() for name in names)), None)


def stored_config(model: str | Path | None) -> dict[str, Any]:
    """Return the configuration of a model's folder; empty if there is none that can be read."""
    folder = checkpoint_folder(model)
    try:
        return {} if folder is None else dict(read_json(folder / "config.json"))
    except (OSError, ValueError, TypeError):
        return {}


def stored_pixels(model: str | Path | None) -> PixelFormat:
    """Return the pixel format of a model's images; RGB where it names none."""
    config = stored_config(model)
    try:
        return PixelFormat.from_dict(config["pixels"]) if "pixels" in config else RGB
    except (ValueError, TypeError, InputError):
        return RGB


def stored_taxonomy(model: str | Path | None) -> Taxonomy | None:
    """Return the classes of a model's folder; None if it is no folder that can be read."""
    try:
        return Taxonomy.from_dict(stored_config(model)["taxonomy"])
    except (LookupError, ValueError, TypeError, InputError):
        return None


def stored_thresholds(model: str | Path | None) -> tuple[float, ...]:
    """Return the thresholds of several labels per pixel; none for one label per pixel."""
    numbers = stored_config(model).get("thresholds")
    return tuple(map(float, numbers)) if isinstance(numbers, list) else ()


def stored_digest(model: str | Path | None) -> str:
    """Return the sha256 of the weights in a model's folder, as its configuration says; "" if it cannot be read."""
    weights = stored_config(model).get("weights")
    return str(weights.get("sha256", "")) if isinstance(weights, dict) else ""
