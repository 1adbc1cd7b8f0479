"""Images that show why a network labels as it does: heat maps, what each skip adds, activations, receptive fields.

Source: FCN (https://arxiv.org/abs/1411.4038), figure 2 (heat maps of a classifier) and section 4.2 (skips).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor, nn

from ..analysis.receptive_field import receptive_field_size, receptive_field_window
from ..backbones import Backbone
from ..backbones.classifier import ClassifierBackbone
from ..core import Taxonomy, Window
from ..errors import ConfigError, InputError
from ..inference.segmenter import Segmenter
from ..models.base import SegmentationModel
from ..nn.convolutionalize import convolutionalize
from ..nn.geometry import coordinates, layers_of
from ..nn.preprocessing import Preprocess
from ..registry import suggest
from .panels import GAP, INFERNO, VIRIDIS, Panel, color_scale, contact_sheet, fit, gray, heat, legend

PANEL = 400
FIELD = 380
TILE = 160
# Above this percentile a map is drawn in the brightest colour: a few border cells would darken all others.
BRIGHTEST = 99.5
NUM_CHANNELS = 5
# What changes no map, or only while training.
_UNSEEN = (Preprocess, nn.Dropout, nn.Dropout2d)
# The share of the gradient that the inner box of a receptive field holds.
CORE = 0.95
# Powers of ten that the colours of a gradient span.
DECADES = 4
# Outer box, inner box. Neither is a colour of the heat; white would end in the paper where a box meets the border.
BOXES = (((0, 215, 255), 3), ((255, 255, 255), 1))


def heat_map(image: NDArray[np.uint8], probability: NDArray[np.float32], name: str) -> Image.Image:
    """The image beside the probability of one class at each of its pixels, with a colour scale.

    image (H, W, 3) uint8 RGB; probability (H, W) 0..1; name of the class.
    """
    row, column = np.unravel_index(int(probability.argmax()), probability.shape)
    note = f"mean {probability.mean():.1%}, largest {probability.max():.1%} at row {row}, column {column}"
    fitted = fit(image, PANEL)
    panels = [
        Panel(fitted, "image"),
        Panel(fit(heat(probability, 0, 1, INFERNO), PANEL), f"probability of {name}", note),
    ]
    return contact_sheet(panels, 2, footer=color_scale("0", "1", 2 * fitted.width + GAP, INFERNO, "probability"))


def class_probability(scores: Tensor, class_index: int) -> NDArray[np.float32]:
    """Scores (K, H, W) -> softmax probability (H, W) float32 of one class. Raises InputError for a class beyond K."""
    if not 0 <= class_index < scores.shape[0]:
        raise InputError("class", f"got {class_index}, allowed are 0 to {scores.shape[0] - 1}")
    return np.asarray(scores.float().softmax(0)[class_index].cpu().numpy(), np.float32)


def classifier_heat_map(
    classifier: ClassifierBackbone,
    image: NDArray[np.uint8],
    class_index: int,
    name: str = "",
    preprocessing: str = "torchvision",
) -> Image.Image:
    """The heat map of an image classifier that was made to slide over the image; arguments as in `classifier_probability`."""
    probability = classifier_probability(classifier, image, class_index, preprocessing)
    return heat_map(image, probability, name or f"class {class_index}")


@torch.inference_mode()
def classifier_probability(
    classifier: ClassifierBackbone, image: NDArray[np.uint8], class_index: int, preprocessing: str = "torchvision"
) -> NDArray[np.float32]:
    """(H, W) float32: the probability of one class, where the centre of the classifier's window lies on the pixel.

    image          (H, W, 3) uint8 RGB, no smaller than the classifier's own input
    preprocessing  how the classifier wants its pixels, a name of `nn.model.PREPROCESSING`
    Between the windows that the net looks at the map is interpolated; beyond the outermost ones it goes on as they are.
    """
    side = classifier.input_size
    if min(image.shape[:2]) < side:
        what = f"is {image.shape[0]}x{image.shape[1]}, the classifier looks at {side}x{side} pixels"
        raise InputError("image", what, "enlarge it")
    sliding = convolutionalize(classifier.eval(), side, image.shape[2]).eval()
    normalised = Preprocess(preprocessing, image.shape[2])(_images(image, torch.device("cpu")))
    cells = class_probability(sliding(normalised)[0], class_index)
    where = coordinates(layers_of([sliding]))
    rows, columns = (
        np.float32(float(where.scale)) * np.arange(n, dtype=np.float32) + float(where.shift) for n in image.shape[:2]
    )
    x, y = np.meshgrid(np.clip(columns, 0, cells.shape[1] - 1), np.clip(rows, 0, cells.shape[0] - 1))
    spread = cv2.remap(
        cells, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(spread, np.float32)


@torch.inference_mode()
def skips(segmenter: Segmenter, image: NDArray[np.uint8]) -> Image.Image | None:
    """What each skip adds: labels from the coarsest map alone, then with one map more, and the pixels that each changes.

    image (H, W, 3) uint8 RGB. None for a network that is no sum of several maps.
    """
    model = segmenter.model
    added = model.contributions(_images(image, segmenter.device))
    if len(added) < 2:
        return None
    labels = stages(added)
    names = list(added)
    first = Panel(fit(image, PANEL), "image")
    above = [
        _labels(mask, segmenter.taxonomy, f"{names[0]} alone" if n == 0 else f"+ {names[n]}")
        for n, mask in enumerate(labels)
    ]
    below = [
        _changed(image, *pair, segmenter.taxonomy, name) for pair, name in zip(pairwise(labels), names[1:], strict=True)
    ]
    present = sorted({int(k) for mask in labels for k in np.unique(mask)})
    entries = [(segmenter.taxonomy.names[k], segmenter.taxonomy.colors[k]) for k in present]
    width = len(above) * (first.image.width + GAP) - GAP
    return contact_sheet([*above, first, *below], len(above), footer=legend(entries, width))


def stages(added: dict[str, Tensor]) -> list[NDArray[np.int64]]:
    """What each map adds, coarsest first (1, K, H, W) -> labels (H, W) from the first alone, the first two, and so on."""
    total = torch.zeros(())
    labels = []
    for logits in added.values():
        total = total.to(logits) + logits
        labels.append(total[0].argmax(0).cpu().numpy())
    return labels


def activations(segmenter: Segmenter, image: NDArray[np.uint8], layers: Sequence[str] = ()) -> Image.Image:
    """A row a layer: the mean of its channels' magnitudes, and its strongest channels.

    layers  names of modules as `named_modules()` gives them, or of the backbone's maps (pool4); left out, a shallow and a deep one
    Raises ConfigError for a name that the network does not have, or that is no map.
    """
    maps = feature_maps(segmenter.model, _images(image, segmenter.device), layers)
    panels: list[Panel] = []
    for name, cells in maps.items():
        strength = cells.abs().mean((1, 2))
        strongest = strength.argsort(descending=True)[:NUM_CHANNELS].tolist()
        size = f"{cells.shape[0]} maps of {cells.shape[1]} x {cells.shape[2]}"
        panels.append(Panel(_tile(cells.abs().mean(0), image), f"{name}: mean", size))
        panels += [Panel(_tile(cells[k], image), f"map {k}", f"mean {float(strength[k]):.3g}") for k in strongest]
        # Layers with few channels leave the rest of their row free.
        panels += [Panel(Image.new("RGB", (1, 1), "white"))] * (NUM_CHANNELS - len(strongest))
    footer = color_scale("low", "high", 2 * panels[0].image.width + GAP, VIRIDIS, "each map by itself")
    return contact_sheet(panels, NUM_CHANNELS + 1, footer=footer)


@torch.inference_mode()
def feature_maps(model: SegmentationModel, images: Tensor, layers: Sequence[str] = ()) -> dict[str, Tensor]:
    """Layer name -> its map (C, h, w) for images (1, C, H, W); layers as in `activations`."""
    modules = dict(model.named_modules())
    own_layers = [name for name, layer in model.named_children() if not isinstance(layer, _UNSEEN)]
    watched = [name for name in layers if name in modules] or own_layers
    seen: dict[str, Tensor] = {}
    handles = [modules[name].register_forward_hook(_keep(seen, name)) for name in watched]
    backbone = next((module for module in modules.values() if isinstance(module, Backbone)), None)
    names: Sequence[str] = (
        () if backbone is None else getattr(backbone, "map_names", [f"map{i}" for i in range(len(backbone.strides))])
    )
    if backbone is not None:
        handles.append(backbone.register_forward_hook(_keep_all(seen, names)))
    try:
        model.forward_low_res(images)
    finally:
        for handle in handles:
            handle.remove()
    if not layers:
        own = names or _ends(seen)
        return {name: seen[name] for name in dict.fromkeys((own[0], own[-1]))}
    unknown = next((name for name in layers if name not in seen), None)
    if unknown is not None:
        what = "gives no map" if unknown in modules else "is no layer of this network"
        raise ConfigError(f"layer {unknown}", what, suggest(unknown, [*names, *(name for name in modules if name)]))
    return {name: seen[name] for name in layers}


def _ends(seen: dict[str, Tensor]) -> list[str]:
    """The first layer, and the last of those at the lowest resolution: the shallow and the deep end of a network."""
    coarsest = min(cells.shape[1] for cells in seen.values())
    return [next(iter(seen)), [name for name, cells in seen.items() if cells.shape[1] == coarsest][-1]]


def _keep(seen: dict[str, Tensor], name: str) -> Any:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        # Cloned: a rectifier that works in place would change it afterwards.
        if isinstance(output, Tensor) and output.ndim == 4:
            seen[name] = output[0].float().clone()

    return hook


def _keep_all(seen: dict[str, Tensor], names: Iterable[str]) -> Any:
    def hook(module: nn.Module, args: Any, output: list[Tensor]) -> None:
        seen.update((name, cells[0].float().clone()) for name, cells in zip(names, output, strict=True))

    return hook


def receptive_field(
    segmenter: Segmenter, image: NDArray[np.uint8], pixel: tuple[int, int] | None = None
) -> Image.Image:
    """The pixels that influence the label at `pixel` (row, column; the centre when left out), drawn on the image.

    Outer box: all pixels that can count, from the network's structure. Colour: how much they count here, measured by the
    gradient of the winning class's logit. Inner box: the central pixels that hold 95 % of the gradient.
    Raises InputError for a pixel outside the image.
    """
    height, width = image.shape[:2]
    row, column = (height // 2, width // 2) if pixel is None else pixel
    if not (0 <= row < height and 0 <= column < width):
        what = f"got row {row}, column {column}, the image is {height}x{width}"
        raise InputError("pixel", what, "rows and columns count from 0")
    strength = gradient(segmenter.model, _images(image, segmenter.device), (row, column))
    outer, size = _reach(segmenter.model, (height, width), (row, column))
    inner = core_window(strength, (row, column))
    heading = f"Receptive field of the output at row {row}, column {column}: {size}"
    seen = f"{outer.size[0]} x {outer.size[1]} of them inside the image"
    held = f"{CORE:.0%} of it in the central {inner.size[0]} x {inner.size[1]}"
    panels = [
        Panel(_boxed(_pale_outside(image, outer), (outer,), (row, column)), "pixels that can count", seen),
        Panel(_boxed(_log_heat(strength), (outer, inner), (row, column)), "how much they count: the gradient", held),
    ]
    width = 2 * panels[0].image.width + GAP
    scale = color_scale(f"1 / {10**DECADES:,} and less", "most", width, INFERNO, "influence, logarithmic")
    return contact_sheet(panels, 2, heading, footer=scale)


def _reach(model: SegmentationModel, size: tuple[int, int], pixel: tuple[int, int]) -> tuple[Window, str]:
    """The pixels of an image of `size` that can count at `pixel`, and how many a side could, were the image endless."""
    if model.fixed_input_size:
        return Window(0, 0, *size), "the whole image"
    high, wide = (receptive_field_size(model, length, [at]) for length, at in zip(size, pixel, strict=True))
    words = "the whole image" if wide is None or high is None else f"{high} x {wide} pixels"
    return receptive_field_window(model, size, pixel), words


def gradient(model: SegmentationModel, images: Tensor, pixel: tuple[int, int]) -> NDArray[np.float32]:
    """|d logit / d input| summed over channels, (H, W) float32: the logit of the class that wins at `pixel`."""
    pixels = images.float().requires_grad_(True)
    at_pixel = model(pixels).logits[0, :, pixel[0], pixel[1]]
    (slope,) = torch.autograd.grad(at_pixel.max(), pixels)
    return np.asarray(slope[0].abs().sum(0).cpu().numpy(), np.float32)


def core_window(strength: NDArray[np.float32], pixel: tuple[int, int], share: float = CORE) -> Window:
    """The smallest window around `pixel`, of one reach to all sides and cut at the border, that holds `share` of the sum."""
    rows, columns = (np.abs(np.arange(n) - at) for n, at in zip(strength.shape, pixel, strict=True))
    distance = np.maximum(rows[:, None], columns[None])
    held = np.cumsum(np.bincount(distance.ravel(), strength.ravel().astype(np.float64)))
    reach = int(np.searchsorted(held, share * held[-1]))
    (row, column), (height, width) = pixel, strength.shape
    return Window(
        max(row - reach, 0), max(column - reach, 0), min(row + reach + 1, height), min(column + reach + 1, width)
    )


def _pale_outside(image: NDArray[np.uint8], window: Window) -> NDArray[np.uint8]:
    pale = gray(image, 0.3)
    inside = np.s_[window.top : window.bottom, window.left : window.right]
    pale[inside] = image[inside]
    return pale


def _log_heat(strength: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Gradients (H, W) as colours over DECADES powers of ten, a little blurred: strides leave a lattice in them."""
    blurred = cv2.GaussianBlur(strength.astype(np.float64), (0, 0), max(strength.shape) / 200)
    share = blurred / max(float(blurred.max()), 1e-300)
    return heat(np.log10(np.maximum(share, 10.0**-DECADES)), -DECADES, 0, INFERNO)


def _boxed(pixels: NDArray[np.uint8], windows: Sequence[Window], pixel: tuple[int, int]) -> Image.Image:
    """The image with boxes, the first one drawn stronger, and a cross on the pixel."""
    image = fit(pixels, FIELD)
    scale = image.width / pixels.shape[1]
    draw = ImageDraw.Draw(image)
    for window, (color, width) in zip(windows, BOXES, strict=False):
        corners = [window.left, window.top, window.right, window.bottom]
        left, top, right, bottom = (round(corner * scale) for corner in corners)
        draw.rectangle((left, top, right - 1, bottom - 1), outline=color, width=width)
    y, x = (round((at + 0.5) * scale) for at in pixel)
    draw.line((x - 7, y, x + 7, y), BOXES[0][0], 1)
    draw.line((x, y - 7, x, y + 7), BOXES[0][0], 1)
    return image


def _images(image: NDArray[np.uint8], device: torch.device) -> Tensor:
    """(H, W, C) uint8 -> (1, C, H, W) uint8."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].to(device)


def _labels(mask: NDArray[Any], taxonomy: Taxonomy, title: str) -> Panel:
    return Panel(fit(taxonomy.palette()[mask], PANEL, labels=True), title)


def _changed(
    image: NDArray[np.uint8], before: NDArray[Any], after: NDArray[Any], taxonomy: Taxonomy, name: str
) -> Panel:
    """The pixels that got another label, in its colour, on the pale image."""
    changed = before != after
    drawn = np.where(changed[..., None], taxonomy.palette()[after], gray(image, 0.35))
    return Panel(
        fit(drawn, PANEL, labels=True), f"changed by {name}", f"{changed.mean():.1%} of the pixels, in their new colour"
    )


def _tile(cells: Tensor, image: NDArray[np.uint8]) -> Image.Image:
    """One map (h, w) in the shape of the image, from its smallest value to nearly its largest."""
    values = cells.cpu().numpy()
    scale = TILE / max(image.shape[:2])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    colors = heat(values, float(values.min()), float(np.percentile(values, BRIGHTEST)), VIRIDIS)
    return Image.fromarray(cv2.resize(colors, size, interpolation=cv2.INTER_NEAREST_EXACT))
