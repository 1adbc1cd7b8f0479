"""How far a mean IoU would move on other images of the same kind: percentile bootstrap over groups of images.

Images of one drive or one patient resemble each other, so the set holds as many independent facts as it has groups,
not images. A bootstrap sample draws as many groups as there are, with replacement, and takes all their images; the
interval is the range between the 2.5th and the 97.5th percentile of the scores of 2000 samples.
Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile interval); Field and
Welsh, "Bootstrapping clustered data", JRSS B 2007 (whole clusters are drawn).

With few groups no interval is computed: from three drives a bootstrap has ten different samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import listed

SAMPLES = 2000
MIN_GROUPS = 5
"""The least number of groups of which an interval is computed."""
_PERCENTILES = (2.5, 97.5)

Interval = tuple[float, float]


@dataclass(frozen=True)
class GroupScore:
    """The scores of one group alone.

    mean_iou        over the group's pixels
    mean_image_iou  mean over the group's images
    """

    name: str
    num_images: int
    mean_iou: float
    mean_image_iou: float


@dataclass(frozen=True)
class Spread:
    """The scores by group, and the intervals of the set's two means.

    unit            "group", or "image" where the names show no groups
    rule            how the groups were found
    groups          the scores of each group, sorted by name; empty by image
    num_units       number of groups, or of images, with a scored pixel
    trained         those of the groups of which images lie in split train as well
    mean_iou        95 % interval of the mean IoU over the set, None with too few groups
    mean_image_iou  95 % interval of the mean IoU of the images
    """

    unit: str
    rule: str
    num_units: int
    groups: tuple[GroupScore, ...] = ()
    trained: tuple[str, ...] = ()
    mean_iou: Interval | None = None
    mean_image_iou: Interval | None = None

    @property
    def intervals(self) -> tuple[Interval | None, Interval | None]:
        """The intervals of the mean IoU over the set and of the mean IoU of the images."""
        return self.mean_iou, self.mean_image_iou

    def lines(self) -> list[str]:
        """Return what to know before reading an interval, in sentences."""
        count = self.num_units
        if self.unit == "image":
            line = f"95 % intervals by image ({count} images, {self.rule}): images of one scene resemble each other"
            return [] if self.mean_iou is None else [f"{line}, so these are too narrow if scenes repeat"]
        lines = [f"{count} group{'s' if count > 1 else ''}: a group is {self.rule}"]
        if count == 1:
            lines.append(f"all images are of one group ({self.groups[0].name}): nothing is known about other groups")
        elif self.mean_iou is None:
            lines.append(f"an interval by group of {count} groups would be unreliable; the scores of each:")
        else:
            lines.append(f"95 % intervals: percentile bootstrap of {count} groups, {SAMPLES} samples")
        if self.trained:
            lines.insert(1, f"not unseen, as images of them lie in split train: {listed(self.trained, 8)}")
        return lines

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Spread:
        """Read the form of `dataclasses.asdict`. Raises TypeError, ValueError or KeyError for anything else."""
        groups = tuple(GroupScore(**row) for row in data["groups"])
        low_high: dict[str, tuple[float, float] | None] = {}
        for name in ("mean_iou", "mean_image_iou"):
            low, high = (None, None) if data[name] is None else map(float, data[name])
            low_high[name] = None if low is None or high is None else (low, high)
        trained = tuple(map(str, data["trained"]))
        return cls(str(data["unit"]), str(data["rule"]), int(data["num_units"]), groups, trained, **low_high)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def measure_spread(
    counts: NDArray[np.int64],
    groups: Sequence[str] | None,
    rule: str,
    *,
    trained: Iterable[str] = (),
    samples: int = SAMPLES,
    seed: int = 0,
) -> Spread | None:
    """Return the scores by group and the intervals of both means; None for a set without a scored pixel.

    counts   (images, K, 2) int64: per image and class, the pixels in the intersection and in the union of truth and
             prediction, where truth is not void
    groups   the group of each image, or None: then images are drawn, and no group is listed
    rule     how the groups were found, in words
    trained  groups that were trained on
    """
    scored = counts[:, :, 1].sum(1) > 0
    if not scored.any():
        return None
    counts = counts[scored]
    per_image = mean_ious(counts)
    names = list(range(len(counts))) if groups is None else [g for g, s in zip(groups, scored, strict=True) if s]
    found, index = np.unique(np.array(names), return_inverse=True)
    # Everything that a sample needs of a group: its counts, the sum of its images' scores, their number.
    totals = np.zeros((len(found), *counts.shape[1:]), np.int64)
    np.add.at(totals, index, counts)
    sums, sizes = np.bincount(index, per_image, len(found)), np.bincount(index, minlength=len(found))
    rows: tuple[GroupScore, ...] = ()
    if groups is not None:
        rows = tuple(
            GroupScore(str(name), int(size), float(iou), float(total / size))
            for name, size, iou, total in zip(found, sizes, mean_ious(totals), sums, strict=True)
        )
    unit = "image" if groups is None else "group"
    spread = Spread(unit, rule, len(found), rows, tuple(sorted({row.name for row in rows} & set(trained))))
    if len(found) < MIN_GROUPS:
        return spread
    drawn = np.random.default_rng(seed).integers(0, len(found), (samples, len(found)))
    # How often each group is in each sample: (samples, groups) float64, exact for counts below 2**53.
    weights = np.stack([np.bincount(row, minlength=len(found)) for row in drawn]).astype(np.float64)
    of_set = mean_ious(np.einsum("sg,gkc->skc", weights, totals.astype(np.float64), optimize=True))
    of_images = weights @ sums / (weights @ sizes)
    intervals = (np.percentile(scores, _PERCENTILES) for scores in (of_set, of_images))
    of_set_interval, of_images_interval = ((float(low), float(high)) for low, high in intervals)
    return replace(spread, mean_iou=of_set_interval, mean_image_iou=of_images_interval)


def mean_ious(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean IoU of each row of (n, K, 2) counts, over its classes that occur in truth or prediction."""
    intersection, union = counts[..., 0].astype(np.float64), counts[..., 1].astype(np.float64)
    present = union > 0
    ious = np.divide(intersection, union, out=np.zeros_like(intersection), where=present)
    means: NDArray[np.float64] = ious.sum(1) / present.sum(1)
    return means
