"""Upsampling and argmax in one pass: the labels of the whole logits, by NumPy and by compiled loops, at any size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pixelwise.core import LowResLogits, Upsample
from pixelwise.inference import argmax_loops, argmax_numpy
from pixelwise.inference.argmax_numpy import axis_of
from pixelwise.inference.label_map import BLOCK, argmax_upsampled, as_batch, label_map, low_res_logits, probabilities
from pixelwise.models import create_model
from pixelwise.nn.upsampling import AlignedBilinear, Bilinear, BilinearByFactor, Identity, TransposedBilinear


def by_hand(low_res: LowResLogits, size: tuple[int, int]) -> NDArray[np.float64]:
    """Each pixel from the interpolation table, in plain loops over float64 numbers."""
    scores = low_res.logits[0].double().numpy()
    (rows, row_weights), (columns, column_weights) = (
        low_res.upsample.interpolation_table(cells, pixels)
        for cells, pixels in zip(scores.shape[1:], size, strict=True)
    )
    full = np.zeros((len(scores), *size))
    for y in range(size[0]):
        for x in range(size[1]):
            for i in range(2):
                for j in range(2):
                    weight = float(row_weights[y, i]) * float(column_weights[x, j])
                    full[:, y, x] += weight * scores[:, rows[y, i], columns[x, j]]
    return full


def assert_same_but_for_ties(labels: NDArray[Any], full: NDArray[Any], *, ties: bool = False) -> None:
    """`ties` expects many of them."""
    chosen = np.take_along_axis(full, labels[None].astype(np.int64), 0)[0]
    assert (full.max(0) - chosen).max() < 1e-5
    assert ties or (labels == full.argmax(0)).mean() >= 0.9999


def labels_of_both_forms(low_res: LowResLogits, size: tuple[int, int]) -> NDArray[Any]:
    """The labels by NumPy and by compiled loops, which are the same bits."""
    scores = low_res.logits[0].numpy()
    tables = (low_res.upsample.interpolation_table(*sides) for sides in zip(scores.shape[1:], size, strict=True))
    rows, columns = map(axis_of, tables)
    labels = argmax_numpy.argmax_upsampled(scores, rows, columns)
    compiled = argmax_loops.argmax_upsampled(np.ascontiguousarray(scores.transpose(1, 2, 0)), rows, columns)
    assert labels.dtype == compiled.dtype
    np.testing.assert_array_equal(labels, compiled)
    return labels


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 4, 3), (4, 1, 1)])
def test_mirrored_images_become_a_batch(shape: tuple[int, int, int]) -> None:
    image = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    batch = as_batch(image[::-1, ::-1], torch.device("cpu"))
    assert batch.tolist() == [image[::-1, ::-1].transpose(2, 0, 1).tolist()]


@given(
    st.sampled_from(
        [
            Bilinear(),
            Bilinear(align_corners=True),
            BilinearByFactor(3),
            TransposedBilinear(8, 4, 3),
            TransposedBilinear(4, 2, 0),
            TransposedBilinear(3, 2, 1),
            AlignedBilinear(3),
        ]
    ),
    st.integers(1, 20),
    st.integers(2, 8),
    st.integers(2, 8),
    st.integers(0, 2**31),
)
def test_labels_are_those_of_the_interpolation_table_by_hand(
    upsample: Upsample, num_classes: int, height: int, width: int, seed: int
) -> None:
    factor = getattr(upsample, "stride", 3)
    size = (factor * (height - 1) + 1, factor * (width - 1))
    scores = torch.randn(1, num_classes, height, width, generator=torch.Generator().manual_seed(seed))
    low_res = LowResLogits(scores, upsample)
    labels = labels_of_both_forms(low_res, size)
    assert labels.shape == size
    assert labels.dtype == np.uint8
    assert_same_but_for_ties(labels, by_hand(low_res, size))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**31))
def test_any_size_from_any_size(height: int, width: int, rows: int, columns: int, seed: int) -> None:
    """Enlarged, reduced and one pixel wide, with areas of one class and ties between classes."""
    scores = torch.randint(0, 3, (1, 4, height, width), generator=torch.Generator().manual_seed(seed)).float()
    labels = labels_of_both_forms(LowResLogits(scores, Bilinear()), (rows, columns))
    assert_same_but_for_ties(labels, by_hand(LowResLogits(scores, Bilinear()), (rows, columns)), ties=True)


def test_pixels_that_no_logit_reaches_have_the_first_class() -> None:
    """A transposed convolution of kernel 4 and stride 2 on 3 logits ends at pixel 8; the sums beyond are zeros."""
    scores = torch.zeros(1, 3, 3, 3)
    scores[:, 2] = 1
    low_res = LowResLogits(scores, TransposedBilinear(4, 2, 0))
    assert_same_but_for_ties(labels_of_both_forms(low_res, (12, 11)), by_hand(low_res, (12, 11)))
    assert (labels_of_both_forms(low_res, (12, 11)) == 0).sum() == 12 * 11 - 8 * 8


def test_threads_share_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with fewer rows of logits than threads, and with ids of two bytes."""
    monkeypatch.setattr(argmax_loops, "LOGITS_PER_TASK", 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    for shape in ((1, 4, 2, 9), (1, 300, 13, 8)):
        scores = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        labels = labels_of_both_forms(LowResLogits(scores, Bilinear()), (29, 31))
        assert len(np.unique(labels)) > 3


def test_large_images_take_the_compiled_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.randn(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    low_res = LowResLogits(scores, Bilinear())
    few = argmax_upsampled(low_res, (50, 50))
    monkeypatch.setattr(argmax_numpy, "argmax_upsampled", None)
    monkeypatch.setattr("pixelwise.inference.label_map.PIXELS_BEFORE_LOOPS", 0)
    np.testing.assert_array_equal(argmax_upsampled(low_res, (50, 50)), few)


@pytest.mark.parametrize(
    "upsample", [Bilinear(), Bilinear(align_corners=True), BilinearByFactor(8), TransposedBilinear(16, 8, 5)]
)
def test_large_maps_have_the_labels_of_the_whole_logits(upsample: Upsample) -> None:
    size = (2 * BLOCK[0] + 9, BLOCK[1] + 31)
    scores = torch.randn(1, 4, size[0] // 8 + 3, size[1] // 8 + 3, generator=torch.Generator().manual_seed(0))
    full = upsample(scores, size)[0].double().numpy()
    assert_same_but_for_ties(argmax_upsampled(LowResLogits(scores, upsample), size), full)


def test_full_size_scores_pass_unchanged() -> None:
    scores = torch.randn(1, 5, 70, 300, generator=torch.Generator().manual_seed(0))
    labels = argmax_upsampled(LowResLogits(scores, Identity()), (70, 300))
    assert (labels == scores[0].argmax(0).numpy()).all()


def test_first_of_equal_scores_wins() -> None:
    scores = torch.zeros(1, 3, 4, 4)
    scores[:, 1:, 2:] = 1
    labels = argmax_upsampled(LowResLogits(scores, Identity()), (4, 4))
    assert labels.tolist() == [[0] * 4] * 2 + [[1] * 4] * 2


def test_more_than_255_classes_do_not_wrap() -> None:
    scores = torch.zeros(1, 300, 2, 2)
    scores[0, 299] = 1
    labels = argmax_upsampled(LowResLogits(scores, Bilinear()), (5, 5))
    assert labels.dtype == np.uint16
    assert (labels == 299).all()


def test_scores_keep_their_precision_inside_anothers_autocast() -> None:
    scores = torch.full((1, 2, 3, 3), 1.0)
    scores[0, 1] += 1e-4  # bfloat16 knows no number between 1 and 1.0078
    with torch.autocast("cpu", torch.bfloat16):
        assert (argmax_upsampled(LowResLogits(scores, Bilinear()), (9, 9)) == 1).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (37, 53), (96, 64)])
def test_a_models_labels_and_probabilities_are_those_of_its_logits(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = create_model("compact", 3, tiny=True).eval()
    torch.nn.init.normal_(model.get_parameter("score.weight"), std=3)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    with torch.inference_mode():
        logits = model(torch.from_numpy(image.transpose(2, 0, 1).copy())[None]).logits
        labels = label_map(model, image, torch.device("cpu"))
        probs = probabilities(low_res_logits(model, image, torch.device("cpu")), size)
    assert_same_but_for_ties(labels, logits[0].double().numpy())
    assert probs.shape == (3, *size)
    assert np.abs(probs - logits[0].double().softmax(0).numpy()).max() < 1e-5
    assert np.abs(probs.sum(0) - 1).max() < 1e-6
