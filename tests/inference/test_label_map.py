"""Upsampling and argmax in tiles: the same labels as the whole logits give, for every kind of upsampling and size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pixelwise.core import LowResLogits, Upsample
from pixelwise.inference.label_map import BLOCK, argmax_upsampled, as_batch, label_map, low_res_logits, probabilities
from pixelwise.models import create_model
from pixelwise.nn.upsampling import Bilinear, BilinearByFactor, Identity, TransposedBilinear


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


def assert_same_but_for_ties(labels: NDArray[Any], full: NDArray[Any]) -> None:
    chosen = np.take_along_axis(full, labels[None].astype(np.int64), 0)[0]
    assert (full.max(0) - chosen).max() < 1e-5
    assert (labels == full.argmax(0)).mean() >= 0.9999


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
        ]
    ),
    st.integers(2, 5),
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
    labels = argmax_upsampled(low_res, size)
    assert labels.shape == size
    assert labels.dtype == np.uint8
    assert_same_but_for_ties(labels, by_hand(low_res, size))


@pytest.mark.parametrize(
    "upsample", [Bilinear(), Bilinear(align_corners=True), BilinearByFactor(8), TransposedBilinear(16, 8, 5)]
)
def test_tiles_leave_no_seam(upsample: Upsample) -> None:
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
