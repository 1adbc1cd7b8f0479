"""Findings about names and places: missing files and what stands beside them, repeated names, images without masks."""

from __future__ import annotations

from ...errors import listed
from ..near_misses import near_misses
from .finding import Finding, Look, Severity, items_of


def find_pair_faults(look: Look) -> list[Finding]:
    """Return the errors of `Dataset.problems`, and images without masks."""
    found = []
    missing = look.dataset.missing()
    for kind, error in look.dataset.named_problems():
        if kind == "missing files":
            items = [item for split in look.dataset.splits.values() for item in split.items]
            partners = tuple(item for item in items if not missing.keys().isdisjoint((item.image, *item.label_files)))
            names = tuple(path.name for path in missing)
            fix = error.fix
            if near_misses(missing):
                fix += ", or let `pixelwise check DATA --fix OUT` do it"
            found.append(Finding(kind, "error", error.subject, error.what, fix, len(missing), names, partners))
        else:
            found.append(Finding(kind, "error", error.subject, error.what, error.fix))
    splits = look.dataset.splits
    if splits and not any(name.startswith("train") for name in splits):
        what = f"has no training split; existing splits: {', '.join(splits)}"
        fix = "put the images to train on into a split `train`"
        if others := [name for name in splits if not name.startswith(("val", "test"))]:
            fix += f", or train with --data.train_split {others[0]}"
        found.append(Finding("no training split", "error", str(look.dataset.root), what, fix))
    for split in look.splits:
        unlabeled = [item for item in split.items if item.mask is None]
        if unlabeled:
            # Test sets are often published without masks.
            severity: Severity = "note" if split.name.startswith("test") else "error"
            names = tuple(item.key for item in unlabeled)
            what = f"{len(unlabeled)} of {len(split)} images have no mask: {listed(names)}"
            fix = "add masks, or leave these images out" if severity == "error" else ""
            subject = f"split {split.name}"
            found.append(
                Finding(
                    "images without mask",
                    severity,
                    subject,
                    what,
                    fix,
                    len(names),
                    names,
                    items_of((i, i) for i in unlabeled),
                )
            )
    return found
