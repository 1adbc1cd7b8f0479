"""DeconvNet's crops and proposals: objects, boxes and merged scores against loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pixelwise.core import Window
from pixelwise.data.instances import (
    MIN_OVERLAP,
    InstanceCrops,
    bounding_box,
    box_iou,
    draw_overlapping,
    draw_region,
    enlarge,
)
from pixelwise.data.transforms import XY
from pixelwise.errors import InputError
from pixelwise.inference.proposals import ensemble, grid_proposals, proposal_scores
from pixelwise.models import create_model

IGNORE = 255
CPU = torch.device("cpu")


def keep(
    image: NDArray[np.uint8], mask: NDArray[Any], rng: np.random.Generator, center: XY | None = None
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    return image, mask


def scene() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Two objects of class 3, one of class 7, an ignored stripe, background; the image holds the mask's numbers."""
    mask = np.zeros((60, 80), np.uint8)
    mask[5:15, 5:25] = 3
    mask[30:42, 36:50] = 3
    mask[20:50, 50:70] = 7
    mask[:, 78:] = IGNORE
    return np.repeat(mask[..., None], 3, 2), mask


def test_one_object_at_a_time() -> None:
    image, mask = scene()
    seen = set()
    for seed in range(20):
        _, crop = InstanceCrops(keep, "ground_truth", IGNORE, side=64)(image, mask, np.random.default_rng(seed))
        assert crop.shape == (64, 64)
        classes = set(np.unique(crop)) - {0, IGNORE}
        assert len(classes) == 1, "the other objects are background"
        seen |= classes
        share = (crop == next(iter(classes))).mean()
        assert 0.55 < share < 0.9, "the object fills its box, enlarged by 1.2"
    assert seen == {3, 7}


def test_proposals_keep_all_labels_where_they_are() -> None:
    image, mask = scene()
    several = 0
    for seed in range(40):
        crop_image, crop = InstanceCrops(keep, "proposals", IGNORE, side=64)(image, mask, np.random.default_rng(seed))
        # Away from borders, where bilinear sampling mixes nothing, image and mask show the same place.
        same = crop_image[..., 0] == crop
        assert same.mean() > 0.75
        several += len(set(np.unique(crop)) - {0, IGNORE}) > 1
    assert several


def test_an_image_of_background_is_shown_whole() -> None:
    mask = np.zeros((10, 20), np.uint8)
    mask[:, :10] = IGNORE
    assert draw_region(mask, IGNORE, np.random.default_rng(0)) is None
    _, crop = InstanceCrops(keep, "ground_truth", IGNORE, side=20)(
        np.zeros((10, 20, 3), np.uint8), mask, np.random.default_rng(0)
    )
    assert (crop[:, :10] == IGNORE).all()
    assert (crop[:, 10:] == 0).all()


boxes = st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 30)] * 2).map(
    lambda n: Window(n[0], n[1], n[0] + n[2], n[1] + n[3])
)


@given(boxes, boxes)
def test_overlap_by_counting_pixels(a: Window, b: Window) -> None:
    canvas = np.zeros((2, 61, 61), bool)
    for layer, box in zip(canvas, (a, b), strict=True):
        layer[box.top : box.bottom, box.left : box.right] = True
    assert box_iou(a, b) == pytest.approx((canvas[0] & canvas[1]).sum() / (canvas[0] | canvas[1]).sum())
    assert bounding_box(canvas[0]) == a


@given(boxes, st.integers(0, 1000))
def test_drawn_boxes_overlap_by_half_and_stay_inside(box: Window, seed: int) -> None:
    drawn = draw_overlapping(box, (61, 61), np.random.default_rng(seed))
    assert box_iou(box, drawn) >= MIN_OVERLAP
    if min(box.size) >= 8:
        several = {draw_overlapping(box, (61, 61), np.random.default_rng([seed, n])) for n in range(4)}
        assert len(several - {box}) > 1, "boxes are drawn, not repeated"
    large = enlarge(drawn, (61, 61))
    assert min(large) >= 0
    assert max(large.bottom, large.right) <= 61
    assert large.top <= drawn.top < drawn.bottom <= large.bottom


@given(st.tuples(st.integers(1, 300), st.integers(1, 300)))
def test_the_grid_covers_every_pixel_at_every_scale(size: tuple[int, int]) -> None:
    for scale in (1.0, 0.6):
        covered = np.zeros(size, bool)
        for box in grid_proposals(size, (scale,)):
            assert min(box) >= 0
            covered[box.top : box.bottom, box.left : box.right] = True
        assert covered.all()


def test_scores_are_merged_by_their_maximum() -> None:
    torch.manual_seed(0)
    model = create_model("deconvnet", 4, tiny=True).eval()
    torch.nn.init.normal_(model.get_parameter("score.weight"))
    image = np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8)
    chosen = [Window(0, 0, 150, 200), Window(20, 30, 140, 160), Window(0, 0, 20, 20), Window(5, 80, 150, 200)]
    merged = proposal_scores(model, image, chosen, CPU, num_proposals=2)
    expected = np.zeros((4, 150, 200), np.float32)
    with torch.no_grad():
        for top, left, bottom, right in chosen[:2]:
            crop = torch.from_numpy(image[top:bottom, left:right].transpose(2, 0, 1)[None].copy())
            logits = model(crop).logits[0].numpy()
            for k in range(4):
                view = expected[k, top:bottom, left:right]
                view[logits[k] > view] = logits[k][logits[k] > view]
    np.testing.assert_allclose(merged, expected, atol=1e-4)
    assert (merged[:, :20, 30:] > 0).any()
    small = proposal_scores(model, image[:100], grid_proposals((100, 200)), CPU)
    assert (small > 0).any(), "an image below the least side is one large proposal itself"
    with pytest.raises(InputError, match="expected boxes inside the image of 150x200"):
        proposal_scores(model, image, [Window(0, 0, 151, 200)], CPU)


def test_the_ensemble_is_a_product_without_negative_scores() -> None:
    scores, others = np.array([[[2.0, 3.0]]], np.float32), np.array([[[-1.0, 4.0]]], np.float32)
    np.testing.assert_array_equal(ensemble(scores, others), [[[0.0, 12.0]]])
