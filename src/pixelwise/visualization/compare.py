"""Several models side by side on one image, in the order of the paper's figures: image, FCN-32s, 16s, 8s, truth.

Source: FCN (https://arxiv.org/abs/1411.4038), figures 4 and 6.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from ..core import Sample, drawn_labels
from ..errors import InputError, MaskError
from ..evaluation.evaluator import check_same_classes
from ..evaluation.metrics import Scores, confusion_matrix
from ..evaluation.multilabel_scores import MultilabelScores, decision_counts
from ..images import same_numbers
from ..images.legend import GAP, legend, legend_entries
from ..inference.base import BaseSegmenter
from .panels import Panel, contact_sheet, fit

PANEL = 360
"""Longest side of a panel in pixels."""
MAX_COLUMNS = 5


def draw_comparison(
    image: NDArray[Any], segmenters: Sequence[BaseSegmenter], *, truth: NDArray[Any] | None = None
) -> Image.Image:
    """Draw the image, the labels of each model in the given order, then the truth, with titles and a legend.

    image       (H, W, 3) uint8 RGB, or of the pixel format of the models
    truth       (H, W) class ids and ignore id, or (K, H, W) of several labels per pixel; with it, the title of each
                model shows its mean IoU, or mean Dice, on this image
    Raises DatasetError when the models do not share their classes, MaskError when the truth is of another size or every
    pixel of it is ignored.
    """
    if not segmenters:
        raise InputError("compare", "no model to compare", "give at least one")
    taxonomy = segmenters[0].taxonomy
    for other in segmenters[1:]:
        check_same_classes(taxonomy, other.taxonomy, model_name=segmenters[0].name, data_name=other.name)
        if not same_numbers(segmenters[0].pixels, other.pixels):
            what = f"takes {other.pixels.in_words()}; {segmenters[0].name} takes {segmenters[0].pixels.in_words()}"
            raise InputError(other.name, what, "compare models of the same images")
    if truth is not None:
        Sample("truth", image, truth)  # raises MaskError if the sizes differ
        if (truth == taxonomy.ignore_id).all() and not taxonomy.multilabel:
            raise MaskError("truth", "nothing to score: every pixel is ignored", "give the mask of this image")
    drawn = taxonomy.for_figures()
    palette = drawn.palette()
    masks = []
    panels = [
        Panel(fit(segmenters[0].pixels.to_rgb(image), PANEL), "image", f"{image.shape[0]} x {image.shape[1]} pixels")
    ]
    names = short_names([segmenter.name for segmenter in segmenters])
    for name, segmenter in zip(names, segmenters, strict=True):
        mask = segmenter(image).mask
        title = f"{name} + CRF" if segmenter.crf is not None else name
        note = segmenter.network
        if truth is not None and taxonomy.multilabel:
            counts = decision_counts(truth, mask, taxonomy, source=segmenter.name)
            note += f", mean Dice {100 * MultilabelScores.from_counts(counts, taxonomy.names).mean_dice:.1f} %"
        elif truth is not None:
            matrix = confusion_matrix(truth, mask, taxonomy, source=segmenter.name)
            note += f", mean IoU {100 * Scores.from_matrix(matrix, taxonomy.names).mean_iou:.1f} %"
        masks.append(drawn_labels(mask, taxonomy))
        panels.append(Panel(fit(palette[masks[-1]], PANEL, labels=True), title, note))
    if truth is not None:
        masks.append(drawn_labels(truth, taxonomy))
        panels.append(Panel(fit(palette[masks[-1]], PANEL, labels=True), "truth"))
    num_rows = -(-len(panels) // MAX_COLUMNS)
    num_columns = -(-len(panels) // num_rows)
    width = num_columns * (panels[0].image.width + GAP) - GAP
    return contact_sheet(panels, num_columns, footer=legend(legend_entries(masks, drawn), width))


def short_names(names: Sequence[str]) -> list[str]:
    """Return a short name of each model: its run's folder, or the whole name where two folders have equal names."""
    short = {}
    for name in names:
        path = Path(name)
        in_run = path.name in ("best", "last") and path.parent.name == "checkpoints"
        short[name] = (path.parent.parent.name if in_run else path.name) or name
    counts = Counter(short.values())
    return [short[name] if counts[short[name]] == 1 else name for name in names]
