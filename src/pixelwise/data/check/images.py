"""Findings about what the images hold: sizes, bits, channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ...core import size_text
from ...errors import listed
from .finding import Finding, Look, short_names


def span(numbers: Sequence[int]) -> str:
    """Return sorted numbers as text: "630 to 640", or the one that all are."""
    return str(numbers[0]) if numbers[0] == numbers[-1] else f"{numbers[0]} to {numbers[-1]}"


def find_image_facts(look: Look) -> list[Finding]:
    """Return the sizes, formats, bits and channels of the images, and a warning where they are mixed."""
    by_item = {row.item: row.image_file for _, row in look.inspected() if row.image_file is not None}
    files = list(by_item.values())
    if not files:
        return []
    root = str(look.dataset.root)
    sizes = Counter(file.size for file in files)
    heights, widths = (sorted(side) for side in zip(*sizes.elements(), strict=True))
    if len(sizes) == 1:
        what = f"{len(files)} images of {size_text(files[0].size)}"
    else:
        median = int(np.median(heights)), int(np.median(widths))
        most = f"{len(files)} images of {len(sizes)} sizes (height x width)"
        what = f"{most}, {span(heights)} x {span(widths)}, median {size_text(median)}"
    stored = Counter(f"{file.format} {file.mode}" for file in files)
    what += "; " + ", ".join(f"{count} {name}" for name, count in stored.most_common(6))
    findings = [Finding("images", "note", root, what, count=len(files))]
    for word, values in (
        ("bits per channel", {item: file.bits for item, file in by_item.items()}),
        ("channels", {item: min(file.channels, 3) // 3 * 2 + 1 for item, file in by_item.items()}),
    ):
        counts = Counter(values.values())
        if len(counts) > 1:
            rare = min(counts, key=lambda value: counts[value])
            odd = tuple(item for item, value in values.items() if value == rare)
            names = short_names(item.image for item in odd)
            listing = " and ".join(f"{count} with {value}" for value, count in counts.most_common())
            what = f"images differ in {word}: {listing}, such as {listed(names)}"
            fix = "a network sees the difference, not only the content: check that both kinds occur in each split"
            findings.append(Finding(word, "warning", root, what, fix, len(odd), names, odd))
    deep = [file.highest for file in files if file.highest]
    if deep:
        bits = max(deep).bit_length()
        what = f"{len(deep)} images have 16-bit values up to {max(deep)}: {bits} bits in use"
        findings.append(Finding("bits in use", "note", root, what, count=len(deep)))
    return findings
