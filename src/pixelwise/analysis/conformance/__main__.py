"""`python -m pixelwise.analysis.conformance [FILE]`: measure every row; the exit code is 1 if a row is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

from ...files import write_text
from .families import FAMILIES
from .page import write_page


def main(arguments: list[str]) -> int:
    """Print the page, or write it to the file that `arguments` names."""
    page, num_wrong = write_page(FAMILIES)
    if arguments:
        write_text(Path(arguments[0]), page)
    else:
        print(page)
    return 1 if num_wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
