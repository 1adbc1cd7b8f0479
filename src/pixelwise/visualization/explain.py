"""Figures that explain the labels of a network: heat maps, the share of each skip, activations, receptive fields.

Source: FCN (https://arxiv.org/abs/1411.4038), figure 2 (heat maps of a classifier) and section 4.2 (skips).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor, nn

from ..analysis.mult_adds import on_meta
from ..analysis.profile import measure_strides
from ..analysis.receptive_field import receptive_field_size, receptive_field_window
from ..backbones import Backbone
from ..backbones.classifier import ClassifierBackbone
from ..core import Window
from ..errors import ConfigError, InputError
from ..images.legend import GAP, legend, legend_entries
from ..inference.label_map import as_batch
from ..inference.segmenter import Segmenter
from ..models.base import SegmentationModel
from ..nn.geometry import coordinates, layers_of
from ..nn.preprocessing import Preprocess
from ..registry import suggest
from .panels import INFERNO, VIRIDIS, Panel, color_scale, contact_sheet, fit, gray, heat

# Longest side in pixels of a panel, of a panel with a receptive field, and of a feature map.
PANEL, FIELD, TILE = 400, 380, 160
# Feature maps reach the brightest color at this percentile: a few large values at the border would darken all others.
BRIGHTEST = 99.5
# Channels drawn per layer.
NUM_CHANNELS = 5
# The share of the gradient inside the inner box of a receptive field.
CORE = 0.95
# Powers of ten that the colors of a gradient span.
DECADES = 4
# (color, line width) of the outer and the inner box: neither is a color of the heat map. The outer box is not white,
# because the box of a large receptive field lies at the border of the panel, on white.
BOXES = (((0, 215, 255), 3), ((255, 255, 255), 1))


def draw_heat_map(image: NDArray[np.uint8], probability: NDArray[np.float32], *, name: str) -> Image.Image:
    """Draw the image beside the probability of one class at each of its pixels, with a color scale.

    image (H, W, 3) uint8 RGB; probability (H, W) 0..1; name of the class.
    """
    row, column = np.unravel_index(int(probability.argmax()), probability.shape)
    note = f"mean {probability.mean():.1%}, largest {probability.max():.1%} at row {row}, column {column}"
    fitted = fit(image, PANEL)
    colored = fit(heat(probability, low=0, high=1, colormap=INFERNO), PANEL)
    panels = [Panel(fitted, "image"), Panel(colored, f"probability of {name}", note)]
    scale = color_scale("0", "1", width=2 * fitted.width + GAP, colormap=INFERNO, label="probability")
    return contact_sheet(panels, 2, footer=scale)


def class_probability(logits: Tensor, class_index: int, *, multilabel: bool = False) -> NDArray[np.float32]:
    """Return the softmax probability (H, W) float32 of one class of logits (K, H, W), or the sigmoid if `multilabel`.

    Raises InputError beyond K.
    """
    if not 0 <= class_index < logits.shape[0]:
        raise InputError("class", f"must be 0 to {logits.shape[0] - 1}, got {class_index}", "give the id of a class")
    probs = logits[class_index].float().sigmoid() if multilabel else logits.float().softmax(0)[class_index]
    return np.asarray(probs.cpu().numpy(), np.float32)


@torch.inference_mode()
def classifier_probability(
    classifier: ClassifierBackbone,
    image: NDArray[np.uint8],
    *,
    class_index: int,
    preprocessing: str = "torchvision",
) -> NDArray[np.float32]:
    """Return the probability (H, W) float32 that an image classifier gives one class in the window around each pixel.

    The fully connected layers become convolutions (figure 2), which evaluate windows one stride apart. Between the
    centers of the windows the map is interpolated; beyond the outermost centers it keeps their values.

    image          (H, W, 3) uint8 RGB, at least as large as the classifier's own input
    preprocessing  of the classifier, a name of `nn.preprocessing.PREPROCESSING`
    """
    side = classifier.input_size
    if min(image.shape[:2]) < side:
        what = f"expected at least {side}x{side} pixels, the classifier's window, got {image.shape[0]}x{image.shape[1]}"
        raise InputError("image", what, "enlarge it")
    sliding = classifier.eval().convolutionalize().eval()
    normalized = Preprocess(preprocessing, image.shape[2])(as_batch(image, torch.device("cpu")))
    probability = class_probability(sliding(normalized)[0], class_index)
    # Pixel p lies at scale * p + shift on the map.
    to_map = coordinates(layers_of([sliding]))
    scale, shift = np.float32(float(to_map.scale)), float(to_map.shift)
    rows, columns = (
        np.clip(scale * np.arange(pixels, dtype=np.float32) + shift, 0, cells - 1)
        for pixels, cells in zip(image.shape[:2], probability.shape, strict=True)
    )
    x, y = (axis.astype(np.float32) for axis in np.meshgrid(columns, rows))
    return np.asarray(cv2.remap(probability, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)


@torch.inference_mode()
def draw_skips(segmenter: Segmenter, image: NDArray[Any]) -> Image.Image | None:
    """Draw the labels from the coarsest map alone, then with one more map each, and the pixels that each map changes.

    image (H, W, C) of the segmenter's pixel format. Returns None for logits that are not a sum over several maps.
    """
    added = segmenter.model.contributions(as_batch(image, segmenter.device))
    if len(added) < 2:
        return None
    rgb = segmenter.pixels.to_rgb(image)
    taxonomy = segmenter.taxonomy.for_figures()
    palette = taxonomy.palette()
    labels = cumulative_labels(added)
    first, *others = added
    titles = [f"{first} alone", *(f"+ {name}" for name in others)]
    above = [Panel(fit(palette[mask], PANEL, labels=True), title) for mask, title in zip(labels, titles, strict=True)]
    below = [Panel(fit(rgb, PANEL), "image")]
    for name, (before, after) in zip(others, pairwise(labels), strict=True):
        changed = before != after
        drawn = np.where(changed[..., None], palette[after], gray(rgb, 0.35))
        note = f"{changed.mean():.1%} of the pixels, in their new color"
        below.append(Panel(fit(drawn, PANEL, labels=True), f"changed by {name}", note))
    width = len(above) * (below[0].image.width + GAP) - GAP
    entries = legend_entries(labels, taxonomy)
    return contact_sheet([*above, *below], len(above), footer=legend(entries, width))


def cumulative_labels(added: dict[str, Tensor]) -> list[NDArray[np.int64]]:
    """Return labels (H, W) from the first map of `contributions` alone, from the first two, and so on."""
    total = torch.zeros(())
    labels = []
    for logits in added.values():
        total = total.to(logits) + logits
        labels.append(total[0].argmax(0).cpu().numpy())
    return labels


def draw_activations(segmenter: Segmenter, image: NDArray[Any], *, layers: Sequence[str] = ()) -> Image.Image:
    """Draw one row per layer: the mean magnitude over its channels, then its strongest channels.

    layers  names of modules as `named_modules()` gives them, or of the backbone's maps (pool4); by default a shallow
            and a deep one
    Raises ConfigError for an unknown name, or a module that returns no map.
    """
    maps = feature_maps(segmenter.model, as_batch(image, segmenter.device), layers)
    panels: list[Panel] = []
    for name, features in maps.items():
        strength = features.abs().mean((1, 2))
        strongest = strength.argsort(descending=True)[:NUM_CHANNELS].tolist()
        size = f"{features.shape[0]} maps of {features.shape[1]} x {features.shape[2]}"
        panels.append(Panel(_tile(features.abs().mean(0), image), f"{name}: mean", size))
        panels += [Panel(_tile(features[k], image), f"map {k}", f"mean {float(strength[k]):.3g}") for k in strongest]
        # Layers with few channels leave the rest of their row empty.
        panels += [Panel(Image.new("RGB", (1, 1), "white"))] * (NUM_CHANNELS - len(strongest))
    footer = color_scale("low", "high", width=2 * panels[0].image.width + GAP, label="each map by itself")
    return contact_sheet(panels, NUM_CHANNELS + 1, footer=footer)


def _tile(features: Tensor, image: NDArray[Any]) -> Image.Image:
    """Draw one map (h, w) in the shape of the image, from its smallest value to nearly its largest."""
    values = features.cpu().numpy()
    scale = TILE / max(image.shape[:2])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    high = float(np.percentile(values, BRIGHTEST))
    colors = heat(values, low=float(values.min()), high=high, colormap=VIRIDIS)
    return Image.fromarray(cv2.resize(colors, size, interpolation=cv2.INTER_NEAREST_EXACT))


@torch.inference_mode()
def feature_maps(model: SegmentationModel, images: Tensor, layers: Sequence[str] = ()) -> dict[str, Tensor]:
    """Return layer name -> feature map (C, h, w) for images (1, C, H, W); `layers` as in `draw_activations`."""
    modules = dict(model.named_modules())
    backbone = next((module for module in modules.values() if isinstance(module, Backbone)), None)
    map_names = () if backbone is None else backbone.map_names
    # Preprocessing and dropout make no map of their own.
    own_layers = [
        name for name, layer in model.named_children() if not isinstance(layer, Preprocess | nn.Dropout | nn.Dropout2d)
    ]
    seen: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, args: Any, output: Any) -> None:
        # Cloned, because an in-place activation would change it afterwards.
        if isinstance(output, Tensor) and output.ndim == 4:
            seen[name] = output[0].float().clone()

    def keep_maps(module: nn.Module, args: Any, outputs: list[Tensor]) -> None:
        for name, output in zip(map_names, outputs, strict=True):
            keep(name, module, args, output)

    watched = [name for name in layers if name in modules] or own_layers
    handles = [modules[name].register_forward_hook(partial(keep, name)) for name in watched]
    if backbone is not None:
        handles.append(backbone.register_forward_hook(keep_maps))
    try:
        model.forward_low_res(images)
    finally:
        for handle in handles:
            handle.remove()
    if not layers:
        if map_names:
            layers = (map_names[0], map_names[-1])
        else:
            # The first layer, and the last one at the lowest resolution: the shallow and the deep end of the network.
            coarsest = min(features.shape[1] for features in seen.values())
            layers = (next(iter(seen)), [name for name in seen if seen[name].shape[1] == coarsest][-1])
    unknown = next((name for name in layers if name not in seen), None)
    if unknown is not None:
        what = "returns no feature map" if unknown in modules else "is not a layer of this network"
        raise ConfigError(f"layer {unknown}", what, suggest(unknown, [*map_names, *(name for name in modules if name)]))
    return {name: seen[name] for name in layers}


def draw_receptive_field(
    segmenter: Segmenter, image: NDArray[Any], *, pixel: tuple[int, int] | None = None
) -> Image.Image:
    """Draw the pixels that the label at `pixel` (row, column; by default the center) depends on.

    Outer box: all pixels that can influence the label, from the network's structure. Color: their influence in this
    image, the gradient of the winning class's logit. Inner box: the central pixels that hold 95 % of the gradient.
    Raises InputError for a pixel outside the image.
    """
    height, width = image.shape[:2]
    row, column = (height // 2, width // 2) if pixel is None else pixel
    if not (0 <= row < height and 0 <= column < width):
        what = f"got row {row}, column {column}, the image is {height}x{width}"
        raise InputError("pixel", what, "rows and columns count from 0")
    model = segmenter.model
    strength = input_gradient(model, as_batch(image, segmenter.device), (row, column))
    if model.fixed_input_size:
        outer, size = Window(0, 0, height, width), None
    else:
        outer = receptive_field_window(model, (height, width), (row, column))
        with on_meta():
            stride = measure_strides(model.spec.build().eval())[1]
        size = receptive_field_size(model, stride)
    inner = core_window(strength, (row, column))

    rgb = segmenter.pixels.to_rgb(image)
    faded = gray(rgb, 0.3)
    inside = np.s_[outer.top : outer.bottom, outer.left : outer.right]
    faded[inside] = rgb[inside]
    # Blurred a little, because strides leave a lattice in the gradient.
    blurred = cv2.GaussianBlur(strength.astype(np.float64), (0, 0), max(height, width) / 200)
    share = np.maximum(blurred / max(float(blurred.max()), 1e-300), 10.0**-DECADES)
    colored = heat(np.log10(share), low=-DECADES, high=0, colormap=INFERNO)

    most = "the whole image" if size is None else f"at most {size} x {size} pixels"
    heading = f"Receptive field: {most}"
    seen = f"from row {row}, column {column}: {outer.size[0]} x {outer.size[1]}"
    held = f"{CORE:.0%} of it in the central {inner.size[0]} x {inner.size[1]}"
    panels = [
        Panel(_boxed(faded, (outer,), (row, column)), "pixels that can count", seen),
        Panel(_boxed(colored, (outer, inner), (row, column)), "how much they count: the gradient", held),
    ]
    footer = color_scale(
        f"1 / {10**DECADES:,} and less",
        "most",
        width=2 * panels[0].image.width + GAP,
        colormap=INFERNO,
        label="influence, logarithmic",
    )
    return contact_sheet(panels, 2, heading=heading, footer=footer)


def input_gradient(model: SegmentationModel, images: Tensor, pixel: tuple[int, int]) -> NDArray[np.float32]:
    """Return |d logit / d input| summed over channels, (H, W) float32, of the class that wins at `pixel`."""
    pixels = images.float().requires_grad_()
    at_pixel = model(pixels).logits[0, :, pixel[0], pixel[1]]
    (gradient,) = torch.autograd.grad(at_pixel.max(), pixels)
    return np.asarray(gradient[0].abs().sum(0).cpu().numpy(), np.float32)


def core_window(strength: NDArray[np.float32], pixel: tuple[int, int], *, share: float = CORE) -> Window:
    """Return the smallest square around `pixel`, cut at the border, that holds `share` of the sum of `strength`."""
    rows, columns = (np.abs(np.arange(n) - at) for n, at in zip(strength.shape, pixel, strict=True))
    distance = np.maximum(rows[:, None], columns[None])
    held = np.cumsum(np.bincount(distance.ravel(), strength.ravel().astype(np.float64)))
    half = int(np.searchsorted(held, share * held[-1]))
    (row, column), (height, width) = pixel, strength.shape
    return Window(max(row - half, 0), max(column - half, 0), min(row + half + 1, height), min(column + half + 1, width))


def _boxed(pixels: NDArray[np.uint8], windows: Sequence[Window], pixel: tuple[int, int]) -> Image.Image:
    """Draw boxes on the image, the first one stronger, and a cross on the pixel."""
    image = fit(pixels, FIELD)
    scale = image.width / pixels.shape[1]
    draw = ImageDraw.Draw(image)
    for window, (color, line_width) in zip(windows, BOXES, strict=False):
        corners = [window.left, window.top, window.right, window.bottom]
        left, top, right, bottom = (round(corner * scale) for corner in corners)
        draw.rectangle((left, top, right - 1, bottom - 1), outline=color, width=line_width)
    y, x = (round((at + 0.5) * scale) for at in pixel)
    draw.line((x - 7, y, x + 7, y), BOXES[0][0], 1)
    draw.line((x, y - 7, x, y + 7), BOXES[0][0], 1)
    return image
