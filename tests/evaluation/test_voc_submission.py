"""The result archive for PASCAL VOC's server: names, palette, same bytes again, and no file left after an error."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.errors import InputError, MaskError
from pixelwise.evaluation.voc_submission import write_voc_submission


def _mask(*values: int) -> np.ndarray:
    return np.resize(np.array(values, np.uint8), (4, 6))


def test_the_archive_is_the_devkits(tmp_path: Path) -> None:
    masks = {"2008_000006": _mask(0, 15), "2008_000008": _mask(20)}
    assert write_voc_submission(masks.items(), tmp_path / "results.tgz") == 2
    with tarfile.open(tmp_path / "results.tgz", "r:gz") as archive:
        assert archive.getnames() == [f"results/VOC2012/Segmentation/comp6_test_cls/{key}.png" for key in masks]
        for key, member in zip(masks, archive.getmembers(), strict=True):
            file = archive.extractfile(member)
            assert file is not None
            image = Image.open(file)
            assert image.mode == "P"
            np.testing.assert_array_equal(np.asarray(image), masks[key])
            assert (image.getpalette() or [])[3:6] == [128, 0, 0]
    write_voc_submission(masks.items(), tmp_path / "again.tar.gz")
    assert (tmp_path / "again.tar.gz").read_bytes() == (tmp_path / "results.tgz").read_bytes()


@pytest.mark.parametrize(
    ("pairs", "error", "words"),
    [
        ([("2008_000006", _mask(21))], MaskError, "2008_000006: expected ids 0 to 20, got 21 (24 px)"),
        ([("../x", _mask(0))], InputError, "../x: is not an image id"),
        ([("a", _mask(0)), ("a", _mask(0))], InputError, "a: is predicted twice"),
        ([("a", np.zeros((4, 6, 3), np.uint8))], MaskError, "a: expected class ids (H, W), got (4, 6, 3) uint8"),
        ([], InputError, "would hold no prediction"),
    ],
)
def test_a_wrong_archive_is_never_left(
    tmp_path: Path, pairs: list[tuple[str, np.ndarray]], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        write_voc_submission(pairs, tmp_path / "r.tgz")
    assert words in str(caught.value)
    with pytest.raises(InputError, match=r"ending in \.tgz or \.tar\.gz"):
        write_voc_submission(pairs, tmp_path / "r.zip")
    assert list(tmp_path.iterdir()) == []
