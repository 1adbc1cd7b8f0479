"""`python -m pixelwise.analysis.conformance [FILE]`: measure every row; exit code 1 where one is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

from ...files import write_text
from .families import FAMILIES
from .page import write_page


def main(arguments: list[str]) -> int:
    """Print the page, or write it to the file that is named."""
    page, wrong = write_page(FAMILIES)
    if arguments:
        write_text(Path(arguments[0]), page)
    else:
        print(page)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
