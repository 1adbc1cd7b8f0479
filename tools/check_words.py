"""Check that the source, the tests and the docs use the words of the glossary: `python tools/check_words.py`.

The glossary is the table `| term | meaning | instead of |` in docs/design.md. Each word of its last column is refused,
with file and line and the term to write instead. The words are separated by commas:

    trunk                     refused everywhere, alone or as a part of an identifier, in any case, singular or plural
    cells (nn, models)        refused only in these folders of src/pixelwise
    `coarse(`                 the parenthesis belongs to the word: only the call or the definition is refused

A line that needs a refused word, such as one that quotes a file of another project, ends in `# word: quoted` or, in
Markdown, in `<!-- word: quoted -->`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
GLOSSARY = Path("docs") / "design.md"
# The conformance page quotes the names of papers and their authors' files; the check and its test name the words.
SKIPPED = {Path("docs/conformance.md"), Path("tools/check_words.py"), Path("tests/project/test_words.py")}
ALLOWED = re.compile(r"(#|<!--) word: quoted")


class Rule(NamedTuple):
    """A refused word, the term that replaces it, and the folders of src/pixelwise where it is refused (none: all)."""

    word: str
    term: str
    folders: tuple[str, ...]

    @property
    def pattern(self) -> re.Pattern[str]:
        """Match the word where no letter stands beside it; an underscore may."""
        words = r"\s+".join(map(re.escape, self.word.split()))
        end = "" if self.word.endswith("(") else r"(?:s|es)?(?![a-z])"
        return re.compile(rf"(?<![a-z]){words}{end}", re.IGNORECASE)

    def concerns(self, path: Path) -> bool:
        """Return whether the word is refused in this file, given relative to the repository."""
        parts = path.parts
        return not self.folders or (parts[:2] == ("src", "pixelwise") and parts[2] in self.folders)


def glossary_section(text: str) -> str:
    """Return the section `## Glossary` of a Markdown text; empty where there is none."""
    match = re.search(r"^## Glossary\n.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return match.group() if match else ""


def read_rules(text: str) -> list[Rule]:
    """Return a rule for each word in the last column of the glossary's table."""
    rules = []
    for line in glossary_section(text).splitlines():
        columns = [column.strip() for column in line.strip().strip("|").split("|")]
        if not line.startswith("|") or len(columns) != 3 or columns[0] == "term" or set(columns[0]) <= set("-: "):
            continue
        # A comma inside parentheses separates folders, not words.
        for entry in re.split(r",\s*(?![^()]*\))", columns[2].replace("`", "")):
            word, _, scope = entry.partition(" (")
            folders = tuple(re.findall(r"\w+", scope))
            if word.strip():
                rules.append(Rule(word.strip(), columns[0].replace("`", ""), folders))
    return rules


def find_old_words(root: Path) -> Iterator[str]:
    """Yield `file:line: ...` for each refused word in the source, the tests, the docs and the README."""
    rules = read_rules((root / GLOSSARY).read_text(encoding="utf-8"))
    files = [root / "README.md", *(root / "docs").glob("*.md")]
    for folder in ("src/pixelwise", "tests", "tools", "benchmarks"):
        files += [file for ending in ("*.py", "*.md", "*.yaml", "*.j2") for file in (root / folder).rglob(ending)]
    for file in sorted(set(files)):
        path = file.relative_to(root)
        if path in SKIPPED:
            continue
        text = file.read_text(encoding="utf-8")
        if path == GLOSSARY:
            # Keep the lines' numbers.
            section = glossary_section(text)
            text = text.replace(section, "\n" * section.count("\n"))
        patterns = [(rule, rule.pattern) for rule in rules if rule.concerns(path)]
        for number, line in enumerate(text.splitlines(), start=1):
            if ALLOWED.search(line):
                continue
            for rule, pattern in patterns:
                for match in pattern.finditer(line):
                    yield f"{path.as_posix()}:{number}: {match.group()!r}; write: {rule.term}"


def main() -> int:
    """Print every refused word; the exit code is 1 if there is one."""
    found = list(find_old_words(ROOT))
    for line in found:
        print(line)
    print(f"{len(found)} words that the glossary refuses" if found else "The words are those of the glossary.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
