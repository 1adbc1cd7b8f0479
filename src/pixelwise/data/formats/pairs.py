"""Any folder of images and masks: two folders, or one, whose names agree but for a word, with splits or without.

    photos/a.jpg       gt/a.png                            two folders under any names
    images/21.tif      manual/21_manual1.gif               a word more in the names of one of them, or of both
    a.jpg a.png   b.jpg b.png                              side by side, by their suffix
    a.jpg a_mask.png   x_sat.jpg x_mask.png                side by side, by a word
    train/image/1.png  train/label/1.png  test/...         folders of splits, above or below, or in the names of folders

All names are split into a family (folder, suffix of the file, word before or after) and a base. Two families belong
together if most of their bases are equal. Which of them are the masks is decided by the pixels, and by the words of
the names where the pixels do not tell. If an image could have two masks, or a mask two images, the folder is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ...errors import DatasetError, InputError, listed
from ...images import ARRAY_SUFFIX, IMAGE_SUFFIXES, image_suffix, read_mask, walk_files, without_suffix
from ..dataset import Dataset, Item, Split
from ..mask_values import pack_colors
from ..seen_masks import SeenMask
from . import DATASETS
from .annotations import split_of
from .base import DatasetFormat, read_classes
from .inferred_classes import infer_classes

# A family is a candidate if it has this share of the files of its folder and suffix, and two are a pair if this share
# of the smaller one has a partner.
_MIN_FAMILY, _MIN_SHARED = 0.2, 0.5
# Files are decoded to see whether they are masks; drawn classes have fewer values.
_LOOKED_AT, _MAX_VALUES = 3, 64
_MASK_WORDS = re.compile(
    r"(?:^|[^a-z])(?:\d*(?:st|nd|rd))?(?:mask|label|gt|annot|annotation|truth|groundtruth|seg|segmentation|manual|target|"
    r"ho|class|index)(?:s|es|ed|ids|class|id|trainids)?\d*(?:$|[^a-z])"
)
_IMAGE_WORDS = re.compile(
    r"(?:^|[^a-z])(?:image|img|photo|picture|pic|input|rgb|sat|raw|orig|original|data|x|jpg|scan)s?\d*"  # word: quoted
    r"(?:$|[^a-z])"
)
_ORDINAL = r"[1-3](?:st|nd|rd)|(?<=[a-z])[1-3](?![0-9])"
_SPLIT_WORD = "_(split)"
_OTHERS = ("classes.yaml", "classes.yml", "classes.txt", "class_names.txt", "labelmap.txt")

Kind = Literal["image", "mask", "unclear"]


class Base(NamedTuple):
    """What two files of a pair have in common: split, folders, and name without the words of their families."""

    split: str
    folders: tuple[str, ...]
    name: str


class Family(NamedTuple):
    """What the files on one side of the pairs have in common."""

    folder: str
    suffix: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.folder + '/' if self.folder else ''}{self.before}*{self.after}{self.suffix}"


@dataclass(frozen=True)
class _Match:
    """Two families that belong together, and their files by base."""

    first: Family
    second: Family
    bases: Mapping[Base, tuple[Path, Path]]
    rest: tuple[tuple[Path, ...], tuple[Path, ...]]


@DATASETS.register("pairs", tiny={})
class Pairs(DatasetFormat):
    """Any folder of images and masks whose names agree but for a word."""

    needs = "any two folders, or one, of images and masks with names that agree but for a word such as _mask"
    is_fallback = True

    def find_root(self, folder: Path) -> Path | None:
        """Return `folder` itself if most of its images are in pairs of equal names."""
        return folder if any(_judge(_matches(folder))) else None

    def read(self, root: Path) -> Dataset:
        """Read the pairs by split; all are `train` where no folder is named like a split.

        Masks without an image are a fault of the dataset. Raises DatasetError for files that may be in two pairs, and
        if the pixels do not show which files are the masks.
        """
        chosen, doubtful = _judge(_matches(root))
        if not chosen:
            fix = "name the folders images and masks, or end the masks' names in _mask"
            raise DatasetError(root, doubtful[0] if doubtful else "has no pairs", fix)
        best, left_out = chosen[0], dict[str, None]()
        for other in chosen[1:]:
            is_same_images = other.images[:2] == best.images[:2]
            if is_same_images and (reason := _outranked(other.masks, best.masks)):
                left_out[f"{root}: {other.masks} are not used: {reason}"] = None
            elif is_same_images and (reason := _outranked(best.masks, other.masks)):
                left_out[f"{root}: {best.masks} are not used: {reason}"] = None
                best = other
            else:
                _check_unique(root, best, other)
        images, masks, match = best
        is_swapped = images == match.second
        faults = []
        if match.rest[0 if is_swapped else 1]:
            rest = [path.relative_to(root) for path in match.rest[0 if is_swapped else 1]]
            what = f"{len(rest)} masks have no image: {listed(rest)} ({masks}, beside {images})"
            faults.append(DatasetError(root, what, "add the images, or take the masks out of the folder"))
        splits: dict[str, list[Item]] = {}
        for base, files in sorted(match.bases.items()):
            image, mask = files[::-1] if is_swapped else files
            key = "/".join((*base.folders, base.name))
            splits.setdefault(base.split or "train", []).append(Item(key, image, mask))
        notes = [*left_out, f"{root}: {len(match.bases)} pairs: {images} are the images, {masks} their masks"]
        rest_images = match.rest[1 if is_swapped else 0]
        if rest_images:
            names = listed(path.relative_to(root) for path in rest_images)
            notes.append(f"{root}: {len(rest_images)} images without a mask are left out: {names}")
        seen: Mapping[Path, SeenMask] = {}
        if found := read_classes(root):
            taxonomy, encoding = found
        else:
            paths = [item.mask for items in splits.values() for item in items if item.mask is not None]
            inferred = infer_classes(root, paths)
            taxonomy, encoding, seen = inferred.taxonomy, inferred.encoding, inferred.seen
            notes += [inferred.note] if inferred.note else []
            faults += [] if inferred.fault is None else [inferred.fault]
        order = sorted(splits, key=lambda name: (name != "train", name))
        named = {name: Split(name, splits[name], taxonomy, encoding) for name in order}
        return Dataset("pairs", root, taxonomy, named, tuple(notes), tuple(faults), seen)


def describe_folder(root: Path) -> str:
    """Return what a folder holds, in words: numbers of files by suffix and folder, and equal names between them."""
    files = [path.relative_to(root) for path in walk_files(root)[0]]
    if not files:
        return "it holds no files"
    counts = Counter((path.parent.as_posix(), path.suffix.lower()) for path in files)
    kinds = [
        f"{count} {suffix or 'without suffix'}" + (f" in {folder}/" if folder != "." else "")
        for (folder, suffix), count in counts.most_common(8)
    ]
    words = f"it holds {', '.join(kinds)}" + (f" and {len(counts) - 8} more kinds" if len(counts) > 8 else "")
    stems: dict[str, set[str]] = {}
    for path in files:
        stems.setdefault(f"{path.parent.as_posix()}/*{path.suffix}", set()).add(path.stem)
    largest = sorted(stems, key=lambda name: -len(stems[name]))[:8]
    shared = [(len(stems[a] & stems[b]), a, b) for a, b in combinations(largest, 2)]
    most, a, b = max(shared, default=(0, "", ""))
    if most:
        words += f"; {most} names are equal in {a} ({len(stems[a])}) and {b} ({len(stems[b])})"
    return words


def _matches(root: Path) -> list[_Match]:
    """Return the pairs of families below a folder that most names agree in, the largest first."""
    files = [(path, suffix) for path in walk_files(root)[0] if (suffix := _suffix(path))]
    found: dict[frozenset[tuple[Path, Path]], _Match] = {}
    for layout in (_by_folder, _by_first_folder, _by_last_folder, _side_by_side):
        groups: dict[tuple[str, str], list[Path]] = {}
        families: dict[Family, dict[Base, list[Path]]] = {}
        for path, suffix in files:
            folder, split, rest = layout(path.relative_to(root).parent.parts)
            groups.setdefault((folder, suffix), []).append(path)
            name = without_suffix(path).name if path.suffix else path.name
            for before, base, after in _decomposed(name):
                if split and split_of(after):
                    # The name repeats the folder: 21_training in training/, 01_test in test/.
                    after = _SPLIT_WORD
                bases = families.setdefault(Family(folder, suffix, before, after), {})
                bases.setdefault(Base(split, rest, base), []).append(path)
        usable = {
            family: {base: paths[0] for base, paths in bases.items() if len(paths) == 1}
            for family, bases in families.items()
            if len(bases) >= max(_least(family), _MIN_FAMILY * len(groups[family.folder, family.suffix]))
        }
        if len(usable) > 200:
            # Every file has a word of its own.
            continue
        for first, second in combinations(usable, 2):
            match = _matched(first, second, usable[first], usable[second], groups)
            if match is not None:
                found.setdefault(frozenset(match.bases.values()) | frozenset(map(_swap, match.bases.values())), match)
    return sorted(found.values(), key=lambda match: -len(match.bases))


def _least(family: Family) -> int:
    """Return how many files a family has at least: one file does not make a word, unless it is a usual one."""
    word = f"{family.before} {family.after}".casefold()
    return 1 if not word.strip() or _MASK_WORDS.search(word) or _IMAGE_WORDS.search(word) else 2


def _matched(
    first: Family,
    second: Family,
    ours: Mapping[Base, Path],
    theirs: Mapping[Base, Path],
    groups: Mapping[tuple[str, str], list[Path]],
) -> _Match | None:
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
    return _Match(first, second, bases, (rests[0], rests[1]))


def _swap(pair: tuple[Path, Path]) -> tuple[Path, Path]:
    return pair[1], pair[0]


def _suffix(path: Path) -> str:
    """Return the suffix of an image or array in small letters, that of its first bytes if it has none, else ""."""
    suffix = path.suffix.lower()
    if suffix in (*IMAGE_SUFFIXES, ARRAY_SUFFIX):
        return ".jpg" if suffix == ".jpeg" else ".tif" if suffix == ".tiff" else suffix
    is_named = path.name in _OTHERS or re.fullmatch(r"\.[a-z][a-z0-9]{1,4}", suffix)
    return "" if is_named else image_suffix(path)


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
    for match in re.finditer(r"(?<=[A-Za-z0-9])[_\-. ]+(?=[A-Za-z0-9])", name):
        after, before = name[match.start() :], name[: match.end()]
        # A word may end in digits, or begin as in 1stHO; what has other digits is a number of the image.
        if re.fullmatch(r"(?:[_\-. ]+(?:\d(?:st|nd|rd|th))?[A-Za-z]+\d?)+", after):
            yield "", name[: match.start()], after
        if re.fullmatch(r"[^\d]+", before):
            yield before, name[match.end() :], ""
    # image12 and mask12, 12image and 12mask.
    if glued := re.fullmatch(r"([A-Za-z]+)(\d.*)", name):
        yield glued[1], glued[2], ""
    if glued := re.fullmatch(r"(.*\d)([A-Za-z]+)", name):
        yield "", glued[1], glued[2]


class _Chosen(NamedTuple):
    """A match whose sides are known."""

    images: Family
    masks: Family
    match: _Match

    def pairs(self) -> set[tuple[Path, Path]]:
        """Return (image, mask) of each base."""
        is_swapped = self.images == self.match.second
        return {(_swap(pair) if is_swapped else pair) for pair in self.match.bases.values()}


def _judge(matches: list[_Match]) -> tuple[list[_Chosen], list[str]]:
    """Return the matches of images with masks, and a line for each other one that may be meant."""
    kinds: dict[Family, Kind] = {}

    def kind(family: Family, paths: Iterable[Path]) -> Kind:
        if family not in kinds:
            files = sorted(paths)
            kinds[family] = _kind_of(files[:: max(1, len(files) // _LOOKED_AT)][:_LOOKED_AT])
        return kinds[family]

    chosen: list[_Chosen] = []
    doubtful: list[str] = []
    for match in matches:
        first = kind(match.first, [pair[0] for pair in match.bases.values()])
        second = kind(match.second, [pair[1] for pair in match.bases.values()])
        by_names = _is_mask_by_name(match.first, match.second)
        is_first = by_names if by_names is not None else first == "mask"
        images, masks = (match.second, match.first) if is_first else (match.first, match.second)
        if {first, second} == {"image", "mask"}:
            if (first == "mask") == is_first:
                chosen.append(_Chosen(images, masks, match))
            else:
                what = f"by their names {masks} are the masks, but their pixels are those of photos"
                doubtful.append(f"{what}, and {images} have few values")
        elif by_names is not None and (first != "image" or second != "image" or masks.suffix == ".jpg"):
            # Two drawings, or masks that were saved as JPEG, which reading them will report.
            chosen.append(_Chosen(images, masks, match))
        elif first != "image" or second != "image":
            doubtful.append(f"{match.first} and {match.second} have equal names; which are the masks does not show")
    return chosen, doubtful


def _check_unique(root: Path, one: _Chosen, other: _Chosen) -> None:
    """Raise DatasetError if two matches give one image two masks, or one mask two images."""
    words, others = ([family[1:] for family in (chosen.images, chosen.masks)] for chosen in (one, other))
    if words == others and not one.images.folder and not one.masks.folder:
        # The same words across folders: p1/scan.png belongs to p1/scan_mask.png, not to p2/scan_mask.png.
        return
    for side, word in ((0, "masks"), (1, "images")):
        partners = {pair[side]: pair[1 - side] for pair in one.pairs()}
        for pair in sorted(other.pairs()):
            known = partners.get(pair[side])
            if known is not None and known != pair[1 - side]:
                both = f"{known.relative_to(root)} and {pair[1 - side].relative_to(root)}"
                what = f"{pair[side].relative_to(root)} has two {word}: {both}"
                fix = "take the files that do not count out of the folder"
                each = "; where each class has masks of its own, write `kind: multilabel` in classes.yaml"
                raise DatasetError(root, what, fix + each if word == "masks" else fix)


def _outranked(masks: Family, others: Family) -> str:
    """Return why published sets use the masks `others` in place of `masks`, by their words; "" where none says so.

    DRIVE, STARE and CHASE_DB1 score against the first observer, whose masks may have a folder of their own. In DRIVE
    and HRF, `mask` is the field of view beside the vessels in `manual`; elsewhere it is `fov`.
    """
    names, other_names = (f"{f.before} {f.after}".casefold() for f in (masks, others))
    words, other_words = (f"{f.folder} {name}".casefold() for f, name in ((masks, names), (others, other_names)))
    for text, other in ((names, other_names), (words, other_words)):
        is_same = re.sub(_ORDINAL, "#", text) == re.sub(_ORDINAL, "#", other)
        if is_same and re.findall(_ORDINAL, text) > re.findall(_ORDINAL, other):
            return f"they are another observer's than {others}"
    is_fov, other_is_fov = (bool(re.search(r"(?<![a-z])fov(?![a-z])", text)) for text in (words, other_words))
    is_beside_manual = "mask" in words and "manual" not in words and "manual" in other_words
    if (is_fov and not other_is_fov) or is_beside_manual:
        return f"beside {others}, they are the field of view"
    return ""


def _is_mask_by_name(first: Family, second: Family) -> bool | None:
    """Return whether the words of the names say that the first family are the masks; None if they do not say."""
    text = [f"{family.folder} {family.before} {family.after}".casefold() for family in (first, second)]
    masks = [bool(_MASK_WORDS.search(t)) for t in text]
    if masks[0] != masks[1]:
        return masks[0]
    images = [bool(_IMAGE_WORDS.search(t)) for t in text]
    return images[1] if images[0] != images[1] else None


def _kind_of(paths: list[Path]) -> Kind:
    """Return whether files look like masks (few values, exact), like images, or like neither."""
    kinds = set()
    for path in paths:
        try:
            pixels: Any = read_mask(path)
        except InputError:
            # A JPEG, a float, or damaged.
            kinds.add("unclear" if _suffix(path) not in (".jpg",) else "image")
            continue
        values = pixels if pixels.ndim == 2 else pack_colors(pixels)
        kinds.add("mask" if len(np.unique(values)) <= _MAX_VALUES else "image")
    return "unclear" if len(kinds) != 1 else kinds.pop()  # type: ignore[return-value]
