"""Colors of figures: distinguished by everybody, seen on a photo, and clear where there is only background."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pixelwise.colors import FIGURE_COLORS, figure_colors, voc_color
from pixelwise.core import Prediction, Taxonomy
from pixelwise.data.formats.camvid import TAXONOMY as CAMVID
from pixelwise.data.formats.cityscapes import TAXONOMY as CITYSCAPES
from pixelwise.data.formats.voc import TAXONOMY as VOC
from pixelwise.images.legend import NOT_SCORED, legend_entries, with_legend

# Machado, Oliveira, Fernandes 2009, table 1, severity 1.0; for linear RGB.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}


def lab(colors: NDArray[np.float64], vision: str) -> NDArray[np.float32]:
    """Return the CIELAB coordinates (N, 3) of RGB colors 0..255 (N, 3), as seen with that vision."""
    share = colors / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ VISIONS[vision].T, 0, 1)
    encoded = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    return np.asarray(cv2.cvtColor(encoded.astype(np.float32)[None], cv2.COLOR_RGB2LAB)[0])


def least_distance(colors: NDArray[np.float64], vision: str) -> float:
    points = lab(colors, vision)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    return float(distances[np.triu_indices(len(points), 1)].min())


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize(("count", "distance"), [(4, 50), (8, 30), (12, 25), (20, 16), (28, 13)])
def test_colors_of_figures_are_distinct(count: int, distance: float, vision: str) -> None:
    # A difference of 2.3 is just noticed (Mahy et al. 1994).
    assert least_distance(np.array(FIGURE_COLORS[:count], float), vision) > distance


def test_colors_of_figures_are_seen_on_a_photo() -> None:
    lightness, a, b = lab(np.array(FIGURE_COLORS, float), "normal").T
    assert lightness.min() > 37
    assert lightness.max() < 94
    assert np.hypot(a, b).min() > 27


@pytest.mark.parametrize("taxonomy", [VOC, CAMVID, CITYSCAPES], ids=["voc", "camvid", "cityscapes"])
def test_published_palettes_stay_in_files_and_are_replaced_in_figures(taxonomy: Taxonomy) -> None:
    objects = [k for k in range(taxonomy.num_classes) if k not in taxonomy.background]
    figure = taxonomy.for_figures()
    assert figure.colors != taxonomy.colors
    assert least_distance(np.array([figure.colors[k] for k in objects], float), "deuteranopia") > 16
    assert (figure.names, figure.values, figure.ignored) == (taxonomy.names, taxonomy.values, taxonomy.ignored)
    mask = np.array([objects], np.uint8)
    colored = np.asarray(Prediction(mask, taxonomy, np.zeros((*mask.shape, 3), np.uint8)).colorize())
    assert [tuple(color) for color in colored[0].tolist()] == [taxonomy.colors[k] for k in objects]


@pytest.mark.parametrize(
    ("colors", "kept"),
    [
        ([(255, 0, 0), (0, 255, 0), (0, 0, 255)], True),
        ([(128, 0, 0), (0, 255, 0), (0, 0, 255)], False),
        ([(255, 0, 0), (250, 10, 0), (0, 0, 255)], False),
        # Alike without red and green.
        ([(190, 90, 60), (120, 160, 60), (0, 0, 255)], False),
    ],
)
def test_colors_of_ones_own_are_kept_if_they_can_be_seen(colors: list[tuple[int, int, int]], kept: bool) -> None:
    assert figure_colors(("a", "b", "c"), colors) == (tuple(colors) if kept else FIGURE_COLORS[:3])


def test_many_classes_keep_colors_that_differ() -> None:
    taxonomy = Taxonomy(tuple(f"class {k}" for k in range(150)))
    assert len(set(taxonomy.for_figures().colors)) == 150


@pytest.mark.parametrize("name", ["background", "Background", "_background_", "bg", "unlabeled", "void"])
def test_a_background_is_known_by_its_name(name: str) -> None:
    assert Taxonomy(("cat", name)).background == (1,)


def test_an_overlay_leaves_background_and_ignored_pixels_clear() -> None:
    photo = np.full((1, 4, 3), (200, 100, 50), np.uint8)
    prediction = Prediction(np.array([[0, 1, 2, 255]], np.uint8), VOC, photo)
    shown = np.asarray(prediction.overlay(0.5))[0].tolist()
    # Half of the photo, half of vermilion and sky blue.
    assert shown == [[200, 100, 50], [206, 97, 25], [143, 140, 142], [200, 100, 50]]
    assert VOC.colors[1] == voc_color(1) == (128, 0, 0)


def test_a_class_zero_that_is_no_background_is_drawn() -> None:
    photo = np.full((1, 1, 3), 100, np.uint8)
    assert np.asarray(Prediction(np.zeros((1, 1), np.uint8), CAMVID, photo).overlay()).tolist() == [[[156, 97, 50]]]


@pytest.mark.parametrize("size", [(20, 30), (60, 500)])
def test_a_legend_names_the_classes_that_occur(size: tuple[int, int]) -> None:
    mask = np.zeros(size, np.uint8)
    mask[0, :3] = 1, 15, 255
    taxonomy = VOC.for_figures()
    entries = legend_entries([mask], taxonomy)
    assert [name for name, _ in entries] == ["background", "aeroplane", "person", NOT_SCORED]
    sheet = with_legend(np.full((*size, 3), 7, np.uint8), mask, taxonomy)
    assert sheet.shape[1] == max(size[1], 200)
    assert (sheet[: size[0], : size[1]] == 7).all()
    below = sheet[size[0] :].reshape(-1, 3)
    for k, color in enumerate(taxonomy.colors):
        assert ((below == color).all(1).sum() >= 144) == (k in (0, 1, 15)), k
