"""Every number that a paper, its authors' code or an independent count gives for a network, beside ours.

    python -m pixelwise.analysis.conformance [FILE]

prints the page `docs/conformance.md`, or writes it to FILE. One file here holds the rows of one family.
"""
