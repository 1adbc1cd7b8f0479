"""A short fuzz with a new seed on every run; `make fuzz MINUTES=30` runs longer. And the proof that it finds faults."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from random import Random

import pytest

from fuzz.cases import KINDS, TURNS
from fuzz.harness import fuzz, snapshot
from fuzz.planted import NAMES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
SAVED = Path(__file__).parents[2] / "fuzz-faults"


@pytest.mark.timeout(600)
def test_a_short_fuzz_finds_nothing() -> None:
    summary = fuzz("fuzz.cases", TURNS, seed=secrets.token_hex(4), cases=len(TURNS), saved=SAVED)
    assert not summary.faults, "\n\n".join(summary.faults)
    assert set(summary.cases) == set(KINDS)


@pytest.mark.timeout(600)
def test_each_sort_of_fault_is_found_and_repeated(tmp_path: Path) -> None:
    """A child that hangs or ends is replaced, and the cases after it run."""
    summary = fuzz("fuzz.planted", NAMES, seed="1", cases=len(NAMES), saved=tmp_path, max_seconds=3)
    assert summary.cases == dict.fromkeys(NAMES, 1)
    assert [fault.partition(",")[0] for fault in summary.faults] == [*NAMES[2:]]
    assert summary.refused["refused"] == 1
    words = dict(zip(NAMES[2:], summary.faults, strict=True))
    assert "KeyError" in words["other error"]
    assert "changed or left over: input" in words["changed input"]
    assert ".x.tmp-1" in words["left a file"]
    assert "MemoryError" in words["memory"]
    assert "ended the process (9)" in words["exit"]
    assert "hung:" in words["hang"]
    assert "time.sleep" in words["hang"] or "planted.py" in words["hang"]
    assert "python dev.py fuzz --seed 1 --kind hang --case 11" in words["hang"]
    assert (tmp_path / "hang-1-11" / "input").read_bytes() == b"x"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("predictions", "datasets", "commands")])
def test_a_case_is_a_function_of_seed_and_number(tmp_path: Path, kind: str) -> None:
    """Made twice, it has the same files."""
    made = []
    for name in ("first", "second"):
        (tmp_path / name / "case").mkdir(parents=True)
        for number in range(3):
            folder = tmp_path / name / "case" / str(number)
            folder.mkdir()
            KINDS[kind](Random(f"1/{kind}/{number}"), folder)
        (tmp_path / name / "case").rename(tmp_path / "case")
        made.append(snapshot(tmp_path / "case"))
        (tmp_path / "case").rename(tmp_path / name / "done")
    assert made[0] == made[1]
    assert len(made[0]) >= 3
