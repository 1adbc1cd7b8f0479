"""The page: a table a family, the entries that no count can prove, and what is still open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .published import Entry, entries
from .rows import Family, Result

HEAD = """# Conformance

Every number of a paper, of its authors' code or of an independent count that concerns a network, beside what this project's
network gives. Written by `python -m pixelwise.analysis.conformance docs/conformance.md`; the networks are built at full size on the meta
device. Multiply-adds (MACs) are those of convolutions, transposed convolutions and matrix products at batch 1. The values
to be met are in `src/pixelwise/analysis/conformance/published.json`; "computed" means: by another program than this one.
"""

OTHERS = """
## What a count cannot prove

The file's other {count} entries are published scores, timings, settings of training, filters and palettes ({systems}). Scores
need the papers' data and pre-trained weights; `docs/results.md` holds those that were measured here. Palette, metrics, learning
rates, loss weights and the fully connected CRF have tests of their own (`tests/`).
"""


def write_page(families: Sequence[Family]) -> tuple[str, int]:
    """The page as Markdown, and the number of rows that differ without a reason."""
    tables, num_equal, num_explained, wrong = [], 0, 0, 0
    for family in families:
        results = list(family.results())
        num_equal += sum(result.is_equal for result in results)
        num_explained += sum(not result.is_equal and bool(result.row.reason) for result in results)
        wrong += sum(not result.is_equal and not result.row.reason for result in results)
        tables.append(_table(family.system, results))
    rest = missing(families)
    counts = f"{num_equal} equal, {num_explained} different with the reason beside them, {wrong} wrong, {len(rest)} not measured"
    return f"{HEAD}\n{counts}.\n" + "".join(tables) + _missing(rest) + _others(), wrong


def missing(families: Sequence[Family]) -> list[Entry]:
    """Entries that concern a network and have no row."""
    measured = {id(row.entry) for family in families for row in family.rows}
    return [entry for entry in entries() if entry.is_of_a_network and id(entry) not in measured]


def _table(system: str, results: Iterable[Result]) -> str:
    lines = [f"\n## {system}\n", "| what | of | input | published | source | ours | |", "|---|---|---|--:|---|--:|---|"]
    for result in results:
        entry = result.row.entry
        if result.is_equal:
            verdict = f"equal within {100 * result.row.within:g} %" if result.row.within else "equal"
        else:
            verdict = result.row.reason or "**wrong**"
        cells = (
            entry.quantity,
            entry.variant,
            entry.input,
            _text(result.row.value),
            entry.source,
            _text(result.ours),
            verdict,
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(number)}" for name, number in value.items())
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_text, value)) + "]"
    if isinstance(value, int) and abs(value) >= 10000:
        return f"{value:,}"
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def _missing(rest: Sequence[Entry]) -> str:
    if not rest:
        return ""
    lines = [f"- {entry.system}: {entry.variant}: {entry.quantity}" for entry in rest]
    return "\n## Not measured\n\n" + "\n".join(lines) + "\n"


def _others() -> str:
    others = [entry for entry in entries() if not entry.is_of_a_network]
    systems: dict[str, int] = {}
    for entry in others:
        systems[entry.system] = systems.get(entry.system, 0) + 1
    counts = ", ".join(f"{system} {count}" for system, count in systems.items())
    return OTHERS.format(count=len(others), systems=counts)
