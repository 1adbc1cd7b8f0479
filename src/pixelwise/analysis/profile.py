"""What a network costs: parameters, multiply-adds, memory of activations, strides, receptive field, speed on this machine.

Counting, source: `nn/count.py`; parameters are the learnable numbers, buffers (running statistics, fixed kernels) are
told apart; multiply-adds are those of convolutions, transposed convolutions and matrix products at batch 1.
Counts are taken on the `meta` device, where a network has shapes but no numbers and takes no memory.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..inference.label_map import label_map
from ..models import ModelSpec
from ..models.base import SegmentationModel
from .mult_adds import multiply_adds, num_parameters
from .receptive_field import receptive_field_size

# Lengths of image on which strides are measured: their difference is a multiple of every usual stride.
_LENGTHS = (512, 1024)
# Output pixels whose fields are compared: a pixel between two cells sees more than one on a cell.
_POSITIONS = (240, 253, 266)
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Part:
    """One top-level module; the part named "functions" holds what belongs to no module.

    activations  numbers that its layers put out at batch 1, in-place layers not counted again
    """

    name: str
    parameters: int
    buffers: int
    multiply_adds: int
    activations: int


@dataclass(frozen=True)
class Speed:
    """Time from the image's array to its label map: the median of `num_runs` runs after one that is not counted."""

    median_ms: float
    num_runs: int
    threads: int
    precision: str
    device: str


@dataclass(frozen=True)
class Profile:
    """The costs of a network for one image of `size` (height, width) in pixels.

    score_stride      pixels of the image per cell of the scores before the last upsampling
    coarsest_stride   the same for the network's coarsest map
    receptive_field   pixels a side that an output pixel can depend on; None where it is the whole image
    map_fields        the same for single maps, where the network describes them
    """

    name: str
    num_classes: int
    size: tuple[int, int]
    parts: tuple[Part, ...]
    score_stride: int
    coarsest_stride: int
    receptive_field: int | None
    map_fields: dict[str, int]
    largest_activation: int
    speed: Speed | None = None

    @property
    def parameters(self) -> int:
        """Learnable numbers."""
        return sum(part.parameters for part in self.parts)

    @property
    def buffers(self) -> int:
        """Numbers that are stored or built but not learned."""
        return sum(part.buffers for part in self.parts)

    @property
    def multiply_adds(self) -> int:
        """Of one image, at batch 1."""
        return sum(part.multiply_adds for part in self.parts)

    @property
    def training_bytes(self) -> int:
        """Estimate of what a training step keeps for one image: every layer's output in float32."""
        return FLOAT_BYTES * sum(part.activations for part in self.parts)

    @property
    def inference_bytes(self) -> int:
        """Estimate of what prediction holds at once: twice the largest output in float32, as input and output of a layer."""
        return 2 * FLOAT_BYTES * self.largest_activation

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        totals = ("parameters", "buffers", "multiply_adds", "training_bytes", "inference_bytes")
        return asdict(self) | {name: getattr(self, name) for name in totals}


def profile_spec(spec: ModelSpec, size: tuple[int, int]) -> Profile:
    """Count a network for an image of `size` (height, width), without building its numbers. Raises ConfigError for a size of 0."""
    if min(size) < 1:
        raise ConfigError("size", f"got {size[0]}x{size[1]}, allowed are 1 pixel and more", "give height and width")
    with torch.device("meta"):
        model = spec.build().eval()
    images = torch.empty(1, spec.in_channels, *size, dtype=torch.uint8, device="meta")
    parts, largest = count_parts(model, images)
    return Profile(
        spec.name,
        spec.num_classes,
        size,
        parts,
        *strides(model),
        None if model.fixed_input_size else receptive_field_size(model, _LENGTHS[0], _POSITIONS),
        {name: field.size for name, field in model.receptive_fields().items()},
        largest,
    )


def with_speed(profile: Profile, model: SegmentationModel, num_runs: int = 5) -> Profile:
    """The profile with the speed of `model`, in eval mode with real numbers, on this machine's CPU in float32."""
    image = np.random.default_rng(0).integers(0, 256, (*profile.size, model.in_channels), np.uint8)
    device = torch.device("cpu")
    model = model.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    times = []
    with torch.inference_mode():
        for _ in range(num_runs + 1):
            start = time.perf_counter()
            label_map(model, image, device)
            times.append(1000 * (time.perf_counter() - start))
    return replace(
        profile, speed=Speed(statistics.median(times[1:]), num_runs, torch.get_num_threads(), "float32", "cpu")
    )


def count_parts(model: SegmentationModel, images: Tensor) -> tuple[tuple[Part, ...], int]:
    """Parts of a network on the meta device for images (1, C, H, W), and the numbers of the largest output."""
    adds: dict[str, int] = {}
    cells: dict[str, int] = {}
    largest = 0

    def count(name: str, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal largest
        adds[name] = adds.get(name, 0) + multiply_adds(lambda: layer.forward(*inputs))
        if isinstance(output, Tensor) and not any(output is given for given in inputs):
            cells[name] = cells.get(name, 0) + output.numel()
            largest = max(largest, output.numel())

    with torch.no_grad():
        total = multiply_adds(lambda: model(images))
        with _watched(model, count):
            model(images)
    names = [name for name, _ in model.named_children()]
    parts = [Part(name, *_numbers(model.get_submodule(name)), adds.get(name, 0), cells.get(name, 0)) for name in names]
    rest = total - sum(adds.values())
    return tuple(parts + ([Part("functions", 0, 0, rest, 0)] if rest else [])), largest


def strides(model: SegmentationModel) -> tuple[int, int]:
    """Pixels per cell of the scores, and of the coarsest map; measured by how many cells a longer image adds.

    For a network of one size only they are pixels of its own square.
    """
    if model.fixed_input_size:
        cells_of = _heights(model, model.fixed_input_size)
        return model.fixed_input_size // cells_of[""], model.fixed_input_size // min(cells_of.values())
    heights = [_heights(model, length) for length in _LENGTHS]
    added = {name: heights[1][name] - heights[0][name] for name in heights[0]}
    per_cell = {name: round((_LENGTHS[1] - _LENGTHS[0]) / cells) for name, cells in added.items() if cells > 0}
    return per_cell[""], max(per_cell.values())


def _heights(model: SegmentationModel, length: int) -> dict[str, int]:
    """Rows of every layer's map for an image of `length` rows; those of the scores under the empty name."""
    paths = {layer: path for path, layer in model.named_modules()}
    seen: dict[str, int] = {}

    def note(name: str, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            seen[paths[layer]] = output.shape[-2]

    images = torch.empty(1, model.in_channels, length, 64, dtype=torch.uint8, device="meta")
    with torch.no_grad(), _watched(model, note):
        seen[""] = model.forward_low_res(images).logits.shape[-2]
    return seen


@contextmanager
def _watched(model: nn.Module, note: Callable[[str, nn.Module, tuple[Any, ...], Any], None]) -> Iterator[None]:
    """While it lasts, `note(top-level name, layer, inputs, output)` hears of every call of a layer without children."""
    handles = []
    for path, layer in model.named_modules():
        if path and not any(True for _ in layer.children()):
            name = path.partition(".")[0]
            handles.append(
                layer.register_forward_hook(lambda m, inputs, output, name=name: note(name, m, inputs, output))
            )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _numbers(module: nn.Module) -> tuple[int, int]:
    """Learnable numbers, and those in floating-point buffers."""
    return num_parameters(module), sum(b.numel() for b in module.buffers() if b.is_floating_point())
