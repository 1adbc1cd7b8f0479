"""Folders of annotation programs with damaged files, and folders of pairs with odd names."""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from fuzz.damage import damaged
from fuzz.folders import NAMES
from fuzz.harness import Attempt
from helpers.overlaps import write_overlaps
from pixelwise.core import Taxonomy
from pixelwise.data import open_dataset
from pixelwise.data.conversion import TARGETS, convert_dataset
from pixelwise.data.dataset import Dataset, Item, Split

# What may stand in JSON where a number, a text or a list is expected.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 255, 256, 2**31, 2**63, 2**64, 10**30, -(10**30), 0.5, -0.0, 1e300, 1e-300,
    float("nan"), float("inf"), "", "a", "ignored", "background", "../x.png", "/etc/passwd", "a.png", "\0", "\x1b[2J",
    "\ud800", "x" * 5000, "9" * 5000, [], [[]], [1], [1, 2], [-1, 5], [[1, 2, 3]], [[0, 0, 9, 0, 9, 9]],
    [[0, 0, 1e9, 0, 9, 9]], [[0, 0], [5, 5]], ["a"], {}, {"size": [9, 9], "counts": [81]},
    {"size": [9, 9], "counts": "T2" + "o" * 300}, {"size": [10**9, 10**9], "counts": [1]}, {"a": 1},
)  # fmt: skip
WORDS = ("", "_mask", "_label", "_GT", "-seg", "_1stHO", "_sat", "mask", " m")
MULTILABEL_TARGETS = ("folder", "npy", "coco", "coco-rle", "labelme", "cvat", "label-studio", "supervisely", "yolo")
FOLDERS = ("", "images", "masks", "labels", "gt", "train", "val", "test/images", "train_masks", "x/y", "p1", "p2")


@cache
def _made() -> Path:
    """Return a folder with a tiny dataset in every format, which lasts as long as the process."""
    root = Path(tempfile.mkdtemp(prefix="fuzz-formats-"))
    rng = np.random.default_rng(0)
    for name, names in (("three", ("background", "disc", "bar")), ("two", ("background", "disc"))):
        ignored = (255,) if name == "three" else ()
        taxonomy = Taxonomy(names, ignored=ignored)
        items = []
        for key in ("a", "b"):
            mask = np.kron(rng.choice([*range(len(names)), 0, *ignored], (3, 4)), np.ones((5, 4))).astype(np.uint8)
            mask[rng.random(mask.shape) < 0.1] = 1
            for kind, pixels in (("images", rng.integers(0, 256, (*mask.shape, 3)).astype(np.uint8)), ("masks", mask)):
                (root / name / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / name / kind / f"{key}.png")
            items.append(Item(key, root / name / f"images/{key}.png", root / name / f"masks/{key}.png"))
        dataset = Dataset("made", root / name, taxonomy, {"train": Split("train", items, taxonomy)})
        for target in TARGETS:
            # One mask per object is of one class.
            if (target == "objects") == (name == "two"):
                convert_dataset(dataset, target, root / target)
    overlaps = open_dataset(write_overlaps(root / "overlaps", 2, 1))
    for target in MULTILABEL_TARGETS:
        convert_dataset(overlaps, target, root / f"overlaps-{target}")
    return root


def _mutate(rng: Random, data: Any, depth: int = 0) -> Any:
    """Return JSON data with one node replaced, removed or repeated."""
    if isinstance(data, dict | list) and data and (depth < 1 or rng.random() < 0.85):
        keys = list(data) if isinstance(data, dict) else list(range(len(data)))
        key = rng.choice(keys)
        if rng.random() < 0.06:
            if isinstance(data, dict):
                return {name: value for name, value in data.items() if name != key}
            return rng.choice([data[:key], data + data, data[::-1]])
        if isinstance(data, dict):
            return {**data, key: _mutate(rng, data[key], depth + 1)}
        return [*data[:key], _mutate(rng, data[key], depth + 1), *data[key + 1 :]]
    return rng.choice(VALUES)


def _read_all(root: Path) -> dict[str, Any]:
    """Open a dataset and read every sample, by split and key."""
    found: dict[str, Any] = {}
    for name, split in open_dataset(root).splits.items():
        found |= {f"{name} {item.key}": split[k] for k, item in enumerate(split.items)}
    return found


def annotation_case(rng: Random, folder: Path) -> Attempt:
    """Read a dataset of a random format of which a file is damaged, missing or in another place."""
    target = rng.choice([*sorted(TARGETS), *(f"overlaps-{name}" for name in MULTILABEL_TARGETS)])
    root = folder / "data"
    shutil.copytree(_made() / target, root)
    texts = sorted(path for path in root.rglob("*") if path.suffix in (".json", ".xml", ".txt", ".yaml"))
    files = sorted(path for path in root.rglob("*") if path.is_file())
    expected = _read_all(_made() / target)
    is_whole = False
    match rng.randrange(8):
        case 0:
            is_whole = True
        case 1:
            path = rng.choice(files)
            path.write_bytes(damaged(path.read_bytes(), rng))
        case 2:
            rng.choice(files).unlink()
        case 3:
            path = rng.choice(files)
            path.rename(path.with_name(rng.choice(("x", "b", "classes.json", "a.png", "annotations.xml", "x.json"))))
        case 4:
            (root / "classes.yaml").unlink()
        case _:
            path = rng.choice([p for p in texts if p.suffix == ".json"] or texts or files)
            if path.suffix == ".json":
                text = json.dumps(_mutate(rng, json.loads(path.read_text())))
                path.write_bytes(text.encode("utf-8", "surrogateescape"))
            else:
                path.write_bytes(damaged(path.read_bytes(), rng))

    def judge(found: dict[str, Any]) -> None:
        for key, sample in found.items():
            assert sample.mask is not None
            assert sample.mask.shape[-2:] == sample.image.shape[:2]
            if is_whole:
                np.testing.assert_array_equal(sample.mask, expected[key].mask)
        assert not is_whole or found.keys() == expected.keys()

    return Attempt(partial(_read_all, root), judge, is_good=is_whole)


def pairs_case(rng: Random, folder: Path) -> Attempt:
    """Open a folder of images and masks under random names: each file is in one pair, or the folder is refused."""
    root = folder / "data"
    root.mkdir()
    sides = [(rng.choice(FOLDERS), rng.choice(WORDS), rng.choice((".png", ".jpg", ".gif", ".npy", ""))) for _ in "12"]
    if rng.random() < 0.3:
        sides.append((rng.choice(FOLDERS), rng.choice(WORDS), ".png"))
    names = [f"{rng.choice(NAMES)[:40]}{k}" for k in range(rng.randrange(1, 6))]
    # An image of 42 pixels has no more values than a mask may have.
    size = rng.choice(((6, 7), (12, 16)))
    for number, (place, word, suffix) in enumerate(sides):
        for k, name in enumerate(names):
            if rng.random() < 0.08:
                continue
            path = root / place / f"{name}{word}{suffix}".lstrip(".")
            path.parent.mkdir(parents=True, exist_ok=True)
            top = 256 if number == 0 else rng.choice((2, 2, 2, 3))
            pixels = np.random.default_rng(k).integers(0, top, size).astype(np.uint8)
            if suffix == ".npy":
                np.save(path, pixels)
            else:
                kind = {".jpg": "JPEG", ".gif": "GIF"}.get(suffix, "PNG")
                Image.fromarray(pixels).save(path, format=kind)

    def judge(dataset: Dataset) -> None:
        items = [item for split in dataset.splits.values() for item in split.items]
        files = [path for item in items for path in (item.image, item.mask)]
        assert len(set(files)) == 2 * len(items), "a file is in two pairs"
        for item in items:
            assert item.mask is not None
            # The names of a pair have the same beginning, which ends in their number.
            shared = [name for name in names if all(name.lstrip(".") in path.name for path in (item.image, item.mask))]
            assert shared, item

    return Attempt(partial(open_dataset, root), judge)
