"""Lossy gray masks: a class between two others that fills no area is not lost in silence, and none is invented."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data import diagnose, open_dataset
from pixelwise.data.check.fix import write_fixed

SIZE = 96, 128
LINE = "lie between two classes and fill no area: "


def discs(seed: int) -> NDArray[np.uint8]:
    mask = np.zeros(SIZE, np.uint8)
    for x, y, radius in np.random.default_rng(seed).integers((0, 0, 6), (SIZE[1], SIZE[0], 16), (5, 3)).tolist():
        cv2.circle(mask, (x, y), radius, 255, -1)
    return mask


def bordered(seed: int) -> NDArray[np.uint8]:
    """A border of a pixel around each object."""
    mask = discs(seed)
    mask[(cv2.dilate(mask, np.ones((3, 3), np.uint8)) > 0) & (mask == 0)] = 128
    return mask


def crossed(seed: int) -> NDArray[np.uint8]:
    """Lines of two pixels on the ground."""
    mask, lines = discs(seed), np.zeros(SIZE, np.uint8)
    ends = np.random.default_rng(seed + 50).integers(0, (SIZE[1], SIZE[0]), (4, 2)).tolist()
    for one, other in zip(ends[::2], ends[1::2], strict=True):
        cv2.line(lines, one, other, 1, 2)
    mask[(lines > 0) & (mask == 0)] = 128
    return mask


def blurred(seed: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(cv2.resize(discs(seed), None, fx=0.5, fy=0.5), SIZE[::-1]), np.uint8)


def shrunk_boxes(seed: int) -> NDArray[np.uint8]:
    """Boxes at half the size: edges lie between two pixels, where all values are 128, or on one."""
    mask = np.zeros((2 * SIZE[0], 2 * SIZE[1]), np.uint8)
    for x, y, width, height in np.random.default_rng(seed).integers(0, (150, 100, 90, 80), (8, 4)).tolist():
        mask[y : y + height + 20, x : x + width + 20] = 255
    return np.asarray(cv2.resize(mask, SIZE[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def write(root: Path, masks: list[NDArray[np.uint8]], quality: int, classes: str = "") -> Path:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number, mask in enumerate(masks):
        image = np.random.default_rng(number).integers(0, 255, (*SIZE, 3)).astype(np.uint8)
        Image.fromarray(image).save(root / f"images/{number}.png")
        Image.fromarray(mask).save(root / f"masks/{number}.jpg", quality=quality)
    if classes:
        (root / "classes.yaml").write_text(classes)
    return root


def fixed(root: Path) -> tuple[str, list[NDArray[np.uint8]]]:
    """What the check says of lossy masks, and the masks of the copy in the order of their numbers."""
    diagnosis = diagnose(open_dataset(root, check=False))
    write_fixed(diagnosis, copy := root.with_name(f"{root.name} copy"))
    paths = sorted((copy / "masks").rglob("*.png"), key=lambda path: int(path.stem))
    (line,) = (str(finding) for finding in diagnosis.findings if finding.kind == "lossy masks")
    return line, [np.asarray(Image.open(path)) for path in paths]


@pytest.mark.parametrize("draw", [bordered, crossed])
@pytest.mark.parametrize("quality", [75, 92])
def test_a_thin_class_between_two_others_stays(
    draw: Callable[[int], NDArray[np.uint8]], quality: int, tmp_path: Path
) -> None:
    masks = [draw(seed) for seed in range(8)]
    line, copies = fixed(write(tmp_path / "data", masks, quality))
    assert LINE in line
    assert "or blurred" not in line
    values = np.unique(copies)
    assert len(values) == 3
    assert abs(int(values[1]) - 128) <= 2
    for mask, copy in zip(masks, copies, strict=True):
        labels = np.searchsorted(values, copy)
        for label, value in enumerate((0, 128, 255)):
            right = (labels == label) & (mask == value)
            assert right.sum() > 0.97 * ((labels == label) | (mask == value)).sum()


@pytest.mark.parametrize("draw", [discs, blurred])
@pytest.mark.parametrize("quality", [50, 75, 92])
def test_edges_are_no_class(draw: Callable[[int], NDArray[np.uint8]], quality: int, tmp_path: Path) -> None:
    line, copies = fixed(write(tmp_path / "data", [draw(seed) for seed in range(8)], quality))
    assert "fill no area" not in line
    assert np.unique(copies).tolist() == [0, 255]


def test_what_does_not_show_is_said_and_classes_yaml_decides(tmp_path: Path) -> None:
    masks = [shrunk_boxes(seed) for seed in range(8)]
    line, copies = fixed(write(tmp_path / "boxes", masks, 90))
    assert f"{LINE}either a thin class or blurred edges" in line
    assert "if 128 is a class, list it in classes.yaml with `value: 128`, or it is lost" in line
    assert np.unique(copies).tolist() == [0, 255]
    # Thin lines at a quality that takes most of their values from them.
    masks = [crossed(seed) for seed in range(8)]
    line, copies = fixed(write(tmp_path / "lines", masks, 45))
    assert f"{LINE}either a thin class or blurred edges" in line
    assert np.unique(copies).tolist() == [0, 255]
    names = "\n".join(f"  - {{name: c{value}, value: {value}}}" for value in (0, 128, 255))
    line, copies = fixed(write(tmp_path / "named", masks, 45, f"classes:\n{names}\nignore: []\n"))
    assert "or it is lost" not in line
    found = np.stack(copies)
    truth = np.stack(masks)
    assert ((found == 128) & (truth == 128)).sum() > 0.9 * (truth == 128).sum()
    assert ((found == 128) & (truth != 128)).sum() < 0.1 * (truth == 128).sum()


def test_masks_of_sixteen_bits_beside_lossy_ones(tmp_path: Path) -> None:
    """Their values lie outside of those of a JPEG."""
    root = write(tmp_path / "data", [discs(seed) for seed in range(4)], 90)
    for number in range(3):
        mask = np.array([0, 300, 1000], np.uint16)[discs(number) // 127]
        Image.fromarray(discs(number)).save(root / f"images/w{number}.png")
        Image.fromarray(mask).save(root / f"masks/w{number}.png")
    assert any(finding.severity == "error" for finding in diagnose(open_dataset(root)).findings)
