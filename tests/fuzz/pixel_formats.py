"""Images of other pixel formats, and masks of several labels per pixel: whole, damaged, and other than declared."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from fuzz.damage import damaged
from fuzz.harness import Attempt
from helpers.overlaps import write_overlaps
from pixelwise.core import Sample
from pixelwise.data import open_dataset

CLASSES = "classes: [a, b]\n"


class Part(NamedTuple):
    """A file of an image: its numbers (H, W, C), how they are declared, and where the file lies."""

    numbers: NDArray[Any]
    declared: dict[str, Any]
    path: Path


def _numbers(rng: Random, size: tuple[int, int], num_channels: int) -> tuple[NDArray[Any], dict[str, Any]]:
    """Return integers of 1 to 16 bits with the largest among them, or floats in a range, and their declaration."""
    noise = np.random.default_rng(rng.getrandbits(32))
    shape = *size, num_channels
    if rng.random() < 0.3:
        low, high = rng.choice(((0, 1), (-20, 120), (-1.5, 1e6), (1e-9, 2e-9)))
        numbers = noise.uniform(low, high, shape).astype(rng.choice((np.float32, np.float64)))
        # Float32 may round beyond the range.
        return np.clip(numbers, np.float32(low), np.float32(high)), {"range": [low, high]}
    bits = rng.randrange(1, 17)
    numbers = noise.integers(0, 2**bits, shape)
    numbers[0, 0, 0] = 2**bits - 1
    return numbers.astype(np.uint8 if bits <= 8 else np.uint16), {"bits": bits}


def _write(rng: Random, part: Part) -> Path:
    """Write the numbers as npy, PNG or TIFF, and return the file."""
    numbers, channels = part.numbers, part.numbers.shape[2]
    kinds = ["npy"]
    if channels in (1, 3) and numbers.dtype.kind == "u" and not (channels == 3 and numbers.dtype == np.uint16):
        kinds.append("png")
    if numbers.dtype != np.float64:
        kinds.append("tif")
    kind = rng.choice(kinds)
    path = part.path.with_name(f"{part.path.name}.{kind}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "png":
        Image.fromarray(numbers[..., 0] if channels == 1 else numbers).save(path)
    elif kind == "npy":
        forms = [
            numbers,
            numbers.transpose(2, 0, 1),
            np.asfortranarray(numbers),
            numbers.astype(numbers.dtype.newbyteorder()),
        ]
        np.save(path, rng.choice([*forms, numbers[..., 0]] if channels == 1 else forms))
    else:
        options: dict[str, Any] = rng.choice(({}, {"compression": "zlib"}, {"tile": (16, 16)}, {"byteorder": ">"}))
        if channels == 1:
            tifffile.imwrite(path, numbers[..., 0], photometric="minisblack", **options)
        elif rng.random() < 0.5:
            tifffile.imwrite(path, numbers, photometric="minisblack", planarconfig="contig", **options)
        else:
            planes = np.ascontiguousarray(numbers.transpose(2, 0, 1))
            tifffile.imwrite(path, planes, photometric="minisblack", planarconfig="separate", **options)
    return path


def _read(root: Path) -> list[Sample]:
    return [sample for split in open_dataset(root).splits.values() for sample in split]


def pixels_case(rng: Random, folder: Path) -> Attempt:
    """Read images of one or two files with declared numbers: exactly, or, where they are others, not at all."""
    root = folder / "data"
    size = rng.randrange(9, 24), rng.randrange(9, 24)
    counts = [rng.choice((1, 2, 3, 5, 7)) for _ in range(rng.choice((1, 1, 2)))]
    places = [root / "images/train/a", root / rng.choice(("depth/train/a", "images/train/a_x"))]
    parts = []
    for number, (count, place) in enumerate(zip(counts, places, strict=False)):
        numbers, meaning = _numbers(rng, size, count)
        where = {} if not number else {"folder": "depth"} if "depth" in place.parts else {"suffix": "_x"}
        names = [f"c{number}{k}" for k in range(count)]
        parts.append(Part(numbers, {"channels": names, **meaning, **where}, place))
    files = [_write(rng, part) for part in parts]
    (root / "masks/train").mkdir(parents=True)
    mask = np.arange(size[0] * size[1]).reshape(size) % 2
    Image.fromarray(mask.astype(np.uint8)).save(root / "masks/train/a.png")
    declared = [dict(part.declared) for part in parts]
    wrong = rng.choice(("", "", "damage", "channels", "bits", "text"))
    chosen = rng.randrange(len(parts))
    if wrong == "damage":
        files[chosen].write_bytes(damaged(files[chosen].read_bytes(), rng))
    elif wrong == "channels":
        declared[chosen]["channels"] = [*declared[chosen]["channels"], "more"]
    elif wrong == "bits":
        # Fewer than are in use, or a range that the numbers leave.
        number = declared[chosen].pop("bits", None)
        limits = declared[chosen].pop("range", [0, 0])
        declared[chosen] |= {"range": [limits[0] - 2, limits[0] - 1]} if number in (None, 1) else {"bits": number - 1}
    # JSON is YAML.
    text = f"{CLASSES}images: {json.dumps({'parts': declared})}\n"
    data = damaged(text.encode(), rng) if wrong == "text" else text.encode()
    (root / "classes.yaml").write_bytes(data)

    def judge(samples: list[Sample]) -> None:
        assert wrong not in ("channels", "bits"), "other numbers than declared were read"
        for sample in samples:
            if wrong == "":
                expected = np.concatenate([part.numbers.astype(np.float64) for part in parts], axis=2)
                tolerance = 1e-6 if any("range" in part.declared for part in parts) else 0
                np.testing.assert_allclose(sample.image.astype(np.float64), expected, rtol=tolerance)
                np.testing.assert_array_equal(sample.mask, mask)

    return Attempt(partial(_read, root), judge, is_good=wrong == "")


def overlaps_case(rng: Random, folder: Path) -> Attempt:
    """Read masks of several labels per pixel of which a file is damaged, missing, of another size or name."""
    root = write_overlaps(folder / "data", 2, 1, rng.choice(("folder", "suffix", "array")))
    expected = [sample.mask for sample in _read(root)]
    path = rng.choice(sorted(path for path in (root / "masks").rglob("*") if path.is_file()))
    wrong = rng.choice(("", "damage", "size", "name", "missing", "values", "text"))
    if wrong == "damage":
        path.write_bytes(damaged(path.read_bytes(), rng))
    elif wrong == "missing":
        path.unlink()
    elif wrong == "name":
        path.rename(path.with_name(rng.choice(("x.png", "ignore.png", "bar.png", "disc.npy", "p0_disc.png", "p0.png"))))
    elif wrong == "text":
        (root / "classes.yaml").write_bytes(damaged((root / "classes.yaml").read_bytes(), rng))
    elif wrong and path.suffix == ".npy":
        masks = np.load(path)
        np.save(path, masks[:, 1:] if wrong == "size" else masks * 3)
    elif wrong:
        shape = (39, 48) if wrong == "size" else (40, 48)
        Image.fromarray(np.full(shape, 1 if wrong == "size" else 3, np.uint8)).save(path)

    def judge(samples: list[Sample]) -> None:
        assert wrong not in ("size", "values"), "another mask than declared was read"
        for number, sample in enumerate(samples):
            assert sample.mask is not None
            assert sample.mask.shape[-2:] == sample.image.shape[:2]
            if wrong == "":
                np.testing.assert_array_equal(sample.mask, expected[number])

    return Attempt(partial(_read, root), judge, is_good=wrong == "")
