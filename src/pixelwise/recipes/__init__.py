"""Recipes: settings that `pixelwise train NAME` takes by name. Each file states its model, command, cost and score."""

from __future__ import annotations

from pathlib import Path

from ..errors import UnknownNameError
from ..registry import suggest

__all__ = ["recipe_file", "recipe_files", "recipe_summary"]

_FOLDER = Path(__file__).parent


def recipe_files() -> dict[str, Path]:
    """Return the YAML file of each shipped recipe by name."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.yaml"))}


def recipe_file(name: str) -> Path:
    """Return the file of a shipped recipe. Raises UnknownNameError with the nearest names."""
    files = recipe_files()
    if name not in files:
        raise UnknownNameError(
            name, "no such recipe, file or folder", suggest(name, files, listing="pixelwise recipes")
        )
    return files[name]


def recipe_summary(path: Path) -> str:
    """Return the first comment line of a recipe, which says what it trains."""
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
