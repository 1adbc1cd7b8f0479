"""`pixelwise explain`: draw why a network labels an image as it does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..errors import ConfigError, InputError, printable
from ..files import check_outputs, new_folder
from ..registry import suggest
from ._options import InPath, OutPath, Switch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from ..inference.segmenter import Segmenter

IMAGENET_CLASSES = 1000
ALWAYS_WRITTEN = ("skips.png", "activations.png", "receptive_field.png")
"""The files beside the heat maps. A network that does not sum the scores of several maps has no skips.png."""


def explain(
    image: InPath,
    /,
    *,
    out: OutPath,
    overwrite: Switch = False,
    model: str | None = None,
    class_: Annotated[list[str] | None, Parameter(name="--class", negative="")] = None,
    pixel: Annotated[tuple[int, int] | None, Parameter(negative="")] = None,
    layer: Annotated[list[str] | None, Parameter(negative="", consume_multiple=True)] = None,
    classifier: str | None = None,
    weights: InPath | None = None,
) -> int:
    """Explain a model: heat maps, skip contributions, activations, receptive field.

    Parameters
    ----------
    image
        The image to explain.
    out
        Folder for the images: heatmap_CLASS.png, skips.png, activations.png, receptive_field.png.
    overwrite
        Replace those files if they exist.
    model
        A run, a checkpoint folder or a Hugging Face Hub id; the shipped street-scene model by default.
    class_
        Class of the heat map, by name or number; may be repeated. The most frequent one by default.
    pixel
        Row and column of the output pixel whose receptive field is drawn; the center by default.
    layer
        Layers whose activations are drawn, such as pool4; a shallow and a deep one by default.
    classifier
        Instead of a model, an image classifier such as vgg16, applied convolutionally; draws its heat maps only.
    weights
        Weight file of the classifier with 1000 classes: .pth, .safetensors or .caffemodel.
    """
    # A model's heat maps get their names from its classes, which are not known yet.
    maps = [f"heatmap_class_{word}.png" for word in class_ or []] if classifier else ALWAYS_WRITTEN
    outputs = [*(out / name for name in maps), *(() if classifier else sorted(out.glob("heatmap_*.png")))]
    check_outputs(outputs, inputs=[image, model, weights], overwrite=overwrite)
    if (classifier, weights) != (None, None) and (model is not None or classifier is None or weights is None):
        what = "--classifier and --weights must be given together, without --model"
        raise ConfigError("explain", what, "give both, or neither")
    # Importing torch takes seconds: a mistake in the options is reported before it.
    import numpy as np

    from ..images import read_image, read_pixels, write_image
    from ..inference.predict_files import write_together
    from ..inference.segmenter import load

    if classifier is not None and weights is not None:
        figures = _explain_classifier(read_image(image), classifier, weights, class_ or [])
    else:
        segmenter = load(model)
        pixels = read_pixels(image, segmenter.pixels)
        figures = _explain_model(pixels, segmenter, class_ or [], pixel, layer or [])
    # Everything is drawn before anything is written, so that an error leaves no files.
    files = {out / name: np.asarray(figure) for name, figure in figures.items()}
    with new_folder(out):
        write_together((path, partial(write_image, path, figure)) for path, figure in files.items())
    print(*map(printable, files), sep="\n")
    return 0


def _explain_model(
    pixels: NDArray[Any],
    segmenter: Segmenter,
    classes: list[str],
    pixel: tuple[int, int] | None,
    layers: list[str],
) -> dict[str, Image.Image]:
    import torch

    from ..inference.label_map import low_res_logits
    from ..visualization.explain import (
        class_probability,
        draw_activations,
        draw_heat_map,
        draw_receptive_field,
        draw_skips,
    )

    names = segmenter.taxonomy.names
    wanted = [class_number(name, names) for name in classes]
    with torch.inference_mode():
        scores = (
            low_res_logits(segmenter.model, pixels, segmenter.device)
            .upsample_to((pixels.shape[0], pixels.shape[1]))
            .logits[0]
        )
    rgb = segmenter.pixels.to_rgb(pixels)
    multilabel = segmenter.taxonomy.multilabel
    if not wanted and multilabel:
        wanted = [int((scores > 0).sum((1, 2)).argmax())]
    elif not wanted:
        wanted = [int(scores.argmax(0).flatten().bincount().argmax())]
    figures = {
        f"{stem}.png": draw_heat_map(rgb, class_probability(scores, k, multilabel=multilabel), name=names[k])
        for k, stem in heat_map_names(wanted, names).items()
    }
    skips = None if multilabel else draw_skips(segmenter, pixels)
    if multilabel:
        print("skips.png is left out: it shows one label per pixel")
    elif skips is None:
        print("skips.png is left out: the network does not sum the scores of several maps")
    if skips is not None:
        figures["skips.png"] = skips
    figures["activations.png"] = draw_activations(segmenter, pixels, layers=layers)
    figures["receptive_field.png"] = draw_receptive_field(segmenter, pixels, pixel=pixel)
    return figures


def _explain_classifier(
    pixels: NDArray[np.uint8], name: str, weights: Path, classes: list[str]
) -> dict[str, Image.Image]:
    from ..backbones import BACKBONES
    from ..backbones.classifier import ClassifierBackbone
    from ..visualization.explain import classifier_probability, draw_heat_map
    from ..weights.importing import load_classifier

    numbers = [int(word) for word in classes if word.isdecimal()]
    if not classes or len(numbers) < len(classes):
        what = f"expected class numbers of the classifier, got {', '.join(classes) or 'none'}"
        raise InputError("--class", what, "write it as --class 281")
    backbone = BACKBONES.create(name, num_classes=IMAGENET_CLASSES)
    if not isinstance(backbone, ClassifierBackbone):
        raise ConfigError(name, "is not an image classifier", "choose one of vgg16, alexnet, googlenet")
    preprocessing = load_classifier(backbone, weights).preprocessing
    figures = {}
    for k in numbers:
        probability = classifier_probability(backbone, pixels, class_index=k, preprocessing=preprocessing)
        figures[f"heatmap_class_{k}.png"] = draw_heat_map(pixels, probability, name=f"class {k}")
    return figures


def class_number(word: str, names: tuple[str, ...]) -> int:
    """Return the class id of a name or number. Raises InputError with the nearest names."""
    if word in names:
        return names.index(word)
    if word.isdecimal() and int(word) < len(names):
        return int(word)
    raise InputError(f"class {word}", "unknown class", suggest(word, names))


def heat_map_names(wanted: Sequence[int], names: Sequence[str]) -> dict[int, str]:
    """Return the file name, without ending, of each class's heat map; a class id tells equal names apart."""
    from ..inference.jobs import cut_name
    from ..taxonomy import safe_name

    stems = {k: f"heatmap_{safe_name(names[k])}" for k in wanted}
    count = Counter(stem.casefold() for stem in stems.values())
    return {k: cut_name(f"{stem}_{k}" if count[stem.casefold()] > 1 else stem, ".png") for k, stem in stems.items()}
