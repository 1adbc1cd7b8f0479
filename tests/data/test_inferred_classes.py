"""Classes of a folder without classes.yaml: which are inferred from the masks, and which masks are refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import pixelwise.data.inspection
import pixelwise.data.seen_masks
from pixelwise.data import diagnose, open_dataset
from pixelwise.data.dataset import Dataset
from pixelwise.data.mask_values import MaskValues, classes_and_mixtures, look_at_values
from pixelwise.data.seen_masks import look_at_masks
from pixelwise.errors import DatasetError
from pixelwise.images import read_mask_file


def _folder(root: Path, *masks: np.ndarray) -> Path:
    """A folder without classes.yaml: one image and mask per array, all in the split train."""
    for kind in ("images", "masks"):
        (root / kind / "train").mkdir(parents=True)
    for k, mask in enumerate(masks):
        Image.fromarray(np.full((*mask.shape[:2], 3), k, np.uint8)).save(root / f"images/train/{k:02d}.png")
        Image.fromarray(mask).save(root / f"masks/train/{k:02d}.png")
    return root


def _disc(side: int, radius: int, *, value: int = 1, center: int | None = None) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    cv2.circle(mask, (center or side // 2, side // 2), radius, value, -1)
    return mask


def _ids(dataset: Dataset, index: int = 0) -> set[int]:
    mask = dataset.split("train")[index].mask
    assert mask is not None
    return set(np.unique(mask).tolist())


@pytest.mark.parametrize("values", [(0, 255), (0, 1), (0, 7)])
def test_two_values_are_background_and_foreground(tmp_path: Path, values: tuple[int, int]) -> None:
    dataset = open_dataset(_folder(tmp_path, np.where(_disc(32, 8), *values[::-1]).astype(np.uint8)))
    assert dataset.taxonomy.names == ("background", "foreground")
    assert dataset.taxonomy.values == values
    assert dataset.taxonomy.ignored == ()
    assert _ids(dataset) == {0, 1}
    note = f"classes inferred from 1 masks: {values[0]} = background, {values[1]} = foreground; write classes.yaml"
    assert note in dataset.notes[0]


def test_values_of_all_masks_count(tmp_path: Path) -> None:
    """The last of forty masks holds a class of its own: a look at some of them would not find it."""
    masks = [_disc(16, 4)] * 39 + [_disc(16, 4, value=3)]
    dataset = open_dataset(_folder(tmp_path, *masks))
    assert dataset.taxonomy.names == ("class0", "class1", "class3")
    assert _ids(dataset, 39) == {0, 2}


def test_a_class_of_value_255_stays_a_class(tmp_path: Path) -> None:
    """Gray values 0, 128, 255, of which 255 covers 12 %: ignoring it would lose the class."""
    mask = _disc(64, 10, value=128, center=16)
    mask[40:60, 30:54] = 255
    dataset = open_dataset(_folder(tmp_path, mask))
    assert dataset.taxonomy.values == (0, 128, 255)
    assert dataset.taxonomy.ignored == ()


def test_a_ring_of_255_around_a_gray_class_stays_a_class(tmp_path: Path) -> None:
    """Optic disc and cup: the disc, 255, lies between the cup, 128, and the rest."""
    dataset = open_dataset(_folder(tmp_path, np.maximum(_disc(64, 16, value=255), 0) - 127 * _disc(64, 10)))
    assert dataset.taxonomy.values == (0, 128, 255)


def test_255_beside_objects_numbered_from_0_is_a_class_unless_it_is_a_border(tmp_path: Path) -> None:
    apart = _disc(64, 8, center=16)
    apart[24:40, 44:60] = 255
    assert open_dataset(_folder(tmp_path / "apart", apart)).taxonomy.values == (0, 1, 255)
    border = np.where(_disc(64, 12), 255, 0).astype(np.uint8)
    border[_disc(64, 9) > 0] = 1
    dataset = open_dataset(_folder(tmp_path / "border", border))
    assert dataset.taxonomy.values == (0, 1)
    assert dataset.taxonomy.ignored == (255,)
    assert "255, the border between them, is ignored" in dataset.notes[0]
    assert _ids(dataset) == {0, 1, 255}


def test_colors(tmp_path: Path) -> None:
    mask = np.zeros((16, 16, 3), np.uint8)
    mask[:4] = (255, 255, 0)
    dataset = open_dataset(_folder(tmp_path, mask, np.zeros((16, 16), np.uint8)))
    assert dataset.taxonomy.colors == ((0, 0, 0), (255, 255, 0))
    assert _ids(dataset, 0) == {0, 1}
    assert _ids(dataset, 1) == {0}


@pytest.mark.parametrize("interpolation", [cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_CUBIC])
def test_masks_that_were_resized_with_mixing_are_refused(tmp_path: Path, interpolation: int) -> None:
    mask = cv2.resize(_disc(200, 60, value=255), (64, 64), interpolation=interpolation)
    with pytest.raises(DatasetError) as caught:
        open_dataset(_folder(tmp_path, np.asarray(mask)))
    assert "has no classes.yaml" in caught.value.what
    assert "edges" in caught.value.what or "which drawn classes do not have" in caught.value.what


def test_antialiased_outlines_are_refused(tmp_path: Path) -> None:
    mask = _disc(64, 20, value=255)
    edge = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    mask[edge & (mask == 0)] = 63
    mask[edge & (mask == 255)] = 192
    with pytest.raises(DatasetError) as caught:
        open_dataset(_folder(tmp_path, mask))
    assert "63, 192 occur only along edges" in caught.value.what
    assert caught.value.fix.startswith("export the masks without antialiasing")


def test_masks_of_one_value_and_masks_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="the values 0: a single class"):
        open_dataset(_folder(tmp_path / "one", np.zeros((8, 8), np.uint8)))
    root = _folder(tmp_path / "bad", _disc(8, 2))
    (root / "masks/train/00.png").write_bytes(b"not an image")
    with pytest.raises(DatasetError, match="no mask could be read"):
        open_dataset(root)


def _drawn(rng: np.random.Generator, kind: str) -> np.ndarray:
    """A mask of five polygons of the values 0 to 4, or of gray levels; whole, antialiased, shrunk, of thin lines."""
    values = [0, 1, 2, 3, 4] if kind == "ids" else [0, 40, 90, 160, 255]
    mask = np.zeros((64, 64), np.uint8)
    for value in rng.permutation(values)[: rng.integers(1, 6)]:
        points = [rng.integers(0, 64, (4, 2)).astype(np.int32)]
        if kind == "lines":
            cv2.polylines(mask, points, isClosed=False, color=int(value))
        else:
            cv2.fillPoly(mask, points, int(value), lineType=cv2.LINE_AA if kind == "antialiased" else cv2.LINE_8)
    if kind != "shrunk":
        return mask
    return np.asarray(Image.fromarray(mask).resize((32, 32), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("kind", ["ids", "grays", "lines", "antialiased", "shrunk"])
def test_looking_at_some_masks_tells_classes_from_mixtures_as_looking_at_all(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(3)
    for number in range(12):
        folder = tmp_path / str(number)
        folder.mkdir()
        everything = MaskValues()
        paths = []
        for k in range(40):
            # A few masks are broken, or none.
            mask = _drawn(rng, kind if k < rng.integers(0, 40) else "ids")
            paths.append(folder / f"{k}.png")
            Image.fromarray(mask).save(paths[-1])
            everything.add(look_at_values(mask))
        found, seen = look_at_masks(paths)
        assert found.counts() == everything.counts()
        assert classes_and_mixtures(found) == classes_and_mixtures(everything)
        assert seen.keys() == set(paths)


def test_masks_that_show_the_classes_are_decoded_once_by_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred masks of three values: apart from the 24 whose shapes are looked at, few are read again."""
    root = _folder(tmp_path, *[_disc(32, 8, center=8) + _disc(32, 4, value=2, center=24) for _ in range(100)])
    decoded: Counter[Path] = Counter()
    read = read_mask_file

    def counted(path: Path, *, by_color: bool = False, lossy: bool = False) -> Any:
        decoded[path] += 1
        return read(path, by_color=by_color, lossy=lossy)

    for module in (pixelwise.data.inspection, pixelwise.data.seen_masks):
        monkeypatch.setattr(module, "read_mask_file", counted)
    dataset = open_dataset(root)
    plain = {row.item.key: row.pixels for row in diagnose(dataset).look.found["train"]}
    assert len(decoded) == 100
    assert sum(decoded.values()) <= 100 + 25 + 12
    # A file that was changed since is read again.
    Image.fromarray(_disc(32, 12)).save(root / "masks/train/01.png")
    changed = {row.item.key: row.pixels for row in diagnose(dataset).look.found["train"]}
    assert [key for key in plain if plain[key] != changed[key]] == ["01"]


def test_the_error_of_many_mixed_values_is_short(tmp_path: Path) -> None:
    mask = np.full((64, 64), 40, np.uint8)
    for center in range(8, 64, 16):
        cv2.circle(mask, (center, 30), 6, 200, -1, cv2.LINE_AA)
    assert len(np.unique(mask)) > 16
    with pytest.raises(DatasetError, match="occur only along edges") as caught:
        open_dataset(_folder(tmp_path, mask))
    assert len(f"{caught.value.what}; fix: {caught.value.fix}") < 400
