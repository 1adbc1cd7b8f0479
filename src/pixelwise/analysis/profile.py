"""The costs of a network: parameters, multiply-adds, memory of activations, strides, receptive field, measured speed.

Everything but the speed is counted on the `meta` device, where tensors have shapes but no values and take no memory.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..errors import ConfigError
from ..inference.label_map import label_map
from ..models import ModelSpec, SegmentationModel
from .mult_adds import ShapesOnly, num_parameters, on_meta
from .receptive_field import receptive_field_size

# Heights of the two images on which strides are measured; their difference is a multiple of every usual stride.
_HEIGHTS = (512, 1024)
FLOAT_BYTES = 4


@dataclass(frozen=True)
class ModuleCost:
    """The costs of one top-level module; the entry named "functions" is the computation outside any module.

    parameters     learnable numbers
    buffers        numbers that are stored or built but not learned: running statistics, fixed kernels
    multiply_adds  of one image
    activations    numbers in the outputs of its layers for one image; layers that work in place do not count again
    """

    name: str
    parameters: int
    buffers: int
    multiply_adds: int
    activations: int


@dataclass(frozen=True)
class Speed:
    """Time from the image array to the label map: the median of `num_runs` runs, after one warm-up run."""

    median_ms: float
    num_runs: int
    threads: int
    precision: str
    device: str


@dataclass(frozen=True)
class Profile:
    """The costs of a network for one image of `size` (height, width) in pixels.

    logits_stride             image pixels per position of the logits before the last upsampling
    coarsest_stride           the same for the network's coarsest feature map
    receptive_field           the most pixels per side that an output pixel depends on; None for the whole image
    feature_receptive_fields  the same for named feature maps, where the network describes them
    largest_activation        numbers in the largest output of a layer
    """

    name: str
    num_classes: int
    size: tuple[int, int]
    modules: tuple[ModuleCost, ...]
    logits_stride: int
    coarsest_stride: int
    receptive_field: int | None
    feature_receptive_fields: Mapping[str, int]
    largest_activation: int
    speed: Speed | None = None

    @property
    def parameters(self) -> int:
        """Learnable numbers."""
        return sum(module.parameters for module in self.modules)

    @property
    def buffers(self) -> int:
        """Numbers that are stored or built but not learned."""
        return sum(module.buffers for module in self.modules)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one image: convolutions, transposed convolutions and matrix products."""
        return sum(module.multiply_adds for module in self.modules)

    @property
    def activations(self) -> int:
        """Numbers in the outputs of all layers for one image."""
        return sum(module.activations for module in self.modules)

    @property
    def training_bytes(self) -> int:
        """Estimated memory of a training step per image: every layer's output in float32."""
        return FLOAT_BYTES * self.activations

    @property
    def inference_bytes(self) -> int:
        """Estimated memory of prediction: the input and output of the largest layer in float32."""
        return 2 * FLOAT_BYTES * self.largest_activation

    def to_dict(self) -> dict[str, Any]:
        """Return the profile and its totals as JSON values."""
        return asdict(self) | {
            "parameters": self.parameters,
            "buffers": self.buffers,
            "multiply_adds": self.multiply_adds,
            "training_bytes": self.training_bytes,
            "inference_bytes": self.inference_bytes,
        }


def profile_spec(spec: ModelSpec, size: tuple[int, int]) -> Profile:
    """Count the costs of a network for an image of `size` (height, width), without allocating its weights.

    Raises ConfigError for a size below 1 pixel.
    """
    if min(size) < 1:
        raise ConfigError("size", f"must be >= 1 x 1 pixels, got {size[0]} x {size[1]}", "give height and width")
    with on_meta():
        model = spec.build().eval()
    images = torch.empty(1, spec.in_channels, *size, dtype=torch.uint8, device="meta")
    modules, largest_activation = count_modules(model, images)
    logits_stride, coarsest_stride = measure_strides(model)
    # A network that resizes every image to one square sees the whole image.
    field = None if model.fixed_input_size else receptive_field_size(model, coarsest_stride)
    return Profile(
        name=spec.name,
        num_classes=spec.num_classes,
        size=size,
        modules=modules,
        logits_stride=logits_stride,
        coarsest_stride=coarsest_stride,
        receptive_field=field,
        feature_receptive_fields={name: field.size for name, field in model.receptive_fields().items()},
        largest_activation=largest_activation,
    )


def with_speed(profile: Profile, model: SegmentationModel, num_runs: int = 5) -> Profile:
    """Return the profile with the speed of `model` on this machine's CPU, in eval mode and float32."""
    image = np.random.default_rng(0).integers(0, 256, (*profile.size, model.in_channels), np.uint8)
    device = torch.device("cpu")
    model = model.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    times_ms = []
    with torch.inference_mode():
        for _ in range(num_runs + 1):
            start = time.perf_counter()
            label_map(model, image, device)
            times_ms.append(1000 * (time.perf_counter() - start))
    speed = Speed(statistics.median(times_ms[1:]), num_runs, torch.get_num_threads(), "float32", "cpu")
    return replace(profile, speed=speed)


def count_modules(model: SegmentationModel, images: Tensor) -> tuple[tuple[ModuleCost, ...], int]:
    """Count the costs of each top-level module for images (1, C, H, W), and the numbers in the largest layer output.

    The model and the images may lie on the meta device.
    """
    flops = dict.fromkeys((name for name, _ in model.named_children()), 0)
    activations = dict.fromkeys(flops, 0)
    largest = 0
    counter = FlopCounterMode(display=False)
    flops_before: dict[nn.Module, int] = {}

    def before(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        flops_before[layer] = counter.get_total_flops()

    def after(name: str, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal largest
        flops[name] += counter.get_total_flops() - flops_before[layer]
        if isinstance(output, Tensor) and not any(output is each for each in inputs):
            activations[name] += output.numel()
            largest = max(largest, output.numel())

    handles = []
    for path, layer in _leaf_layers(model):
        top_level = path.partition(".")[0]
        handles.append(layer.register_forward_pre_hook(before))
        handles.append(layer.register_forward_hook(lambda *call, name=top_level: after(name, *call)))
    with torch.no_grad(), ShapesOnly(), counter:
        model(images)
    for handle in handles:
        handle.remove()

    costs = []
    for name, module in model.named_children():
        buffers = sum(buffer.numel() for buffer in module.buffers() if buffer.is_floating_point())
        # torch counts a multiply-add as two floating-point operations.
        costs.append(ModuleCost(name, num_parameters(module), buffers, flops[name] // 2, activations[name]))
    in_functions = counter.get_total_flops() - sum(flops.values())
    if in_functions:
        costs.append(ModuleCost("functions", 0, 0, in_functions // 2, 0))
    return tuple(costs), largest


def measure_strides(model: SegmentationModel) -> tuple[int, int]:
    """Return the image pixels per position of the logits, and of the coarsest feature map.

    They are measured by the rows that a feature map gains on a taller image, which padding and cropping do not change.
    For a network that resizes every image to one square they are pixels of that square.
    """
    if model.fixed_input_size:
        heights = _feature_heights(model, model.fixed_input_size)
        return model.fixed_input_size // heights["logits"], model.fixed_input_size // min(heights.values())
    low, high = (_feature_heights(model, height) for height in _HEIGHTS)
    # The output of a global pooling gains no rows and has no stride.
    gained = {name: high[name] - low[name] for name in low if high[name] > low[name]}
    strides = {name: round((_HEIGHTS[1] - _HEIGHTS[0]) / rows) for name, rows in gained.items()}
    return strides["logits"], max(strides.values())


def _feature_heights(model: SegmentationModel, height: int) -> dict[str, int]:
    """Return the rows of each layer's output, by the layer's path, and of "logits", for an image of `height` rows."""
    heights: dict[str, int] = {}

    def note(path: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            heights[path] = output.shape[-2]

    handles = [
        layer.register_forward_hook(lambda layer, inputs, output, path=path: note(path, output))
        for path, layer in _leaf_layers(model)
    ]
    with torch.no_grad(), ShapesOnly():
        images = torch.empty(1, model.in_channels, height, 64, dtype=torch.uint8, device="meta")
        heights["logits"] = model.forward_low_res(images).logits.shape[-2]
    for handle in handles:
        handle.remove()
    return heights


def _leaf_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers without children, with their paths."""
    return ((path, layer) for path, layer in model.named_modules() if path and next(layer.children(), None) is None)
