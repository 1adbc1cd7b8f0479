"""Families of files below a folder, and pairs of families whose names agree but for a word.

All names are split into a family (folder, suffix of the file, word before or after) and a base, in every way. Two
families match if most of their bases are equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from ...images import ARRAY_SUFFIX, IMAGE_SUFFIXES, image_suffix, walk_files, without_suffix
from .annotations import split_of
from .mask_words import IMAGE_WORDS, MASK_WORDS

# A family is a candidate if it has this share of the files of its folder and suffix, and two are a pair if this share
# of the smaller one has a partner.
_MIN_FAMILY, _MIN_SHARED = 0.2, 0.5
_SPLIT_WORD = "_(split)"
# Endings of files that are no images, or copies of others that do not count.
OTHER_SUFFIXES = (
    *(".json", ".txt", ".xml", ".yaml", ".yml", ".csv", ".md", ".html", ".py", ".ipynb", ".log", ".ini", ".cfg"),
    *(".zip", ".tar", ".gz", ".bz2", ".7z", ".rar", ".npz", ".pt", ".pth", ".safetensors", ".onnx", ".pkl", ".db"),
    *(".bak", ".old", ".tmp", ".part", ".swp", ".crdownload", ".lock"),
)


class Base(NamedTuple):
    """What two files of a pair have in common: split, folders, and name without the words of their families."""

    split: str
    folders: tuple[str, ...]
    name: str

    @property
    def key(self) -> str:
        """The key of the image."""
        return "/".join((*self.folders, self.name) if self.name else self.folders)


class Family(NamedTuple):
    """What the files on one side of the pairs have in common."""

    folder: str
    suffix: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.folder + '/' if self.folder else ''}{self.before}*{self.after}{self.suffix}"


@dataclass(frozen=True)
class Match:
    """Two families that belong together, and their files by base."""

    first: Family
    second: Family
    bases: Mapping[Base, tuple[Path, Path]]
    rest: tuple[tuple[Path, ...], tuple[Path, ...]]


def find_matches(root: Path, *, by_folder: bool = False) -> list[Match]:
    """Return the pairs of families below a folder that most names agree in, the largest first.

    by_folder  the folder is all that the names of a pair have in common: p1/image.png and p1/mask.png
    """
    files = [(path, suffix) for path in walk_files(root)[0] if (suffix := true_suffix(path))]
    found: dict[frozenset[tuple[Path, Path]], Match] = {}
    for layout in (_side_by_side,) if by_folder else (_by_folder, _by_first_folder, _by_last_folder, _side_by_side):
        groups: dict[tuple[str, str], list[Path]] = {}
        families: dict[Family, dict[Base, list[Path]]] = {}
        for path, suffix in files:
            folder, split, rest = layout(path.relative_to(root).parent.parts)
            if by_folder and rest and _is_usual_word(rest[-1]):
                # A folder named images or masks holds those of many images.
                continue
            groups.setdefault((folder, suffix), []).append(path)
            # A file without a suffix may have a dot in its name: of a.png1 and a.png2, neither is called a.
            has_suffix = path.suffix.lower() in (*IMAGE_SUFFIXES, ARRAY_SUFFIX)
            name = without_suffix(path).name if has_suffix else path.name
            ways = [(name, "", "")] if by_folder and rest else _decomposed(name)
            for before, base, after in ways:
                if split and split_of(after):
                    # The name repeats the folder: 21_training in training/, 01_test in test/.
                    after = _SPLIT_WORD
                bases = families.setdefault(Family(folder, suffix, before, after), {})
                bases.setdefault(Base(split, rest, base), []).append(path)
        usable = {
            family: {base: paths[0] for base, paths in bases.items() if len(paths) == 1}
            for family, bases in families.items()
            # One folder does not show that its two files are a pair.
            if len(bases)
            >= max(2 if by_folder else _least(family), _MIN_FAMILY * len(groups[family.folder, family.suffix]))
        }
        if len(usable) > 200:
            # Every file has a word of its own.
            continue
        for first, second in combinations(usable, 2):
            match = _matched(first, second, usable[first], usable[second], groups)
            if match is not None:
                found.setdefault(frozenset(match.bases.values()) | frozenset(map(swap, match.bases.values())), match)
    return sorted(found.values(), key=lambda match: -len(match.bases))


def _is_usual_word(word: str) -> bool:
    """Return whether a folder is called like the images or the masks of a dataset; image1 and mask2 are not."""
    is_numbered = any(map(str.isdigit, word))
    return not is_numbered and bool(MASK_WORDS.search(word.casefold()) or IMAGE_WORDS.search(word.casefold()))


def _least(family: Family) -> int:
    """Return how many files a family has at least: one file does not make a word, unless it is a usual one."""
    word = f"{family.before} {family.after}".casefold()
    return 1 if not word.strip() or MASK_WORDS.search(word) or IMAGE_WORDS.search(word) else 2


def _matched(
    first: Family,
    second: Family,
    ours: Mapping[Base, Path],
    theirs: Mapping[Base, Path],
    groups: Mapping[tuple[str, str], list[Path]],
) -> Match | None:
    """Return the match of two families, or None if too few of their bases are equal."""
    shared = ours.keys() & theirs.keys()
    bases = {base: (ours[base], theirs[base]) for base in shared if ours[base] != theirs[base]}
    if not bases or len(bases) < _MIN_SHARED * min(len(ours), len(theirs)):
        return None
    used = {path for pair in bases.values() for path in pair}
    # The files of a side, with the word of its family, that have no partner; where both families share folder and
    # suffix, all files without a partner belong to the side whose name has no word.
    rests = []
    for family, files in ((first, ours), (second, theirs)):
        has_word = bool(family.before or family.after)
        own = files.values() if has_word else groups[family.folder, family.suffix]
        rests.append(tuple(sorted(path for path in own if path not in used)))
    return Match(first, second, bases, (rests[0], rests[1]))


def swap(pair: tuple[Path, Path]) -> tuple[Path, Path]:
    """Return a pair with its files exchanged."""
    return pair[1], pair[0]


def true_suffix(path: Path) -> str:
    """Return the suffix of an image or array in small letters; that of its first bytes, or "", if it has none."""
    suffix = path.suffix.lower()
    if suffix in (*IMAGE_SUFFIXES, ARRAY_SUFFIX):
        return ".jpg" if suffix == ".jpeg" else ".tif" if suffix == ".tiff" else suffix
    return "" if suffix in OTHER_SUFFIXES else image_suffix(path)


def _side_by_side(folders: tuple[str, ...]) -> tuple[str, str, tuple[str, ...]]:
    """Return no folder of a family, the split, and the folders of the base."""
    split, rest = _without_split(folders)
    return "", split, rest


def _by_folder(folders: tuple[str, ...]) -> tuple[str, str, tuple[str, ...]]:
    split, rest = _without_split(folders)
    return "/".join(rest), split, ()


def _by_first_folder(folders: tuple[str, ...]) -> tuple[str, str, tuple[str, ...]]:
    split, rest = _without_split(folders)
    return (rest[0] if rest else ""), split, rest[1:]


def _by_last_folder(folders: tuple[str, ...]) -> tuple[str, str, tuple[str, ...]]:
    split, rest = _without_split(folders)
    return (rest[-1] if rest else ""), split, rest[:-1]


def _without_split(folders: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Return the split that the folders name, "" for none, and the folders without its word."""
    for k, folder in enumerate(folders):
        split = split_of(folder)
        if split:
            words = [word for word in re.split(r"[_\-. ]+", folder) if word and split_of(word) != split]
            rest = "_".join(words) if len(words) < len(re.split(r"[_\-. ]+", folder)) else folder
            return split, (*folders[:k], *([rest] if rest else []), *folders[k + 1 :])
    return "", folders


def _decomposed(name: str) -> Iterator[tuple[str, str, str]]:
    """Yield (word before, base, word after) of a name, each way: with no word, a word after, and a word before."""
    yield "", name, ""
    for match in re.finditer(r"(?<=[^_\-. ])[_\-. ]+(?=[^_\-. ])", name):
        after, before = name[match.start() :], name[: match.end()]
        # A word may end in digits, or begin as in 1stHO; what has other digits is a number of the image.
        if re.fullmatch(r"(?:[_\-. ]+(?:\d(?:st|nd|rd|th))?[^\W\d_]+\d?)+", after):
            yield "", name[: match.start()], after
        if re.fullmatch(r"[^\d]+", before):
            yield before, name[match.end() :], ""
    # image12 and mask12, 12image and 12mask.
    if glued := re.fullmatch(r"([^\W\d_]+)(\d.*)", name):
        yield glued[1], glued[2], ""
    if glued := re.fullmatch(r"(.*\d)([^\W\d_]+)", name):
        yield "", glued[1], glued[2]
