"""`pixelwise profile`: measure what a network costs."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from ..errors import ConfigError
from ._console import text

if TYPE_CHECKING:
    from ..analysis.profile import Profile
    from ..models import ModelSpec, SegmentationModel


def profile(
    name: str,
    /,
    *,
    size: Annotated[tuple[int, int], Parameter(negative="")] = (512, 512),
    num_classes: int | None = None,
    speed: bool = True,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Measure a network: parameters, multiply-adds, receptive field, stride, speed.

    Parameters
    ----------
    name
        A registered network (see `pixelwise models`), a run, a checkpoint folder or a Hugging Face Hub id.
    size
        Height and width of the image in pixels.
    num_classes
        Number of classes of a registered network, 21 by default; a run has its own.
    speed
        Also time the network on this machine; --no-speed only counts, and needs no memory for the weights.
    json
        Print JSON instead of tables.
    """
    spec, model = _find(name, num_classes)
    from ..analysis.profile import profile_spec, with_speed

    result = profile_spec(spec, size)
    if speed:
        result = with_speed(result, spec.build() if model is None else model)
    if json:
        print(json_format.dumps(result.to_dict(), indent=1))
    else:
        print_profile(result, Console())
    return 0


def _find(name: str, num_classes: int | None) -> tuple[ModelSpec, SegmentationModel | None]:
    """Return the spec of a network, and a stored network itself. Raises UnknownNameError or ConfigError."""
    from ..models import MODELS

    if not Path(name).exists() and "/" not in name:
        MODELS.check_name(name)
    # Only here, as importing torch takes seconds.
    from ..models import ModelSpec

    if name in MODELS:
        return ModelSpec(name, 21 if num_classes is None else num_classes), None
    from ..inference.segmenter import load

    model = load(name, device="cpu").model
    spec = model.spec
    if num_classes not in (None, spec.num_classes):
        what = f"got {num_classes}, {name} has {spec.num_classes}"
        raise ConfigError("--num-classes", what, "leave it out for a trained network")
    return spec, model


def print_profile(result: Profile, console: Console) -> None:
    """Print a table of the parts, then one line per property."""
    console.print(
        text(f"{result.name}, {result.num_classes} classes, one image of {result.size[0]} x {result.size[1]} pixels")
    )
    console.print()
    table = Table("module", box=None, pad_edge=False)
    for heading in ("parameters", "buffers", "multiply-adds", "activations"):
        table.add_column(heading, justify="right")
    for module in result.modules:
        table.add_row(
            text(module.name),
            *map(_grouped, (module.parameters, module.buffers, module.multiply_adds, module.activations)),
        )
    totals = map(_grouped, (result.parameters, result.buffers, result.multiply_adds, result.activations))
    table.add_row("total", *totals, style="bold")
    console.print(table)
    console.print()
    for label, value in _properties(result):
        console.print(text(f"{label:<20}{value}"), soft_wrap=True)


def _properties(result: Profile) -> list[tuple[str, str]]:
    side = result.receptive_field
    fields = "".join(f"; {name} {size}" for name, size in result.feature_receptive_fields.items())
    rows = [
        (
            "receptive field",
            ("the whole image" if side is None else f"at most {side} x {side} pixels of an output pixel") + fields,
        ),
        ("stride", f"{result.logits_stride} of the scores, {result.coarsest_stride} of the coarsest map"),
        (
            "memory, training",
            f"about {result.training_bytes / 2**20:,.0f} MiB an image: all layers' outputs in float32",
        ),
        (
            "memory, prediction",
            f"about {result.inference_bytes / 2**20:,.0f} MiB: input and output of the largest layer",
        ),
    ]
    if result.speed is not None:
        speed = result.speed
        how = f"{speed.precision}, {speed.device}, {speed.threads} threads, array to label map"
        rows.append(("speed", f"{speed.median_ms:.1f} ms per image (median of {speed.num_runs} runs, {how})"))
    return rows


def _grouped(count: int) -> str:
    return f"{count:,}"
