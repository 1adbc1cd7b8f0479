"""The check of words against the glossary."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("check_words", ROOT / "tools" / "check_words.py")
assert _spec is not None
assert _spec.loader is not None
check_words = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(check_words)

GLOSSARY = """# Design

trunk

## Glossary

The words that are refused, such as trunk, stand here.

| term | meaning | instead of |
|---|---|---|
| backbone | computes feature maps | trunk |
| `features` | activations | cells (nn, models) |
| logits | class scores | |
| `forward_low_res` | the method | `coarse(`, hand over |

## Next

picture, trunk
"""


def test_refused_words_are_found_with_file_and_line(tmp_path: Path) -> None:
    texts = {
        "docs/design.md": GLOSSARY,
        "README.md": "A Trunk.\nTrunks and truncated trunkless things, `trunk_options`.\n",
        "src/pixelwise/nn/a.py": "cells = 1\nmodel.coarse(x)\ncoarse = 2\n",
        "src/pixelwise/data/b.py": "cells = 1\n",
        "tests/test_c.py": 'name = "trunk.0"  # word: quoted\n# we hand\n# hand over\n',
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = [line.partition("; ")[0] for line in check_words.find_old_words(tmp_path)]
    assert found == [
        "README.md:1: 'Trunk'",
        "README.md:2: 'Trunks'",
        "README.md:2: 'trunk'",
        "docs/design.md:3: 'trunk'",
        "docs/design.md:18: 'trunk'",
        "src/pixelwise/nn/a.py:1: 'cells'",
        "src/pixelwise/nn/a.py:2: 'coarse('",
        "tests/test_c.py:3: 'hand over'",
    ]


def test_the_glossary_is_read() -> None:
    rules = check_words.read_rules((ROOT / "docs" / "design.md").read_text(encoding="utf-8"))
    assert {"trunk", "picture"} <= {rule.word for rule in rules}
