"""The pages name only what exists: files, settings, recipes, networks, commands."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from pixelwise.backbones import BACKBONES
from pixelwise.cli import COMMANDS
from pixelwise.config import Config
from pixelwise.models import MODELS
from pixelwise.recipes import recipe_files

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").glob("*.md") if page.name != "conformance.md")]
SETTINGS = {
    f"{part.name}.{name}" for part in dataclasses.fields(Config) for name in dataclasses.asdict(Config())[part.name]
}
SECTIONS = "|".join(part.name for part in dataclasses.fields(Config))
# As `loss.resolution` or --loss.resolution, not as in model.safetensors, model.classifier() or low_res.loss.resolution.
SETTING = re.compile(rf"(?:^|--)((?:{SECTIONS})\.(?!(?:py|txt|json|safetensors)\b)[a-z]\w*)(?![\w.(/])")
NAMES = {*MODELS, *BACKBONES, *recipe_files()}
# What begins like a network or a recipe, and goes on behind an underscore.
FAMILIES = "|".join(sorted({re.split(r"[\d_]", name)[0] for name in NAMES} - {"alexnet", "se"}))


def code(page: Path) -> Iterator[str]:
    """Each piece of a page that stands between backticks, and each line of its blocks of commands."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for block in blocks:
        yield from block.splitlines()
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (" ".join(piece.split()) for piece in re.findall(r"`([^`]+)`", rest))


def unknown(piece: str) -> Iterator[str]:
    """What a piece names and the project does not have."""
    for name in re.findall(r"(?<![\w./*-])((?:\w+/)*\w+\.py)\b", piece):
        if not any((folder / name).exists() for folder in (ROOT, ROOT / "src" / "pixelwise")):
            yield name
    yield from (name for name in SETTING.findall(piece) if name not in SETTINGS)
    for command in re.findall(r"\bpixelwise ([a-z][a-z-]+)", piece):
        if command not in COMMANDS:
            yield f"pixelwise {command}"
    if re.fullmatch(rf"(?:{FAMILIES})[\w*]*_[\w*]+", piece) and not any(fnmatch(name, piece) for name in NAMES):
        yield piece


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_what_exists(page: Path) -> None:
    wrong = [f"{name} in `{piece}`" for piece in code(page) for name in unknown(piece)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_link_to_pages(page: Path) -> None:
    links = re.findall(r"\]\(([^):#]+\.md)\)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize(
    "piece",
    ["models/nets.py", "loss.hardest", "--train.freeze true", "pixelwise draw", "deeplabv9_vgg16", "fcn*_light"],
)
def test_the_rule_sees_a_name_without_a_thing(piece: str) -> None:
    assert list(unknown(piece))


def test_every_system_has_its_section() -> None:
    page = (ROOT / "docs" / "systems.md").read_text(encoding="utf-8")
    files = {MODELS[name].module.removeprefix("pixelwise.").replace(".", "/") + ".py" for name in MODELS}
    titles = [line for line in page.splitlines() if line.startswith("## ")]
    assert not {file for file in files if not any(f"`{file}`" in title for title in titles)}
