"""The page `docs/conformance.md`: one table per system, and a list of what a count cannot check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from .published import PublishedValue, published_values
from .rows import Comparison, Family

_HEAD = """# Conformance

This page compares our networks with the published numbers: parameters, multiply-adds, layer sizes and receptive fields
from the papers, from the authors' code and from independent counts. The networks are built at full size on the meta
device. Multiply-adds (MACs) are those of convolutions, transposed convolutions and matrix products for one image. The
published numbers are in `src/pixelwise/analysis/conformance/published.json`; "computed" marks a number that a program
other than this one computed. `python -m pixelwise.analysis.conformance docs/conformance.md` writes this page.
"""

_NOT_MEASURABLE = """
## What a count cannot check

The file holds {count} further entries: published scores, timings, training settings, filters and palettes ({systems}).
Scores need the papers' data and pretrained weights; `docs/results.md` lists the scores measured here. The palette, the
metrics, the learning rates, the loss weights and the fully connected CRF have their own tests in `tests/`.
"""


def write_page(families: Sequence[Family]) -> tuple[str, int]:
    """Measure every row; return the page as Markdown and the number of wrong rows."""
    tables, all_comparisons = [], []
    for family in families:
        comparisons = list(family.compare())
        all_comparisons += comparisons
        tables.append(_table(family.system, comparisons))
    num_equal = sum(comparison.is_equal for comparison in all_comparisons)
    num_wrong = sum(comparison.is_wrong for comparison in all_comparisons)
    num_explained = len(all_comparisons) - num_equal - num_wrong
    unmeasured = missing(families)
    counts = (
        f"{num_equal} equal, {num_explained} different with a reason, {num_wrong} wrong, {len(unmeasured)} not measured"
    )
    parts = [f"{_HEAD}\n{counts}.\n", *tables]
    if unmeasured:
        lines = [f"- {value.system}: {value.variant}: {value.quantity}" for value in unmeasured]
        parts.append("\n## Not measured\n\n" + "\n".join(lines) + "\n")
    others = Counter(value.system for value in published_values() if not value.is_of_a_network)
    systems = ", ".join(f"{system} {count}" for system, count in others.items())
    parts.append(_NOT_MEASURABLE.format(count=others.total(), systems=systems))
    return "".join(parts), num_wrong


def missing(families: Sequence[Family]) -> list[PublishedValue]:
    """Return the published values of a network that have no row."""
    measured = {id(row.published) for family in families for row in family.rows}
    return [value for value in published_values() if value.is_of_a_network and id(value) not in measured]


def _table(system: str, comparisons: Sequence[Comparison]) -> str:
    lines = [f"\n## {system}\n", "| what | of | input | published | source | ours | |", "|---|---|---|--:|---|--:|---|"]
    for comparison in comparisons:
        row, published = comparison.row, comparison.row.published
        equal = f"equal within {100 * row.within:g} %" if row.within else "equal"
        verdict = equal if comparison.is_equal else row.reason or "**wrong**"
        what = (published.quantity, published.variant, published.input)
        columns = (*what, _text(row.expected), published.source, _text(comparison.ours), verdict)
        lines.append("| " + " | ".join(column.replace("|", "\\|") for column in columns) + " |")
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(number)}" for name, number in value.items())
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_text, value)) + "]"
    if isinstance(value, int) and abs(value) >= 10000:
        return f"{value:,}"
    return f"{value:.7g}" if isinstance(value, float) else str(value)
