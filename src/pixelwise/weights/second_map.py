"""The label map of a second head, as config.json of a checkpoint holds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core import Taxonomy
from ..errors import CheckpointError, ConfigError, listed, shown
from ..models import SegmentationModel


def read_second(config: Mapping[str, Any], model: SegmentationModel, source: object) -> tuple[str, Taxonomy] | None:
    """Return name and classes of the second label map, None if there is none. Raises CheckpointError."""
    data = config.get("second")
    if data is None:
        return None
    name = data.get("name") if isinstance(data, dict) else None
    if not isinstance(name, str) or not name:
        raise CheckpointError(source, f"expected `second` with a name, got {shown(data)}", "copy the folder again")
    try:
        taxonomy = Taxonomy.from_dict({key: value for key, value in data.items() if key != "name"}, source)
    except ConfigError as error:
        raise CheckpointError(source, error.what, error.fix) from None
    if model.head_classes != (model.num_classes, taxonomy.num_classes):
        what = f"has heads of {listed(model.head_classes)} classes, and {taxonomy.num_classes} for {name}"
        raise CheckpointError(source, what, "copy the folder again")
    return name, taxonomy
