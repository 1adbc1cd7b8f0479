"""The docs name and link only existing files, images, settings, recipes, networks, commands and source folders."""

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
from pixelwise.weights.pretrained_files import PRETRAINED

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "pixelwise"
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CARDS = [*sorted(SOURCE.rglob("*.md")), *sorted((ROOT / "samples").rglob("*.md"))]
# The conformance page quotes the names that the papers and the authors' files use.
PAGES = [page for page in DOCS if page.name != "conformance.md"]

SECTIONS = [part.name for part in dataclasses.fields(Config)]
SETTINGS = {f"{section}.{name}" for section in SECTIONS for name in dataclasses.asdict(Config())[section]}
# As `loss.resolution` or --loss.resolution, not as in model.safetensors, model.classifier() or x.loss.resolution.
SETTING = re.compile(rf"(?:^|--)((?:{'|'.join(SECTIONS)})\.(?!(?:py|txt|json|safetensors)\b)[a-z]\w*)(?![\w.(/])")
NAMES = {*MODELS, *BACKBONES, *recipe_files(), *PRETRAINED}
# First words of networks and recipes, such as fcn8s in fcn8s_vgg16.
FAMILIES = "|".join(sorted({re.split(r"[\d_]", name)[0] for name in NAMES} - {"alexnet", "se"}))


def code(page: Path) -> Iterator[str]:
    """Yield each piece of a page between backticks, and each line of its code blocks."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from block.splitlines()
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (" ".join(piece.split()) for piece in re.findall(r"`([^`]+)`", rest))


def unknown(piece: str) -> Iterator[str]:
    """Yield the names in a piece of code that the project does not have."""
    for name in re.findall(r"(?<![\w./*-])((?:\w+/)*\w+\.py)\b", piece):
        # A name without a folder may stand below its folder in a tree.
        found = any((folder / name).exists() for folder in (ROOT, SOURCE)) or (
            "/" not in name and any(SOURCE.rglob(name))
        )
        if not found:
            yield name
    yield from (name for name in SETTING.findall(piece) if name not in SETTINGS)
    for command in re.findall(r"\bpixelwise ([a-z][a-z-]+)", piece):
        if command not in COMMANDS:
            yield f"pixelwise {command}"
    if re.fullmatch(rf"(?:{FAMILIES})[\w*]*_[\w*]+", piece) and not any(fnmatch(name, piece) for name in NAMES):
        yield piece


@pytest.mark.parametrize("page", [*PAGES, *CARDS], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_names_what_exists(page: Path) -> None:
    wrong = [f"{name} in `{piece}`" for piece in code(page) for name in unknown(piece)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "piece",
    ["models/nets.py", "loss.hardest", "--train.freeze true", "pixelwise draw", "deeplabv9_vgg16", "fcn*_light"],
)
def test_the_rule_finds_a_name_without_a_thing(piece: str) -> None:
    assert list(unknown(piece))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*DOCS, *CARDS], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_and_images_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"<img [^>]*src=\"([^\"]+)\"", text)
    broken = []
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert not broken, f"{page.name} links to what does not exist: {broken}"


def test_the_source_map_lists_the_folders_of_the_source() -> None:
    """The tree under `## Source map` in docs/design.md, read at its first level; names of folders end in a slash."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    section = re.search(r"^## Source map\n.*?^```\w*\n(?:src/pixelwise/\n)?(.*?)^```", text, re.MULTILINE | re.DOTALL)
    if section is None:
        pytest.skip("docs/design.md has no section `Source map`")
    lines = section.group(1).splitlines()
    indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    listed = {match[1] for line in lines if (match := re.match(rf" {{{indent}}}(\w+)/", line))}
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert listed == folders
