"""Calibration: whether pixels that are labeled with a probability of 80 % are right in 80 % of the cases.

The confidence of a pixel is the probability of its label, the largest of the K. The labeled pixels of the set are put
into 15 bins of equal width by confidence, (0, 1/15], (1/15, 2/15] ...; the expected calibration error is

    ECE = sum_b n_b / n * |accuracy_b - confidence_b|

with the bin's share of right pixels and its mean confidence. Temperature scaling divides the logits by one number T > 0
that minimizes the mean negative log-likelihood of the true class on held-out images; labels stay the same.
Source: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017
(https://arxiv.org/abs/1706.04599), equation 3 and section 4.2.

Probabilities that are a mean over views, or refined by a CRF, have no logits: there T acts on the logarithms of the
probabilities, p^(1/T) / sum p^(1/T), which is the same thing for a plain network and never changes a label either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import Prediction
from ..data.dataset import Split
from ..errors import DatasetError
from ..inference.temperature import LIMITS, log_probabilities, scaled

BINS = 15


@dataclass(frozen=True)
class Bin:
    """The pixels of one bin: their number, how many are right, and their mean confidence 0..1."""

    num_pixels: int
    num_correct: int
    confidence: float


@dataclass(frozen=True)
class Calibration:
    """The calibration of a set without and with a temperature.

    ece, nll          expected calibration error 0..1 and mean negative log-likelihood (nats per pixel) at T = 1
    temperature       T of the model, or 1
    scaled_ece, scaled_nll   the same with it; equal to those before at T = 1
    fitted_on         the images that T was fitted on, empty for none
    bins              of the probabilities at T = 1
    """

    ece: float
    nll: float
    temperature: float
    scaled_ece: float
    scaled_nll: float
    fitted_on: str = ""
    bins: tuple[Bin, ...] = ()

    def lines(self) -> list[str]:
        """Return the results in sentences."""
        line = f"calibration: expected error {self.ece:.2%} ({BINS} bins), log-likelihood -{self.nll:.4f} per pixel"
        if not self.fitted_on:
            return [line]
        after = f"with temperature {self.temperature:.3f}, fitted on {self.fitted_on}: "
        return [line, f"{after}expected error {self.scaled_ece:.2%}, log-likelihood -{self.scaled_nll:.4f}"]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        """Read the form of `to_dict`. Raises TypeError, ValueError or KeyError for anything else."""
        return cls(**{**data, "bins": tuple(Bin(**row) for row in data["bins"])})


class _Counts:
    """Running sums at one temperature: per bin pixels, right pixels and confidence; and -log p of the truth."""

    def __init__(self) -> None:
        self.pixels, self.correct = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
        self.confidence = np.zeros(BINS)
        self.nll = 0.0

    def add(self, probs: NDArray[np.float32], labels: NDArray[Any], truth: NDArray[Any]) -> None:
        """Count pixels: probabilities (K, n), and per pixel the predicted and the true class."""
        confidence = probs.max(0).astype(np.float64)
        # Bin b holds confidences of (b / 15, (b + 1) / 15].
        bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
        self.pixels += np.bincount(bins, minlength=BINS)
        self.correct += np.bincount(bins[labels == truth], minlength=BINS)
        self.confidence += np.bincount(bins, confidence, BINS)
        of_truth = np.take_along_axis(probs, truth[None].astype(np.int64), 0)[0]
        self.nll -= float(np.log(np.maximum(of_truth, np.finfo(np.float32).tiny), dtype=np.float64).sum())

    @property
    def ece(self) -> float:
        return float(np.abs(self.correct - self.confidence).sum() / self.pixels.sum())

    @property
    def mean_nll(self) -> float:
        return float(self.nll / self.pixels.sum())

    def bins(self) -> tuple[Bin, ...]:
        return tuple(
            Bin(int(n), int(right), float(total / n) if n else 0.0)
            for n, right, total in zip(self.pixels, self.correct, self.confidence, strict=True)
        )


class CalibrationCounter:
    """Running sums over the images of a split: `add` each image once, then `finish`.

    temperature  T, of which the scores are measured beside those of T = 1
    """

    def __init__(self, temperature: float = 1.0, fitted_on: str = "") -> None:
        self.temperature, self.fitted_on = temperature, fitted_on
        self._plain, self._scaled = _Counts(), _Counts()

    def add(self, probs: NDArray[np.float32], labels: NDArray[Any], *, truth: NDArray[Any], ignore_id: int) -> None:
        """Count an image: probabilities (K, H, W) at T = 1, and predicted and true class ids (H, W)."""
        scored = truth != ignore_id
        if scored.any():
            kept, ours, true = probs[:, scored], labels[scored], truth[scored]
            self._plain.add(kept, ours, true)
            self._scaled.add(scaled(kept, self.temperature), ours, true)

    def finish(self) -> Calibration | None:
        """Return the calibration of all images, None if no pixel was scored."""
        if not self._plain.pixels.sum():
            return None
        plain, after = self._plain, self._scaled
        return Calibration(
            plain.ece, plain.mean_nll, self.temperature, after.ece, after.mean_nll, self.fitted_on, plain.bins()
        )


def fit_temperature(probs: NDArray[np.float32], truth: NDArray[Any]) -> float:
    """Return the T, within 0.01..100, that minimizes the mean negative log-likelihood of pixels.

    probs  (K, n) probabilities at T = 1;  truth  (n,) class ids 0..K-1
    The likelihood is concave in 1/T: its slope, mean(log p of the truth) - mean(sum_k p_k log p_k) with the p in the
    logarithms those of T = 1 and the others those of T, is brought to 0 by bisection.
    """
    logs = log_probabilities(probs)
    of_truth = float(np.take_along_axis(logs, truth[None].astype(np.int64), 0).mean(dtype=np.float64))

    def slope(temperature: float) -> float:
        return of_truth - float((scaled(probs, temperature) * logs).sum(0).mean(dtype=np.float64))

    # Bisection over log T: the slope falls as 1/T grows, so it rises with T.
    low, high = np.log(LIMITS)
    for _ in range(40):
        middle = (low + high) / 2
        if slope(float(np.exp(middle))) > 0:
            high = middle
        else:
            low = middle
    return float(np.exp((low + high) / 2))


def fit_on_split(
    predict: Callable[[NDArray[Any]], Prediction],
    split: Split,
    *,
    num_pixels: int = 2**20,
    progress: Callable[[int, int], None] | None = None,
) -> float:
    """Return the temperature that fits a split: `fit_temperature` on as many pixels of each image.

    predict     returns the probabilities at T = 1
    num_pixels  in all, drawn at random with a fixed seed: a million give T to three digits
    Raises DatasetError for a split without masks or without a labeled pixel.
    """
    if not split.has_masks:
        raise DatasetError(f"split {split.name}", "has images without a mask", "fit on a split with masks")
    rng = np.random.default_rng(0)
    probs: list[NDArray[np.float32]] = []
    truth: list[NDArray[Any]] = []
    for index in range(len(split)):
        sample = split[index]
        assert sample.mask is not None, "has_masks was checked"
        found = predict(sample.image).probs
        assert found is not None, "`predict` returns probabilities"
        places = np.flatnonzero(sample.mask.ravel() != split.taxonomy.ignore_id)
        if len(places) > num_pixels // len(split):
            places = rng.choice(places, max(1, num_pixels // len(split)), replace=False)
        probs.append(found.reshape(len(found), -1)[:, places])
        truth.append(sample.mask.ravel()[places])
        if progress:
            progress(index + 1, len(split))
    if not sum(map(len, truth)):
        raise DatasetError(f"split {split.name}", "has no labeled pixel", "fit on a split with labels")
    return fit_temperature(np.concatenate(probs, 1), np.concatenate(truth))
