"""Calibration and temperature: against loops over pixels, scipy-free minimization by a grid, and known sources."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import pixelwise
from helpers.command_line import TAXONOMY, save_tiny
from pixelwise.core import Prediction
from pixelwise.core import Taxonomy as ClassNames
from pixelwise.data.dataset import Item, Split
from pixelwise.errors import CheckpointError, DatasetError
from pixelwise.evaluation.calibration import Calibration, CalibrationCounter, fit_on_split, fit_temperature
from pixelwise.images import write_image, write_mask
from pixelwise.inference.temperature import FILE, read_temperature, scaled, write_temperature


def softmax(logits: NDArray[Any]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(0))
    return np.asarray(powers / powers.sum(0), np.float32)


def draw(num: int, *, sharpness: float = 1.0, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pixels whose truth is drawn from softmax(logits), and the probabilities softmax(sharpness * logits)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (4, num))
    honest = softmax(logits).astype(np.float64)
    truth = (rng.random(num) > honest.cumsum(0)[:-1]).sum(0)
    return softmax(sharpness * logits), truth


def test_calibration_is_that_of_loops() -> None:
    probs, truth = draw(3000, sharpness=2)
    probs[:, 0] = (1, 0, 0, 0)
    truth[:50] = 255
    labels = probs.argmax(0)
    counter = CalibrationCounter(2.0, "val")
    for part in (slice(0, 1000), slice(1000, 3000)):
        shape = (4, 20, -1)
        counter.add(
            probs[:, part].reshape(shape),
            labels[part].reshape(shape[1:]),
            truth=truth[part].reshape(shape[1:]),
            ignore_id=255,
        )
    found = counter.finish()
    assert found is not None
    for temperature, ece, nll in ((1, found.ece, found.nll), (2, found.scaled_ece, found.scaled_nll)):
        bins: dict[int, list[tuple[float, bool]]] = {}
        logs = []
        for pixel in range(50, 3000):
            powers = [float(p) ** (1 / temperature) for p in probs[:, pixel]]
            p = [power / sum(powers) for power in powers]
            bins.setdefault(math.ceil(max(p) * 15) - 1, []).append((max(p), labels[pixel] == truth[pixel]))
            logs.append(-math.log(p[truth[pixel]]))
        by_hand = sum(abs(sum(right for _, right in b) - sum(c for c, _ in b)) for b in bins.values()) / 2950
        assert ece == pytest.approx(by_hand, abs=1e-4)
        assert nll == pytest.approx(sum(logs) / 2950, rel=1e-4)
    assert sum(b.num_pixels for b in found.bins) == 2950
    assert "with temperature 2.000, fitted on val" in found.lines()[1]
    assert Calibration.from_dict(found.to_dict()) == found


def test_honest_probabilities_have_no_error_and_no_temperature() -> None:
    probs, truth = draw(200_000)
    counter = CalibrationCounter()
    counter.add(probs[:, None], probs.argmax(0)[None], truth=truth[None], ignore_id=255)
    found = counter.finish()
    assert found is not None
    assert found.ece < 0.005
    assert fit_temperature(probs, truth) == pytest.approx(1, abs=0.02)
    assert len(found.lines()) == 1


@pytest.mark.parametrize("sharpness", [0.5, 3.0])
def test_the_temperature_of_a_network_that_is_too_sure(sharpness: float) -> None:
    """Logits that were multiplied by a number: that number is the temperature, and it removes the error."""
    probs, truth = draw(200_000, sharpness=sharpness)
    temperature = fit_temperature(probs, truth)
    assert temperature == pytest.approx(sharpness, rel=0.02)
    counter = CalibrationCounter(temperature, "other pixels")
    probs, truth = draw(200_000, sharpness=sharpness, seed=1)
    counter.add(probs[:, None], probs.argmax(0)[None], truth=truth[None], ignore_id=255)
    found = counter.finish()
    assert found is not None
    assert found.scaled_ece < 0.01 < 0.05 < found.ece
    assert found.scaled_nll < found.nll


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), sharpness=st.floats(0.3, 5))
def test_no_other_temperature_is_more_likely(seed: int, sharpness: float) -> None:
    probs, truth = draw(300, sharpness=sharpness, seed=seed)

    def nll(temperature: float) -> float:
        logs = np.log(probs.astype(np.float64)) / temperature
        return float((np.logaddexp.reduce(logs, 0) - logs[truth, np.arange(300)]).mean())

    best = fit_temperature(probs, truth)
    grid = np.exp(np.linspace(math.log(0.01), math.log(100), 300))
    assert nll(best) <= min(map(nll, grid)) + 1e-6


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), temperature=st.floats(0.05, 100))
def test_scaling_keeps_labels_and_divides_logits(seed: int, temperature: float) -> None:
    logits = np.random.default_rng(seed).normal(0, 2, (5, 40))
    after = scaled(softmax(logits), temperature)
    np.testing.assert_allclose(after, softmax(logits / temperature), atol=2e-5)
    assert np.array_equal(after.argmax(0), logits.argmax(0))
    assert scaled(softmax(logits), 1.0).sum() == pytest.approx(40, rel=1e-5)


def test_a_temperature_file_reads_back_and_others_are_refused(tmp_path: Path) -> None:
    assert read_temperature(tmp_path) == (1.0, "")
    write_temperature(tmp_path, 1.25, "camvid val")
    assert read_temperature(tmp_path) == (1.25, "camvid val")
    for text in ("", "[]", '{"temperature": 0, "fitted_on": ""}', '{"temperature": NaN, "fitted_on": ""}', "{}"):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(CheckpointError, match=r"temperature\.json: .*fix: remove it, or run"):
            read_temperature(tmp_path)


def test_a_loaded_model_scales_its_probabilities_and_not_its_labels(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "run" / "checkpoints" / "best")
    image = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    plain = pixelwise.load(folder, device="cpu").predict(image, probs=True)
    write_temperature(tmp_path / "run", 2.5, "val")
    assert plain.probs is not None
    for path in (tmp_path / "run", folder):
        warm = pixelwise.load(path, device="cpu")
        found = warm.predict(image, probs=True)
        assert found.probs is not None
        assert (found.mask == plain.mask).all()
        powers = plain.probs.astype(np.float64) ** (1 / 2.5)
        np.testing.assert_allclose(found.probs, powers / powers.sum(0), atol=1e-5)
        plain_again = warm.with_temperature(1).predict(image, probs=True).probs
        assert plain_again is not None
        assert np.array_equal(plain_again, plain.probs)
    warm.save_pretrained(tmp_path / "copy")
    assert pixelwise.load(tmp_path / "copy", device="cpu").temperature == 2.5


def test_a_split_is_fitted_by_pixels_of_every_image(tmp_path: Path) -> None:
    probs, truth = draw(8000, sharpness=2)
    taxonomy = ClassNames(("a", "b", "c", "d"))
    items = []
    for number in range(4):
        write_image(tmp_path / f"{number}.png", np.full((40, 50, 3), number, np.uint8))
        write_mask(tmp_path / f"{number}_m.png", truth[number * 2000 :][:2000].reshape(40, 50).astype(np.uint8))
        items.append(Item(str(number), tmp_path / f"{number}.png", tmp_path / f"{number}_m.png"))

    def predict(image: NDArray[np.uint8]) -> Prediction:
        found = probs[:, int(image[0, 0, 0]) * 2000 :][:, :2000].reshape(4, 40, 50)
        return Prediction(found.argmax(0).astype(np.uint8), taxonomy, image, found)

    split = Split("val", items, taxonomy)
    assert fit_on_split(predict, split) == pytest.approx(fit_temperature(probs, truth), rel=1e-4)
    assert fit_on_split(predict, split, num_pixels=4000) == pytest.approx(2, rel=0.15)
    with pytest.raises(DatasetError, match="has images without a mask"):
        fit_on_split(predict, Split("val", [Item("0", items[0].image)], TAXONOMY))
