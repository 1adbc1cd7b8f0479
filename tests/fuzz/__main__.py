"""`make fuzz MINUTES=30`: try made inputs of every kind; print each fault, and a summary on the last line."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from pathlib import Path

from fuzz.harness import Order, child, fuzz

SAVED = Path(__file__).parents[2] / "fuzz-faults"


def main() -> int:
    """Run the fuzz, or the cases of an order as its child."""
    if sys.argv[1:2] == ["--order"]:
        child(Order(**json.loads(sys.argv[2])))
        return 0
    # Imports torch, which the parent of a child can do without.
    from fuzz.cases import KINDS, TURNS

    parser = argparse.ArgumentParser(prog="dev.py fuzz", description="Try made inputs of every kind.")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", default=secrets.token_hex(4), help="repeats a fuzz; a new one by default")
    parser.add_argument("--kind", choices=sorted(KINDS), help="try this kind only")
    parser.add_argument("--case", type=int, help="try the case of this number only; needs --seed and --kind")
    given = parser.parse_args()
    first, cases = (0, 2**62) if given.case is None else (given.case, 1)
    turns = [given.kind] if given.kind else TURNS
    seconds = given.minutes * 60
    summary = fuzz("fuzz.cases", turns, seed=given.seed, first=first, cases=cases, seconds=seconds, saved=SAVED)
    print(summary.line())
    return 1 if summary.faults or not summary.cases else 0


if __name__ == "__main__":
    sys.exit(main())
