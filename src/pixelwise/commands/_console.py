"""What the commands show on a terminal: text in tables and lines, and a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from ..errors import printable

if TYPE_CHECKING:
    from ..data import Split


def text(words: object, style: str = "") -> Text:
    """Return words for a table or a line: brackets are no markup, and names cannot move the cursor."""
    return Text(printable(words), style)


def print_mask_warnings(split: Split) -> None:
    """Print to standard error how the masks of a split may mean something else than what is read."""
    from ..data import check_masks

    for line in check_masks(split, skip_bad=True):
        print(printable(f"warning: {line}"), file=sys.stderr)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error while the block runs; yield a function that takes the done and the total number.

    Standard output holds only results. Without a terminal nothing is shown.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
