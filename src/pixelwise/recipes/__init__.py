"""Recipes: configurations that `pixelwise train NAME` takes by name; each file starts with the command that runs it."""

from __future__ import annotations

from pathlib import Path

from ..errors import UnknownNameError
from ..registry import suggest

__all__ = ["recipe_file", "recipe_files", "recipe_summary"]

_FOLDER = Path(__file__).parent


def recipe_files() -> dict[str, Path]:
    """Name -> YAML file of each shipped recipe."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.yaml"))}


def recipe_file(name: str) -> Path:
    """The file of a shipped recipe. Raises UnknownNameError listing the nearest."""
    files = recipe_files()
    if name not in files:
        raise UnknownNameError(name, "no such recipe, file or folder", suggest(name, files))
    return files[name]


def recipe_summary(path: Path) -> str:
    """The first comment line of a recipe."""
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
