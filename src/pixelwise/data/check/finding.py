"""One kind of problem of a dataset, or one figure of it: how bad, in how many files, which, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal

from ...errors import DatasetError, PixelwiseError, listed, printable
from ..dataset import Dataset, Item, Split
from ..inspection import Inspected

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One kind of problem, with all the files that have it.

    kind      short name of the problem, the title of its part of the page
    severity  error: training would be wrong or impossible; warning: it would be worse, or its score would be;
              note: a figure to know
    subject   the split, file or folder
    what      one sentence with the number of files and the first of their names
    fix       what to do; empty if there is nothing to do
    count     number of files, or of whatever the sentence counts
    names     of all the files
    items     images and masks that show it
    """

    kind: str
    severity: Severity
    subject: str
    what: str
    fix: str = ""
    count: int = 1
    names: tuple[str, ...] = ()
    items: tuple[Item, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        fix = f"; fix: {self.fix}" if self.severity == "error" else f"; {self.fix}"
        return printable(f"{self.subject}: {self.what}{fix if self.fix else ''}")

    def error(self) -> DatasetError:
        """Return the finding as an error to raise."""
        return DatasetError(self.subject, self.what, self.fix)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "subject": self.subject,
            "what": self.what,
            "fix": self.fix,
            "count": self.count,
            "names": list(self.names),
        }


@dataclass(frozen=True)
class Look:
    """What is judged: a dataset, what one pass over its files found, and the splits that count.

    found   what `inspect_splits` found, by split
    splits  the splits whose masks were read; of the others, images were read to find copies
    """

    dataset: Dataset
    found: dict[str, list[Inspected]] = field(repr=False)
    splits: tuple[Split, ...]

    def inspected(self) -> list[tuple[Split, Inspected]]:
        """Return what was found of each item whose mask counts, with its split; an item of two splits once."""
        seen: set[Item] = set()
        rows = []
        for split in self.splits:
            for inspected in self.found[split.name]:
                if inspected.item not in seen:
                    seen.add(inspected.item)
                    rows.append((split, inspected))
        return rows


def from_errors(
    kind: str, errors: Sequence[tuple[Item, PixelwiseError]], severity: Severity = "error", fix: str = ""
) -> Finding:
    """Return one finding for the errors of several items, in the words of the first."""
    first = errors[0][1]
    names = short_names(PurePath(error.subject) for _, error in errors)
    what = first.what + (f" (and {len(names) - 1} more: {listed(names[1:])})" if len(names) > 1 else "")
    return Finding(kind, severity, first.subject, what, fix or first.fix, len(errors), names, items_of(errors))


def short_names(paths: Iterable[PurePath]) -> tuple[str, ...]:
    """Return the names of files, with their folder if several have one name: case01/image.png."""
    paths = list(paths)
    names = tuple(path.name for path in paths)
    return names if len(set(names)) == len(names) else tuple("/".join(path.parts[-2:]) for path in paths)


def items_of(pairs: Iterable[tuple[Item, object]]) -> tuple[Item, ...]:
    """Return the items of pairs."""
    return tuple(item for item, _ in pairs)


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings, the worst first."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
