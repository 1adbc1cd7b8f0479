"""Which images a training would hold out, where a dataset has no validation split, and what is wrong with them."""

from __future__ import annotations

from dataclasses import replace

from ...config import DataConfig
from ..dataset import Item
from ..held_out import training_data
from .classes import find_unscored_classes
from .finding import Finding, Look
from .near_copies import find_near_copies


def find_hold_out(look: Look) -> list[Finding]:
    """Return a note that names the images, and warnings if they are near-copies of others or lack a class."""
    dataset = look.dataset
    if "train" not in look.found or not all(split.items for split in look.splits) or dataset.missing():
        return []
    rows = {row.item: row for row in look.found["train"]}
    ignore_id = dataset.taxonomy.ignore_id

    def classes_of(item: Item) -> frozenset[int]:
        return frozenset(rows[item].pixels) - {ignore_id}

    plain = replace(dataset, notes=(), faults=())
    data, held_out = training_data(
        plain,
        DataConfig(path=str(dataset.root)),
        classes_of=classes_of,
        sign_of=lambda item: rows[item].perceptual_hash,
    )
    if held_out is None:
        return []
    train, val = data.splits["train"], data.splits["val"]
    note = Finding("hold-out", "note", "split val", f"`train` makes it: {held_out.why}", count=len(val))
    found = {split.name: [rows[item] for item in split.items] for split in (train, val)}
    unscored = find_unscored_classes(val, found[val.name]) if any(row.pixels for row in found[val.name]) else []
    return [note, *find_near_copies(data, train, val, found), *unscored]
