"""Any folder of images and masks: two folders, or one, whose names agree but for a word, with splits or without.

    photos/a.jpg       gt/a.png                            two folders under any names
    images/21.tif      manual/21_manual1.gif               a word more in the names of one of them, or of both
    a.jpg a.png   b.jpg b.png                              side by side, by their suffix
    a.jpg a_mask.png   x_sat.jpg x_mask.png                side by side, by a word
    a_RAW.jpg  a_CRACK.png  a_LANE.png                     a mask per class, see `class_families`
    train/image/1.png  train/label/1.png  test/...         folders of splits, above or below, or in the names of folders

The pairs are found by names, see `families`. Which side are the masks is decided by the pixels, and by the words of the
names where the pixels do not tell. If an image could have two masks, or a mask two images, the folder is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import combinations, permutations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ...errors import DatasetError, InputError, listed
from ...images import ARRAY_SUFFIX, IMAGE_SUFFIXES, describe_content, read_mask, walk_files
from ..dataset import Dataset, Item, Split
from ..mask_values import pack_colors
from ..seen_masks import SeenMask
from . import DATASETS
from .base import DatasetFormat, declares_multilabel, has_class_names, read_classes
from .class_families import classes_of_families, read_class_families
from .families import OTHER_SUFFIXES, Base, Family, Match, find_matches, swap, true_suffix
from .inferred_classes import infer_classes
from .mask_words import IMAGE_WORDS, MASK_FOLDER, MASK_WORDS

# Files are decoded to see whether they are masks; drawn classes have fewer values.
_LOOKED_AT, _MAX_VALUES = 3, 64
_ORDINAL = r"[1-3](?:st|nd|rd)|(?<=[a-z])[1-3](?![0-9])"

Kind = Literal["image", "mask", "unclear"]


@DATASETS.register("pairs", tiny={})
class Pairs(DatasetFormat):
    """Any folder of images and masks whose names agree but for a word."""

    needs = "any two folders, or one, of images and masks with names that agree but for a word such as _mask"
    is_fallback = True

    def find_root(self, folder: Path) -> Path | None:
        """Return `folder` itself if most of its images are in pairs of equal names."""
        return folder if any(_find(folder)) else None

    def read(self, root: Path) -> Dataset:
        """Read the pairs by split; all are `train` where no folder is named like a split.

        Masks without an image are a fault of the dataset. Raises DatasetError for files that may be in two pairs, and
        if the pixels do not show which files are the masks.
        """
        chosen, doubtful = _find(root)
        if not chosen:
            fix = "name the folders images and masks, or end the masks' names in _mask"
            raise DatasetError(root, doubtful[0] if doubtful else "has no pairs", fix)
        if dataset := _read_classes_each(root, [one for one in chosen if one.images == chosen[0].images]):
            return dataset
        best, left_out = chosen[0], dict[str, None]()
        for other in chosen[1:]:
            if not any((*best.images[2:], *best.masks[2:])) and other.files() <= best.files():
                # Equal names go before parts of them: of a1, a2 and b1, each belongs to its own, not a1 to b1.
                continue
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
            splits.setdefault(base.split or "train", []).append(Item(base.key, image, mask))
        image_names, mask_names = (_names_of(*side) for side in zip(best[:2], best.pair(min(match.bases)), strict=True))
        notes = [*left_out, f"{root}: {len(match.bases)} pairs: {image_names} are the images, {mask_names} their masks"]
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


def _read_classes_each(root: Path, chosen: list[_Chosen]) -> Dataset | None:
    """Return the dataset if the masks of the same images are those of several classes."""
    families = {one.masks: {base: one.pair(base) for base in one.match.bases} for one in chosen}
    if has_class_names(root) and not declares_multilabel(root):
        return None
    if any(_outranked(one, other) for one, other in permutations(families, 2)):
        return None
    classes = classes_of_families(families, declared=declares_multilabel(root))
    if classes is None:
        return None
    rest = [path for one in chosen for path in one.match.rest[one.images == one.match.second]]
    alone = [path for one in chosen for path in one.match.rest[one.images == one.match.first]]
    return read_class_families(root, chosen[0].images, families, classes, rest=rest, alone=alone)


def find_mask_files(root: Path, files: Iterable[Path]) -> set[Path]:
    """Return those of the files below a folder that are masks of others: of pairs, and of folders named like masks."""
    files, masks = set(files), set[Path]()
    for chosen in _find(root)[0]:
        found = {mask for image, mask in chosen.pairs() if image in files}
        if _kind_of(_some(found)) == "image" or _kind_of(_some(image for image, _ in chosen.pairs())) == "mask":
            # Two photos whose names agree, or two drawings.
            continue
        if found and (chosen.masks.before or chosen.masks.after):
            found.update(chosen.match.rest[chosen.masks == chosen.match.second])
        masks |= found
    by_folder: dict[Path, list[Path]] = {}
    for path in files:
        by_folder.setdefault(path.parent.relative_to(root), []).append(path)
    called = {folder for folder in by_folder if MASK_FOLDER.search(folder.name.casefold())}
    if called != by_folder.keys():
        # Of one image each, or with other numbers in their names.
        by_name: dict[str, list[Path]] = {}
        for folder in called:
            by_name.setdefault(folder.name, []).extend(set(by_folder[folder]) - masks)
        masks.update(*(paths for paths in by_name.values() if _kind_of(_some(paths)) == "mask"))
    return masks & files


def describe_folder(root: Path) -> str:
    """Return what a folder holds, in words: numbers of files by suffix and folder, and equal names between them."""
    files = [path.relative_to(root) for path in walk_files(root)[0]]
    if not files:
        return "it holds no files"
    firsts = {(path.parent.as_posix(), path.suffix.lower()): path for path in reversed(files)}
    counts = Counter((path.parent.as_posix(), path.suffix.lower()) for path in files)
    kinds = [
        f"{count} {suffix or 'without suffix'}"
        + (
            ""
            if suffix in (*IMAGE_SUFFIXES, *OTHER_SUFFIXES)
            else f" (the first: {describe_content(root / firsts[folder, suffix])})"
        )
        + (f" in {folder}/" if folder != "." else "")
        for (folder, suffix), count in counts.most_common(8)
    ]
    while len(kinds) > 1 and sum(map(len, kinds)) > 160:
        # The line stays one that can be read.
        kinds.pop()
    words = f"it holds {', '.join(kinds)}" + (
        f" and {len(counts) - len(kinds)} more kinds" if len(counts) > len(kinds) else ""
    )
    stems: dict[str, set[str]] = {}
    for path in files:
        stems.setdefault(f"{path.parent.as_posix()}/*{path.suffix}", set()).add(path.stem)
    largest = sorted(stems, key=lambda name: -len(stems[name]))[:8]
    shared = [(len(stems[a] & stems[b]), a, b) for a, b in combinations(largest, 2)]
    most, a, b = max(shared, default=(0, "", ""))
    if most:
        words += f"; {most} names are equal in {a} ({len(stems[a])}) and {b} ({len(stems[b])})"
    return words


class _Chosen(NamedTuple):
    """A match whose sides are known."""

    images: Family
    masks: Family
    match: Match

    def files(self) -> set[Path]:
        """Return all images and masks."""
        return {path for pair in self.match.bases.values() for path in pair}

    def pair(self, base: Base) -> tuple[Path, Path]:
        """Return the image and the mask of a base."""
        pair = self.match.bases[base]
        return swap(pair) if self.images == self.match.second else pair

    def pairs(self) -> set[tuple[Path, Path]]:
        """Return (image, mask) of each base."""
        return set(map(self.pair, self.match.bases))


def _find(root: Path) -> tuple[list[_Chosen], list[str]]:
    """Return the matches below a folder, and doubtful ones: by names, or else by the folders that files share."""
    chosen, doubtful = _judge(find_matches(root))
    if not chosen:
        chosen, more = _judge(find_matches(root, by_folder=True))
        doubtful += more
    return chosen, doubtful


def _judge(matches: list[Match]) -> tuple[list[_Chosen], list[str]]:
    """Return the matches of images with masks, and a line for each other one that may be meant."""
    kinds: dict[Family, Kind] = {}

    def kind(family: Family, paths: Iterable[Path]) -> Kind:
        if family not in kinds:
            kinds[family] = _kind_of(_some(paths))
        return kinds[family]

    chosen: list[_Chosen] = []
    doubtful: list[str] = []
    for match in matches:
        first = kind(match.first, [pair[0] for pair in match.bases.values()])
        second = kind(match.second, [pair[1] for pair in match.bases.values()])
        by_names = _is_mask_by_name(match.first, match.second)
        has_words = any((*match.first[2:], *match.second[2:]))
        if len(match.bases) == 1 and has_words and by_names is None:
            # Any two names agree in parts; a.png1_mask and a_overlay2_mask are no pair for that.
            continue
        is_first = by_names if by_names is not None else first == "mask"
        images, masks = (match.second, match.first) if is_first else (match.first, match.second)
        if {first, second} == {"image", "mask"}:
            if (first == "mask") == is_first:
                chosen.append(_Chosen(images, masks, match))
            else:
                what = f"by their names {masks} are the masks, but their pixels are those of photos"
                doubtful.append(f"{what}, and {images} have few values")
        elif by_names is not None and (first != "image" or second != "image" or _has_mask_word(masks, images)):
            # Two drawings, or masks that were saved as JPEG or resized, which reading them will report.
            chosen.append(_Chosen(images, masks, match))
        elif first != "image" or second != "image":
            doubtful.append(f"{match.first} and {match.second} have equal names; which are the masks does not show")
        elif match.first.folder != match.second.folder and not has_words:
            what = f"{match.first} and {match.second} have equal names, but the pixels of neither are those of masks"
            doubtful.append(f"{what}: more than {_MAX_VALUES} values, or lossy files")
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


def _has_mask_word(masks: Family, images: Family) -> bool:
    """Return whether the names of the first call them masks, and those of the second do not."""
    one, other = (MASK_WORDS.search(f"{f.folder} {f.before} {f.after}".casefold()) for f in (masks, images))
    return bool(one) and not other


def _is_mask_by_name(first: Family, second: Family) -> bool | None:
    """Return whether the words of the names say that the first family are the masks; None if they do not say."""
    text = [f"{family.folder} {family.before} {family.after}".casefold() for family in (first, second)]
    masks = [bool(MASK_WORDS.search(t)) for t in text]
    if masks[0] != masks[1]:
        return masks[0]
    images = [bool(IMAGE_WORDS.search(t)) for t in text]
    return images[1] if images[0] != images[1] else None


def _names_of(family: Family, path: Path) -> str:
    """Return the form of the names, as "masks/*.lbl", without the suffix that only the first bytes of a file show."""
    return str(family if path.suffix.lower() in (*IMAGE_SUFFIXES, ARRAY_SUFFIX) else family._replace(suffix=""))


def _some(paths: Iterable[Path]) -> list[Path]:
    files = sorted(paths)
    return files[:: max(1, len(files) // _LOOKED_AT)][:_LOOKED_AT]


def _kind_of(paths: list[Path]) -> Kind:
    """Return whether files look like masks (few values, exact), like images, or like neither."""
    kinds = set()
    for path in paths:
        try:
            pixels: Any = read_mask(path)
        except InputError:
            # A JPEG, a float, or damaged.
            kinds.add("unclear" if true_suffix(path) not in (".jpg",) else "image")
            continue
        values = pixels if pixels.ndim == 2 else pack_colors(pixels)
        kinds.add("mask" if len(np.unique(values)) <= _MAX_VALUES else "image")
    return "unclear" if len(kinds) != 1 else kinds.pop()  # type: ignore[return-value]
