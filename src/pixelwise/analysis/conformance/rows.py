"""A row of the page: a published value, the function that measures ours, and the comparison of the two."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from .published import PublishedValue, find

M = TypeVar("M", bound=Callable[[], Any])


@dataclass(frozen=True)
class ConformanceRow:
    """A published value and the function that measures ours.

    within  largest relative difference that counts as equal; 0 demands equality to the last digit
    reason  why the two differ, for the rows that may differ
    part    index of the compared number in a published list; None compares the whole value
    """

    published: PublishedValue
    measure: Callable[[], Any]
    within: float = 0.0
    reason: str = ""
    part: int | None = None

    @property
    def expected(self) -> Any:
        """The value that ours is compared with."""
        return self.published.value if self.part is None else self.published.value[self.part]

    def compare(self) -> Comparison:
        """Measure our value and compare it with the published one."""
        ours = self.measure()
        # Through JSON, as the published values are: tuples and torch.Size become lists.
        return Comparison(self, ours, is_equal=_equal(self.expected, json.loads(json.dumps(ours)), self.within))


@dataclass(frozen=True)
class Comparison:
    """A measured row. A row that differs without a reason is wrong."""

    row: ConformanceRow
    ours: Any
    is_equal: bool

    @property
    def is_wrong(self) -> bool:
        """True where the two differ and nothing explains it."""
        return not self.is_equal and not self.row.reason


class Family:
    """The rows of one system, in the order of the page."""

    def __init__(self, system: str) -> None:
        self.system = system
        self.rows: list[ConformanceRow] = []

    def row(
        self,
        variant: str,
        quantity: str,
        size: str = "",
        *,
        within: float = 0.0,
        reason: str = "",
        part: int | None = None,
    ) -> Callable[[M], M]:
        """Decorate the function that measures our value for one published entry, chosen as by `find`.

        Raises LookupError if no entry, or more than one, matches.
        """

        def decorate(measure: M) -> M:
            published = find(variant, quantity, size, self.system)
            self.rows.append(ConformanceRow(published, measure, within, reason, part))
            return measure

        return decorate

    def compare(self) -> Iterator[Comparison]:
        """Measure and compare every row."""
        return (row.compare() for row in self.rows)


def _equal(expected: Any, ours: Any, within: float) -> bool:
    """Compare two JSON values; numbers inside lists may differ by the relative tolerance."""
    if isinstance(expected, list):
        same_length = isinstance(ours, list) and len(ours) == len(expected)
        return same_length and all(_equal(e, o, within) for e, o in zip(expected, ours, strict=True))
    if within and isinstance(expected, int | float) and isinstance(ours, int | float):
        return math.isclose(expected, ours, rel_tol=within)
    return bool(expected == ours)
