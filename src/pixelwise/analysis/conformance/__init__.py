"""Published numbers of every network, from its paper, its authors' code or an independent count, compared with ours.

    python -m pixelwise.analysis.conformance [FILE]

prints the page `docs/conformance.md`, or writes it to FILE. Each module here holds the rows of one system.
"""

__all__: list[str] = []
