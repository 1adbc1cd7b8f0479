"""The conformance page: every row is equal or gives its reason, and every published value of a network has one row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pixelwise.analysis.conformance.families import FAMILIES
from pixelwise.analysis.conformance.page import missing
from pixelwise.analysis.conformance.published import PublishedValue, find, published_values
from pixelwise.analysis.conformance.rows import ConformanceRow, Family

# These hold dozens of deep networks at full size, a minute in all on a free core; the others take a second or two each.
SLOW = {"backbone", "DeepLabv3+", "PSPNet", "torchvision 0.28", "Xception"}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "family",
    [pytest.param(f, id=f.system, marks=[pytest.mark.slow] if f.system in SLOW else []) for f in FAMILIES],
)
def test_every_row_is_equal_or_explained(family: Family) -> None:
    wrong = [
        f"{c.row.published.variant}, {c.row.published.quantity}: expected {c.row.expected}, got {c.ours}"
        for c in family.compare()
        if c.is_wrong
    ]
    assert not wrong, "\n".join(wrong)


def test_every_published_value_of_a_network_is_measured_once() -> None:
    measured = [id(row.published) for family in FAMILIES for row in family.rows]
    assert len(measured) == len(set(measured))
    assert missing(FAMILIES) == []
    # As many as the file holds: a pattern that swallowed entries of networks would show here.
    assert len(measured) == sum(value.is_of_a_network for value in published_values()) == 324


def test_a_lookup_is_exact_or_fails() -> None:
    assert find("VGG16 fc7", "receptive field").value == 404
    for words in [("VGG16", "no such"), ("VGG16", "MACs"), ("FCN-", "MACs")]:
        with pytest.raises(LookupError):
            find(*words)


def test_a_wrong_number_is_reported() -> None:
    published = PublishedValue("a", "b", "MACs", "-", [100, 7], "paper", "")

    def is_wrong(ours: Any, **options: Any) -> bool:
        return ConformanceRow(published, lambda: ours, **options).compare().is_wrong

    assert not is_wrong((100, 7))
    assert is_wrong((101, 7))
    assert is_wrong((100, 7, 1))
    assert not is_wrong((101, 7), within=0.02)
    assert is_wrong((105, 7), within=0.02)
    assert not is_wrong((105, 7), reason="the paper rounds")
    assert is_wrong(8, part=1)
    assert not is_wrong(7, part=1)


def test_the_committed_page_has_every_row() -> None:
    """`python -m pixelwise.analysis.conformance docs/conformance.md` writes the page anew."""
    page = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| what ")]
    assert len(rows) == sum(len(family.rows) for family in FAMILIES)
    titles = [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")]
    assert titles[: len(FAMILIES)] == [family.system for family in FAMILIES]
    assert ", 0 wrong, 0 not measured" in page
