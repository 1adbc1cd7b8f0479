"""Everything that one pass over a dataset shows, as lines and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..dataset import Dataset
from .finding import SEVERITIES, Finding, Look, sort_findings


@dataclass(frozen=True)
class Diagnosis:
    """A dataset and what is wrong with it.

    findings  the worst first
    look      what was found of each file
    """

    dataset: Dataset
    findings: tuple[Finding, ...]
    look: Look = field(repr=False)

    def with_findings(self, more: Sequence[Finding]) -> Diagnosis:
        """Return the diagnosis with further findings."""
        return replace(self, findings=tuple(sort_findings([*self.findings, *more])))

    @property
    def has_errors(self) -> bool:
        """Whether a training would be wrong or impossible."""
        return any(finding.severity == "error" for finding in self.findings)

    def heading(self) -> str:
        """Return one line: format, number of images per split, number of classes."""
        splits = ", ".join(f"{name} {len(split)}" for name, split in self.dataset.splits.items())
        classes = self.dataset.taxonomy.num_classes
        return f"{self.dataset.root}: format {self.dataset.name}; images: {splits}; {classes} classes"

    def summary(self) -> str:
        """Return one line: the number of findings of each severity."""
        counts = Counter(finding.severity for finding in self.findings)
        words = [f"{counts[severity]} {severity}{'s' * (counts[severity] != 1)}" for severity in SEVERITIES]
        by_fix = "a training would be wrong; `pixelwise check DATA --fix OUT` writes a corrected copy"
        end = by_fix if self.has_errors else "ready to train"
        return f"{', '.join(words)}: {end}"

    def lines(self) -> list[str]:
        """Return a line per finding, after the heading and the notes of the dataset."""
        found = [f"{finding.severity}: {finding}" for finding in self.findings]
        return [self.heading(), *(f"note: {note}" for note in self.dataset.notes), *found, self.summary()]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "data": str(self.dataset.root),
            "format": self.dataset.name,
            "splits": {name: len(split) for name, split in self.dataset.splits.items()},
            "classes": list(self.dataset.taxonomy.names),
            "notes": list(self.dataset.notes),
            "findings": [finding.to_dict() for finding in self.findings],
            "ok": not self.has_errors,
        }
