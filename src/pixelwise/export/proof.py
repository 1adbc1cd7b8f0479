"""Compare an exported network with its source on images of five odd sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputError, size_text
from ..images import PixelFormat, read_image
from ..inference.certainty import certainty_of
from ..inference.exported import ExportedSegmenter
from ..inference.segmenter import Segmenter

SIZES = ((1, 1), (33, 47), (97, 161), (251, 129), (333, 417))
"""Heights and widths of the images."""
MAX_DIFFERENCE = 0.01
"""Largest difference of probabilities. Of one network in two libraries they differ by 1e-6 to 1e-3, the more the larger
its logits are; with a grid that is off by a fraction of a pixel they differ by 0.1 and more."""


@dataclass(frozen=True)
class ParityRow:
    """One image.

    size        (height, width)
    agreement   share of pixels with equal labels
    wrong       pixels with another label, although the source prefers its own by more than `MAX_DIFFERENCE`
    difference  largest difference of probabilities; None for a graph that computes labels
    """

    size: tuple[int, int]
    agreement: float
    wrong: int
    difference: float | None


def make_images(pixels: PixelFormat, photos: Sequence[NDArray[Any]] = ()) -> list[NDArray[Any]]:
    """Return images of `SIZES`, cut from photos in turn and resized; of other pixel formats, smooth noise.

    photos  images (H, W, C) of the pixel format; a photo of the package for ordinary images if there are none
    """
    if not photos and pixels.is_rgb:
        with resources.as_file(resources.files(__package__) / "photo.jpg") as path:
            photos = [read_image(path)]
    rng = np.random.default_rng(0)
    images = []
    for n, (height, width) in enumerate(SIZES):
        if photos:
            photo = photos[n % len(photos)]
        else:
            low, high = pixels.limits.T
            photo = low + (high - low) * rng.random((max(height // 16, 1), max(width // 16, 1), pixels.num_channels))
        resized = cv2.resize(photo.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        images.append(resized.reshape(height, width, pixels.num_channels).astype(pixels.dtype))
    return images


def compare(source: Segmenter, exported: ExportedSegmenter, images: Sequence[NDArray[Any]]) -> list[ParityRow]:
    """Label each image by both, without CRF and temperature."""
    rows = []
    for image in images:
        with torch.inference_mode():
            ours, theirs = (
                model.compute(
                    image, tile=None, source=f"{source.network} on a test image of {size_text(image.shape[:2])}"
                )
                for model in (source, exported)
            )
            labels, probs = ours.labels(), ours.probabilities()
        differs = labels != theirs.labels()
        wrong = differs & (margins(source, probs) > MAX_DIFFERENCE)
        has_probs = exported.info.output != "labels"
        difference = float(np.abs(probs - theirs.probabilities()).max()) if has_probs else None
        size = image.shape[0], image.shape[1]
        rows.append(ParityRow(size, 1 - float(differs.mean()), int(wrong.sum()), difference))
    return rows


def margins(source: Segmenter, probs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how sure the source is of each label: the distance to the second class, or to the threshold."""
    if source.taxonomy.multilabel:
        return np.asarray(np.abs(probs - np.array(source.thresholds)[:, None, None]), np.float32)
    return certainty_of(probs).margin


def check_parity(rows: Sequence[ParityRow], subject: str) -> None:
    """Raise InputError for an exported network whose answers are not those of its source."""
    for row in rows:
        difference = row.difference or 0.0
        if row.wrong or not difference <= MAX_DIFFERENCE:
            what = (
                f"differs from its source on an image of {size_text(row.size)}: {row.wrong} labels are wrong, "
                f"probabilities differ by up to {difference:.2g}"
            )
            raise InputError(
                subject,
                what,
                "nothing was written; try another --format or --output, or --weights float32, and report it",
            )


def parity_dict(rows: Sequence[ParityRow], runtime: str) -> dict[str, Any]:
    """Return the table as it is stored in the file."""
    return {"runtime": runtime, "source": f"torch {torch.__version__}", "images": [asdict(row) for row in rows]}
