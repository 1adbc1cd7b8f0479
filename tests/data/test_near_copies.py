"""Near-copies of training images in the validation split: other files of one photo, and frames of one drive."""

from __future__ import annotations

import io
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from helpers.scenes import drive, scene
from pixelwise.data import open_dataset
from pixelwise.data.check import check_dataset
from pixelwise.data.check.near_copies import MAX_DISTANCE
from pixelwise.data.perceptual_hash import perceptual_hash
from pixelwise.images import write_image, write_mask


def distance(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


def make_data(root: Path, splits: dict[str, dict[str, NDArray[np.uint8]]]) -> Path:
    for split, images in splits.items():
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for name, image in images.items():
            mask = (image[..., 0] > 128).astype(np.uint8)
            write_image(root / "images" / split / name, image)
            write_mask(root / "masks" / split / (name.split(".")[0] + ".png"), mask)
    (root / "classes.yaml").write_text("classes: [a, b]\n")
    return root


def warnings_of(root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    dataset = open_dataset(root)
    check_dataset(dataset, dataset.split("train"), dataset.split("val"))
    return capsys.readouterr().err


def test_the_hash_is_the_signs_of_the_lowest_frequencies() -> None:
    """The cosine transform by its definition; an image of 64 pixels is not resized."""
    image = scene(0, 64, 64)
    k, x = np.arange(16)[:, None], np.arange(64)[None]
    basis = np.cos(math.pi * (x + 0.5) * k / 64) * np.where(k == 0, math.sqrt(1 / 64), math.sqrt(2 / 64))
    frequencies = (basis @ image[..., 1].astype(np.float64) @ basis.T).ravel()
    expected = frequencies > np.median(frequencies[1:])
    expected[0] = False
    found = np.unpackbits(np.frombuffer(perceptual_hash(image), np.uint8)).astype(bool)
    # The bit of the median itself is left to rounding.
    assert (found != expected).sum() <= 1
    assert expected.sum() == 127


def test_files_of_one_photo_have_near_hashes_and_other_photos_far_ones() -> None:
    for seed in range(20):
        image = scene(seed, 288, 192)
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=50)
        half = cv2.resize(image, (144, 96), interpolation=cv2.INTER_AREA).astype(np.uint8)
        for copy in (np.asarray(Image.open(file)), half):
            assert distance(perceptual_hash(image), perceptual_hash(copy)) <= MAX_DISTANCE
        assert distance(perceptual_hash(image), perceptual_hash(scene(seed + 100, 288, 192))) > 3 * MAX_DISTANCE


def test_plain_and_tiny_images_have_no_perceptual_hash() -> None:
    assert perceptual_hash(np.full((64, 64, 3), 90, np.uint8)) == b""
    assert perceptual_hash(scene(0)[:20]) == b""


def test_another_file_of_a_training_image_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = {f"{chr(97 + k)}.png": scene(k) for k in range(8)}
    val = {"y.png": scene(50), "z.png": cv2.resize(scene(3), (48, 32), interpolation=cv2.INTER_AREA).astype(np.uint8)}
    line = warnings_of(make_data(tmp_path, {"train": train, "val": val}), capsys)
    assert "warning: split val: 1 of 2 images have a near-copy in train: 1 show the same (z.png ~ d.png)" in line
    assert "its score will flatter the model" in line


def test_frames_between_training_frames_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = {f"D{d}_{30 * t:05d}.png": drive(d, 3 * t) for d in (1, 2) for t in range(20)}
    val = {f"D1_{310 + t:05d}.png": drive(1, 31) + np.uint8(t) for t in range(5)}
    line = warnings_of(make_data(tmp_path, {"train": train, "val": val}), capsys)
    assert "split val: 5 of 5 images have a near-copy in train: 5 lie between two training frames of one" in line
    assert "(D1_00310 between D1_00300 and D1_00330)" in line
    assert "--data.hold_out with some of D1, D2" in line


def test_frames_of_another_drive_or_after_the_training_frames_are_not_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = {f"D{d}_{30 * t:05d}.png": drive(d, 3 * t) for d in (1, 2) for t in range(20)}
    val = {f"D1_{900 + t:05d}.png": drive(1, 100 + t) for t in range(5)}
    val |= {f"D3_{300 + t:05d}.png": drive(3, t) for t in range(5)}
    assert "near-copy" not in warnings_of(make_data(tmp_path, {"train": train, "val": val}), capsys)


def test_numbers_that_count_no_frames_are_not_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The cats and dogs of a folder are numbered by breed; two of a breed are no nearer than any two."""
    train = {f"breed{d}_{2 * t:05d}.png": scene(40 * d + t) for d in (1, 2) for t in range(20)}
    val = {f"breed1_{2 * t + 1:05d}.png": scene(500 + t) for t in range(5)}
    assert "near-copy" not in warnings_of(make_data(tmp_path, {"train": train, "val": val}), capsys)
