"""SBD in its own .mat files, written by SciPy."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest

from helpers.annotated_folders import make_photo as _photo
from helpers.annotated_folders import read_mask_of as _mask
from helpers.annotated_folders import write_content as _write
from pixelwise.data import open_dataset
from pixelwise.data.formats.sbd import SbdDrawing
from pixelwise.errors import MaskError

# What scipy.io.savemat 1.17.1 writes of {"GTcls": {"Boundaries": ..., "Segmentation": the array below, ...}}, with
# do_compression=True and 20 sparse boundaries as SBD has them, and without.
MAT = (
    "TUFUTEFCIDUuMCBNQVQtZmlsZSBQbGF0Zm9ybTogcG9zaXgsIENyZWF0ZWQgb246IFN1biBOb3YgMjkgMDY6MDU6MjMgMjAyNgAA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABSU0PAAAA1gAAAHic42NgYPDgYGBgA9JA"
    "ioGJAQJYoXxGJAwScw9JzikGs1kYhKDiZkDslF+al5JYlJlaDDWAITg1PTc1rySxJDM/DyLinFiSmp4PUhNQlFoMlAOK8QGxATvC"
    "fkY0+0WQ7GeAqg9gQKhnRXIbiM8MxcjmwGgBBkzAOWruqLmj5o6aO4DmVqCZy0zAXB4oGySGXF4LoIkzQ+2RgNv6wR6dHorhNWou"
    "xNwIJHM5kfTB7GFHMheUHpSR+EDAz8+PQTBAalxovYzHfJibEeYzMzDyizAAAGGQJjg="
)
PLAIN_MAT = (
    "TUFUTEFCIDUuMCBNQVQtZmlsZSBQbGF0Zm9ybTogcG9zaXgsIENyZWF0ZWQgb246IFN1biBOb3YgMjkgMDY6MDU6MjMgMjAyNgAA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABSU0OAAAAUAEAAAYAAAAIAAAAAgAAAAAA"
    "AAAFAAAACAAAAAEAAAABAAAAAQAAAAUAAABHVGNscwAAAAUABAASAAAAAQAAADYAAABCb3VuZGFyaWVzAAAAAAAAAABTZWdtZW50"
    "YXRpb24AAAAAAABDYXRlZ29yaWVzUHJlc2VudAAAAA4AAAA4AAAABgAAAAgAAAAGAAAAAAAAAAUAAAAIAAAAAQAAAAEAAAABAAAA"
    "AAAAAAkAAAAIAAAAAAAAAAAA8D8OAAAAWAAAAAYAAAAIAAAACQAAAAAAAAAFAAAACAAAAAUAAAAHAAAAAQAAAAAAAAACAAAAIwAA"
    "AAEAAAAAAAAAAAAADw8PAAAPDw8AAA8PDwAADw8PAAAAAAAUAAAAAAAOAAAAMAAAAAYAAAAIAAAACQAAAAAAAAAFAAAACAAAAAMA"
    "AAABAAAAAQAAAAAAAAACAAMAAQ8UAA=="
)
SEGMENTATION = np.zeros((5, 7), np.uint8)
SEGMENTATION[1:4, 2:6], SEGMENTATION[0, 0], SEGMENTATION[4, 6] = 15, 1, 20


@pytest.mark.parametrize("folder", ["", "dataset", "benchmark_RELEASE/dataset"])
@pytest.mark.parametrize("mat", [MAT, PLAIN_MAT])
def test_sbd_as_it_is_distributed(tmp_path: Path, folder: str, mat: str) -> None:
    for key, split in (("2008_000008", "train"), ("2008_000015", "val")):
        _photo(tmp_path / folder / f"img/{key}.jpg", (7, 5))
        (tmp_path / folder / "cls").mkdir(exist_ok=True)
        (tmp_path / folder / f"cls/{key}.mat").write_bytes(base64.b64decode(mat))
        _write(tmp_path / folder / f"{split}.txt", f"{key}\n")
    dataset = open_dataset(tmp_path)
    assert (dataset.name, list(dataset.splits), dataset.taxonomy.num_classes) == ("sbd", ["train", "val"], 21)
    np.testing.assert_array_equal(_mask(tmp_path, "val"), SEGMENTATION)


def test_damaged_mat_files_are_refused_in_one_line(tmp_path: Path) -> None:
    path, rng = tmp_path / "a.mat", np.random.default_rng(0)
    refused = 0
    for number in range(300):
        data = bytearray(base64.b64decode((MAT, PLAIN_MAT)[number % 2]))
        data[int(rng.integers(124, len(data)))] = int(rng.integers(256))
        path.write_bytes(data[: int(rng.integers(len(data)))] if number % 5 == 0 else data)
        try:
            SbdDrawing(path).read()
        except MaskError as error:
            assert re.fullmatch(r".*a\.mat: [^\n]{9,200}; fix: .*", str(error))  # noqa: PT017, damage may be harmless
            refused += 1
    assert refused > 100
