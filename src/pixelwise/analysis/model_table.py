"""Size, cost and reach of every registered network, measured once and kept beside the networks.

Measuring a receptive field takes seconds a network, too long for a list; `python -m pixelwise.analysis.model_table` measures all anew.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

from ..files import write_text

SIZE = (512, 512)
_FILE = "model_table.json"


@dataclass(frozen=True)
class Facts:
    """What a network costs with its default options, for an image of 512 x 512 pixels and 21 classes.

    receptive_field  pixels a side that an output pixel can depend on; None where it is the whole image
    stride           pixels per cell of the coarsest map
    """

    parameters: int
    multiply_adds: int
    receptive_field: int | None
    stride: int


def measure(name: str) -> Facts:
    """Build the network without numbers and count. Raises UnknownNameError."""
    from ..models import MODELS, ModelSpec
    from .profile import profile_spec

    channels = MODELS[name].options["in_channels"].default
    found = profile_spec(ModelSpec(name, 21, channels), SIZE)
    return Facts(found.parameters, found.multiply_adds, found.receptive_field, found.coarsest_stride)


def read_table() -> dict[str, Facts]:
    """Name -> facts, as they were measured last."""
    text = resources.files("pixelwise.analysis").joinpath(_FILE).read_text(encoding="utf-8")
    return {name: Facts(**facts) for name, facts in json.loads(text).items()}


def write_table(path: Path) -> None:
    """Measure every registered network and write the file that `read_table` reads."""
    from ..models import list_models

    rows = []
    for name in list_models():
        facts = measure(name)
        print(name, facts, flush=True)
        rows.append(f'  "{name}": {json.dumps(asdict(facts))}')
    write_text(path, "{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    write_table(Path(__file__).parent / _FILE)
