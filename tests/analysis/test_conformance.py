"""The page of published numbers: every row is equal or says why not, and every entry of a network has at most one row."""

from __future__ import annotations

from pathlib import Path

import pytest

from pixelwise.analysis.conformance.families import FAMILIES
from pixelwise.analysis.conformance.page import missing
from pixelwise.analysis.conformance.published import Entry, entries, find
from pixelwise.analysis.conformance.rows import Family, Result, Row


# Dozens of networks at full size: seconds on a free core, minutes on a busy one.
@pytest.mark.timeout(600)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.system)
def test_every_row_is_equal_or_explained(family: Family) -> None:
    wrong = [
        f"{r.row.entry.variant}, {r.row.entry.quantity}: {r.row.entry.value}, ours {r.ours}"
        for r in family.results()
        if not r.is_equal and not r.row.reason
    ]
    assert not wrong, "\n".join(wrong)


def test_every_entry_of_a_network_is_measured_once() -> None:
    measured = [id(row.entry) for family in FAMILIES for row in family.rows]
    assert len(measured) == len(set(measured))
    assert missing(FAMILIES) == [], "every entry of a network has its row"
    assert len(measured) == sum(entry.is_of_a_network for entry in entries())
    # As many as the file holds: a pattern that swallowed entries of networks would show here.
    assert len(measured) == 321


def test_a_lookup_is_exact_or_fails() -> None:
    assert find("VGG16 fc7", "receptive field").value == 404
    for words in [("VGG16", "no such"), ("VGG16", "MACs"), ("FCN-", "MACs")]:
        with pytest.raises(LookupError):
            find(*words)


def test_a_wrong_number_is_seen() -> None:
    entry = Entry("a", "b", "MACs", "-", [100, 7], "paper", "")
    assert Result(Row(entry, tuple), (100, 7)).is_equal
    assert not Result(Row(entry, tuple), (101, 7)).is_equal
    assert not Result(Row(entry, tuple), (100, 7, 1)).is_equal
    assert Result(Row(entry, tuple, within=0.02), (101, 7)).is_equal
    assert not Result(Row(entry, tuple, within=0.02), (105, 7)).is_equal


def test_the_committed_page_is_of_this_code() -> None:
    """`python -m pixelwise.analysis.conformance docs/conformance.md` writes it anew."""
    page = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| what ")]
    assert len(rows) == sum(len(family.rows) for family in FAMILIES)
    assert [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")][: len(FAMILIES)] == [
        family.system for family in FAMILIES
    ]
    assert ", 0 wrong, 0 not measured" in page
