"""Several models side by side on one image: the paper's ladder of image, FCN-32s, 16s, 8s, truth.

Source: FCN (https://arxiv.org/abs/1411.4038), figures 4 and 6, for the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core import Prediction, Sample, Taxonomy
from ..errors import InputError, MaskError
from ..evaluation.evaluator import check_same_classes
from ..evaluation.metrics import Scores, confusion_matrix
from ..inference.segmenter import Segmenter
from .panels import GAP, Color, Panel, contact_sheet, fit, legend

PANEL = 360
MAX_COLUMNS = 5
NOT_SCORED = "not scored"


def compare(
    image: NDArray[np.uint8], segmenters: Sequence[Segmenter], truth: NDArray[Any] | None = None
) -> Image.Image:
    """The image, the labels of each model in the order given, then the truth, titled, with the classes that occur.

    image       (H, W, 3) uint8 RGB
    truth       (H, W) class ids and ignore id; with it each model's title tells its mean IoU on this image
    Raises DatasetError when the models do not share their classes, MaskError when the truth is of another size or holds
    no pixel that can be scored.
    """
    if not segmenters:
        raise InputError("compare", "no model to compare", "give at least one")
    taxonomy = segmenters[0].taxonomy
    for other in segmenters[1:]:
        check_same_classes(taxonomy, other.taxonomy, model_name=segmenters[0].name, data_name=other.name)
    if truth is not None:
        Sample("truth", image, truth)
        if (truth == taxonomy.ignore_id).all():
            raise MaskError(
                "truth", "every pixel is to be ignored, so that nothing can be scored", "give the mask of this image"
            )
    predictions = [segmenter(image) for segmenter in segmenters]
    panels = [Panel(fit(image, PANEL), "image", f"{image.shape[0]} x {image.shape[1]} pixels")]
    titles = _titles(segmenters)
    for title, segmenter, prediction in zip(titles, segmenters, predictions, strict=True):
        panels.append(Panel(_colored(prediction.mask, taxonomy), title, _note(segmenter, prediction, truth)))
    if truth is not None:
        panels.append(Panel(_colored(truth, taxonomy), "truth"))
    rows = -(-len(panels) // MAX_COLUMNS)
    columns = -(-len(panels) // rows)
    masks = [prediction.mask for prediction in predictions] + ([] if truth is None else [truth])
    width = columns * (panels[0].image.width + GAP) - GAP
    return contact_sheet(panels, columns, footer=legend(occurring(masks, taxonomy), width))


def occurring(masks: Sequence[NDArray[Any]], taxonomy: Taxonomy) -> list[tuple[str, Color]]:
    """Name and colour of the classes in any of the masks (H, W), in the order of their ids; the ignore id comes last."""
    ids = sorted({int(k) for mask in masks for k in np.unique(mask)})
    known = [(taxonomy.names[k], taxonomy.colors[k]) for k in ids if k != taxonomy.ignore_id]
    return known + ([(NOT_SCORED, taxonomy.ignore_color)] if taxonomy.ignore_id in ids else [])


def short_names(names: Sequence[str]) -> list[str]:
    """What tells the models apart in little room: the run's folder, or the whole name where two runs have one folder name."""
    short = [_run_of(name) for name in names]
    return [name if short.count(brief) > 1 else brief for name, brief in zip(names, short, strict=True)]


def _titles(segmenters: Sequence[Segmenter]) -> list[str]:
    """A short name of each, the same for a model and for what the CRF makes of it."""
    names = list(dict.fromkeys(s.name for s in segmenters))
    short = dict(zip(names, short_names(names), strict=True))
    return [short[s.name] + (" + CRF" if s.crf is not None else "") for s in segmenters]


def _run_of(name: str) -> str:
    path = Path(name)
    in_run = path.name in ("best", "last") and path.parent.name == "checkpoints"
    return (path.parent.parent.name if in_run else path.name) or name


def _note(segmenter: Segmenter, prediction: Prediction, truth: NDArray[Any] | None) -> str:
    """The network's name, and its score on this image where there is truth."""
    spec = segmenter.model.spec
    if truth is None:
        return spec.name
    taxonomy = segmenter.taxonomy
    matrix = confusion_matrix(truth, prediction.mask, taxonomy, source=segmenter.name)
    return f"{spec.name}, mean IoU {100 * Scores.from_matrix(matrix, taxonomy.names).mean_iou:.1f} %"


def _colored(mask: NDArray[Any], taxonomy: Taxonomy) -> Image.Image:
    return fit(taxonomy.palette()[mask], PANEL, labels=True)
