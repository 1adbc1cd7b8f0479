"""A cache of the costs of every registered network, for `pixelwise models`.

Measuring a receptive field takes seconds per network, too long for a list, so `model_table.json` keeps the results. A
network without a row is listed without its costs. `python -m pixelwise.analysis.model_table` measures all networks
anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ..files import write_text

SIZE = (512, 512)
_FILE = Path(__file__).with_name("model_table.json")


@dataclass(frozen=True)
class ModelCost:
    """The costs of a network with its default options and 21 classes, for an image of 512 x 512 pixels.

    receptive_field   the most pixels per side that an output pixel depends on; None for the whole image
    stride            image pixels per position of the coarsest feature map
    logits_stride     image pixels per low-resolution logit, as the network declares it
    feature_fields    the receptive field of one position of named feature maps, which the papers give
    """

    parameters: int
    multiply_adds: int
    receptive_field: int | None
    stride: int
    logits_stride: int
    feature_fields: Mapping[str, int]


def measure_cost(name: str) -> ModelCost:
    """Measure a registered network. Raises UnknownNameError."""
    # Reading the table must not import torch, so that `pixelwise models` starts fast.
    from ..models import create_model
    from .mult_adds import on_meta
    from .profile import profile_spec

    with on_meta():
        model = create_model(name, 21)
    profile = profile_spec(model.spec, SIZE)
    return ModelCost(
        parameters=profile.parameters,
        multiply_adds=profile.multiply_adds,
        receptive_field=profile.receptive_field,
        stride=profile.coarsest_stride,
        logits_stride=model.logits_stride,
        feature_fields=profile.feature_receptive_fields,
    )


def read_table() -> dict[str, ModelCost]:
    """Return the measured costs by name of the network."""
    return {name: ModelCost(**costs) for name, costs in json.loads(_FILE.read_text(encoding="utf-8")).items()}


def write_table(path: Path) -> None:
    """Measure every registered network and write the file that `read_table` reads."""
    from ..models import list_models

    rows = []
    for name in list_models():
        cost = measure_cost(name)
        print(name, cost, flush=True)
        # One line per network, so that a change shows as one line.
        rows.append(f'  "{name}": {json.dumps(asdict(cost))}')
    write_text(path, "{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    write_table(_FILE)
