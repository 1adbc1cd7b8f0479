"""What is measured for an entry, and how the two are compared."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .published import Entry, find


@dataclass(frozen=True)
class Row:
    """One entry with the function that measures ours.

    within  largest relative difference that counts as equal, 0 for equality to the last digit
    reason  why the two differ, where they do; empty where they must not
    part    which number of an entry that lists several is measured; None for all
    """

    entry: Entry
    measure: Callable[[], Any]
    within: float = 0.0
    reason: str = ""
    part: int | None = None

    @property
    def value(self) -> Any:
        """What ours is compared with."""
        return self.entry.value if self.part is None else self.entry.value[self.part]


@dataclass(frozen=True)
class Result:
    """A measured row."""

    row: Row
    ours: Any

    @property
    def is_equal(self) -> bool:
        """Whether ours is the entry's value."""
        return _agree(self.row.value, _plain(self.ours), self.row.within)


class Family:
    """The rows of one file. Called as a decorator it adds one; `add` takes the function as an argument."""

    def __init__(self, system: str) -> None:
        self.system = system
        self.rows: list[Row] = []

    def add(
        self,
        measure: Callable[[], Any],
        variant: str,
        quantity: str,
        size: str = "",
        *,
        within: float = 0.0,
        reason: str = "",
        part: int | None = None,
    ) -> None:
        """Compare what `measure` returns with the one entry that `find` gives for these words."""
        self.rows.append(Row(find(variant, quantity, size, self.system), measure, within, reason, part))

    def __call__(
        self, variant: str, quantity: str, size: str = "", *, within: float = 0.0, reason: str = ""
    ) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
        """As `add`, for a function definition."""

        def decorate(measure: Callable[[], Any]) -> Callable[[], Any]:
            self.add(measure, variant, quantity, size, within=within, reason=reason)
            return measure

        return decorate

    def results(self) -> Iterator[Result]:
        """Measure every row."""
        for row in self.rows:
            yield Result(row, row.measure())


def _plain(value: Any) -> Any:
    """Tuples and sizes as the lists that JSON has."""
    return json.loads(json.dumps(value))


def _agree(published: Any, ours: Any, within: float) -> bool:
    if isinstance(published, list):
        return (
            isinstance(ours, list)
            and len(ours) == len(published)
            and all(map(lambda p, o: _agree(p, o, within), published, ours))
        )
    if isinstance(published, int | float) and isinstance(ours, int | float) and not isinstance(ours, bool):
        return published == ours if within == 0 else math.isclose(published, ours, rel_tol=within)
    return bool(published == ours)
