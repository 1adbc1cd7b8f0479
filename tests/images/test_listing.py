"""Listing folders by text: what pathlib finds, in its order, with a fraction of its calls."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.tiny_data import write_dataset
from pixelwise.data import open_dataset
from pixelwise.images import (
    IMAGE_SUFFIXES,
    cut_suffix,
    file_kind,
    irregular_files,
    list_images,
    names_below,
    paths_below,
    walk,
    walk_files,
    without_suffix,
)

# Before and after the slash in the order of characters, without a suffix, with several, and no UTF-8.
NAMES = ["a", "a-b", "a.b", "a b", "A", "a.png", "a.tar.png", "a..png", "b.PNG", "ä.png", ".hidden.png", "b\udcff.png"]


def _tree(folder: Path, rng: np.random.Generator, depth: int = 0) -> None:
    folder.mkdir()
    for name in NAMES:
        kind = rng.integers(6)
        if kind in (0, 1) and depth < 3:
            _tree(folder / name, rng, depth + 1)
        elif kind == 2:
            (folder / name).symlink_to("nowhere")
        elif kind in (3, 4):
            (folder / name).write_bytes(b"x")
        elif kind == 5 and depth and rng.integers(3) == 0:
            # A cycle: the folder above.
            (folder / name).symlink_to("..")


def _by_pathlib(folder: Path) -> set[Path]:
    found: set[Path] = set()
    for path in folder.iterdir():
        if not path.name.startswith("."):
            # Links to folders lead to one above, which is listed already.
            found |= _by_pathlib(path) if path.is_dir() and not path.is_symlink() else set()
            found |= set() if path.is_dir() else {path}
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no UTF-8")
@pytest.mark.parametrize("seed", range(12))
def test_the_files_are_those_that_pathlib_finds_in_its_order(tmp_path: Path, seed: int) -> None:
    root = tmp_path / "root"
    _tree(root, np.random.default_rng(seed))
    expected = sorted(_by_pathlib(root))
    paths, repeated = walk_files(root)
    assert paths == expected
    assert all(path.is_symlink() and path.is_dir() for path in repeated)
    found = walk(root)
    assert found.names == [path.relative_to(root).as_posix() for path in expected]
    assert found.irregular == {path.relative_to(root).as_posix() for path in expected if not path.is_file()}
    images = walk(root, IMAGE_SUFFIXES)
    assert images.names == [name for name in found.names if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES]
    assert images.irregular == found.irregular & set(images.names)
    assert names_below(root, paths) == found.names
    assert paths_below(root, found.names) == paths


def test_folders_named_in_other_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    for name in ("b.png", "in/a.png"):
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    for folder in (".", "./", "in/..", "./in//..", str(tmp_path), f"{tmp_path}/"):
        paths = walk_files(folder)[0]
        assert paths == [Path(folder) / "b.png", Path(folder) / "in/a.png"]
        assert names_below(folder, paths) == ["b.png", "in/a.png"]
    assert names_below("./in//", [Path("in/a.png")]) == ["a.png"]
    assert paths_below("/", ["etc/x.png"]) == [Path("/etc/x.png")]
    assert names_below("/", [Path("/etc/x.png")]) == ["etc/x.png"]


@given(st.lists(st.text(st.sampled_from("ab.-"), min_size=1, max_size=5).filter(str.strip), min_size=1, max_size=3))
@example(["a.b", "c"])
@example(["a.png.jpg"])
def test_a_suffix_is_cut_as_from_a_path(parts: list[str]) -> None:
    # What pathlib takes for the suffix of a name that ends with a dot depends on its version.
    if all(part.strip(".") and not part.endswith(".") for part in parts):
        name = "/".join(parts)
        assert cut_suffix(name) == without_suffix(PurePosixPath(name)).as_posix()


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and links as POSIX knows them")
def test_irregular_files_are_those_that_a_look_at_each_finds(tmp_path: Path) -> None:
    """In a folder of so many files that it is listed, in one of few, and in one that does not exist."""
    for folder, count in (("many", 60), ("few", 3)):
        (tmp_path / folder / "a folder.png").mkdir(parents=True)
        os.mkfifo(tmp_path / folder / "pipe.png")
        (tmp_path / folder / "gone.png").symlink_to("nowhere")
        (tmp_path / folder / "loop.png").symlink_to("loop.png")
        for k in range(count):
            (tmp_path / folder / f"{k}.png").write_bytes(b"x")
        (tmp_path / folder / "link.png").symlink_to("0.png")
    paths = [path for folder in ("many", "few") for path in (tmp_path / folder).iterdir()]
    paths += [tmp_path / "many/missing.png", tmp_path / "no folder/a.png", Path("missing.png"), Path("/missing.png")]
    paths += [tmp_path / "many" / ("x" * 300), tmp_path / "many/0.png/x.png"]
    assert irregular_files(paths) == {path for path in paths if file_kind(path) != "file"}
    assert len(irregular_files(paths)) == 2 * 4 + 6


def test_folders_are_listed_and_files_not_looked_up_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_dataset(tmp_path / "data", num_train=150, num_val=1)
    calls: Counter[str] = Counter()
    look_up = os.stat

    def count(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        calls[os.path.splitext(path)[1] if isinstance(path, str | Path) else ""] += 1
        return look_up(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", count)
    assert len(list_images(data / "images").images) == 151
    assert calls[".png"] == 0
    assert len(open_dataset(data).split("train")) == 150
    # Twenty of the images and of the masks, before their folder is listed; some of the name that both splits have.
    assert calls[".png"] <= 2 * 20 + 10
