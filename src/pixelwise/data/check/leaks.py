"""Findings about copies: images of one split in another, and images twice in one split."""

from __future__ import annotations

import os
from itertools import combinations
from pathlib import Path

from ...errors import listed
from ..dataset import is_same_file, must_be_disjoint
from ..inspection import Inspected
from .finding import Finding, Look, Severity, short_names
from .near_copies import find_near_copies


def find_leaks(look: Look) -> list[Finding]:
    """Return a warning for each two splits with equal pixels, or with near-copies of one another.

    Files that two splits share are an error of `Dataset.problems`, and are not named again.
    """
    findings = []
    names = {split.name for split in look.splits}
    for first, second in combinations(look.found, 2):
        if must_be_disjoint(second, first):
            first, second = second, first
        if not must_be_disjoint(first, second):
            continue
        findings += _find_equal(look, first, second)
        if {first, second} <= names:
            splits = {split.name: split for split in look.splits}
            findings += find_near_copies(look.dataset, splits[first], splits[second], look.found)
    return findings


def _find_equal(look: Look, first: str, second: str) -> list[Finding]:
    images = {name: {i.digest: i.item for i in look.found[name] if i.digest} for name in (first, second)}
    pairs = [(item, images[second][digest]) for digest, item in images[first].items() if digest in images[second]]
    pairs = [(a, b) for a, b in pairs if a.key != b.key or not is_same_file(a.image, b.image)]
    if not pairs:
        return []
    names = tuple(" = ".join(dict.fromkeys(_apart(one.image, other.image))) for one, other in pairs)
    what = f"{len(pairs)} images have equal pixels in both: {listed(names)}"
    fix = "keep each image in one split, or its score is that of a seen image"
    items = tuple(item for pair in pairs for item in pair)
    return [Finding("equal images", "warning", f"splits {first} and {second}", what, fix, len(pairs), names, items)]


def _apart(one: Path, other: Path) -> tuple[str, str]:
    """Return the names of two files, from the folder on that distinguishes them if they have one name."""
    if one.name != other.name or one == other:
        return one.name, other.name
    folder = os.path.commonpath((one, other))
    return os.path.relpath(one, folder), os.path.relpath(other, folder)


def find_repeats(look: Look) -> list[Finding]:
    """Return a warning for each split that holds an image twice: a note if the labels are equal, too."""
    findings = []
    for split in look.splits:
        by_digest: dict[bytes, list[Inspected]] = {}
        for inspected in look.found[split.name]:
            if inspected.digest:
                by_digest.setdefault(inspected.digest, []).append(inspected)
        repeated = [rows for rows in by_digest.values() if len(rows) > 1]
        if repeated:
            differ = [rows for rows in repeated if any(row.pixels != rows[0].pixels for row in rows)]
            names = tuple(" = ".join(short_names(row.item.image for row in rows)) for rows in differ or repeated)
            items = tuple(row.item for rows in differ or repeated for row in rows[:2])
            what = f"{len(repeated)} images occur more than once"
            fix = "keep one of each"
            if differ:
                what += f", {len(differ)} of them with other labels"
                fix = "keep the one with the right labels"
            what += f": {listed(names)}"
            severity: Severity = "warning" if differ else "note"
            subject = f"split {split.name}"
            findings.append(Finding("repeated images", severity, subject, what, fix, len(repeated), names, items))
    return findings
