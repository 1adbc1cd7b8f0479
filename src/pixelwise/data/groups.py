"""Groups of images that belong together, such as the frames of a drive or the slices of a patient; holding them out.

Images of one group resemble each other, so a score on images whose neighbors were trained on says little about new
ones: CamVid's val split lies between two training frames of one drive. A group is held out as a whole.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigError, DatasetError, listed, os_reason
from ..files import read_regular
from ..registry import suggest
from .dataset import Dataset, Item, Split

_SEPARATOR = r"[_\-./ ]"
# Rules that find a group in a name, tried in this order. The first is the usual one: 0016E5_07959, Seq05VD_f00270;
# then patient12slice3; then the two eyes of Image_07L, Image_07R.
_RULES = {
    "the part of the name before its last number": rf"(.+?){_SEPARATOR}+[A-Za-z]{{0,8}}\d+",
    "the part of the name before its last word and number": r"(.*\d)[A-Za-z]+\d+",
    "the part of the name up to its last number": rf"(.*\d){_SEPARATOR}?[A-Za-z]{{1,5}}",
}
# Names that number images by the split or by the year (VOC's 2007_000032) show no groups.
_NO_GROUP = re.compile(r"(?:19|20)\d\d|train(?:ing)?|val(?:id|idation)?|test(?:ing)?", re.IGNORECASE)


@dataclass(frozen=True)
class Groups:
    """The group of each image of a dataset.

    by_item  the group of each item
    rule     how the groups were found, in words
    trained  the groups with images in split train
    """

    by_item: Mapping[Item, str] = field(repr=False)
    rule: str
    trained: frozenset[str] = field(default=frozenset(), repr=False)

    def of(self, split: Split) -> list[str]:
        """Return the group of each image of a split, in its order."""
        return [self.by_item[item] for item in split.items]

    def sizes(self, split: Split) -> dict[str, int]:
        """Return the number of images of each group of a split, sorted by name."""
        return dict(sorted(Counter(self.of(split)).items()))


def find_groups(dataset: Dataset, file: str | Path | None = None) -> Groups | None:
    """Return the groups that a file, the dataset's format or the names of the images show; None if none show.

    file  a CSV file with the columns `name` (the image's key, or its file name) and `group`; see `read_groups`
    Folders or names show groups if one rule puts all images of the dataset into at least two groups, which hold two
    images or more on average. `ISIC_0001` is therefore no group, and neither are the years in VOC's names.
    """
    items = list(dict.fromkeys(item for split in dataset.splits.values() for item in split.items))
    training_items = dataset.splits["train"].items if "train" in dataset.splits else ()

    def made(by_item: Mapping[Item, str], rule: str) -> Groups:
        return Groups(by_item, rule, frozenset(by_item[item] for item in training_items))

    if file is not None:
        return made(read_groups(Path(file), items), f"the column `group` of {Path(file).name}")
    if items and all(item.group for item in items):
        return made({item: item.group for item in items}, f"what the format {dataset.name} says")
    for rule, names in _candidates([item.key for item in items]):
        found = set(names)
        # A comma separates groups in `--data.hold_out`.
        is_usable = not all(map(_NO_GROUP.fullmatch, found)) and not any("," in name for name in found)
        if 2 <= len(found) <= len(items) / 2 and is_usable:
            return made(dict(zip(items, names, strict=True)), rule)
    return None


def _candidates(keys: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield rules, and the group of each key by them: the folder, from the uppermost on, then what names show."""
    folders = [key.split("/")[:-1] for key in keys]
    for depth in range(1, 1 + min(map(len, folders), default=0)):
        yield "the folder of the image", ["/".join(parts[:depth]) for parts in folders]
    for rule, pattern in _RULES.items():
        matches = [re.fullmatch(pattern, key) for key in keys]
        yield rule, [match[1] if match else key for match, key in zip(matches, keys, strict=True)]


def read_groups(path: Path, items: Iterable[Item]) -> dict[Item, str]:
    """Return the group of each item from a CSV file with the columns `name` and `group`, in any order.

    A name is an image's key, or the name of its file with or without suffix; further rows and columns are ignored.
    Raises DatasetError for a file that cannot be read or lacks a column, for a group without a name or with a comma in
    it (`--data.hold_out` separates groups by commas), and for images without a row.
    """
    try:
        rows = csv.DictReader(io.StringIO(read_regular(path).decode("utf-8-sig"), newline=""))
        if not {"name", "group"} <= set(rows.fieldnames or ()):
            what = f"expected the columns name and group, got {listed(rows.fieldnames or ()) or 'an empty file'}"
            raise DatasetError(path, what, "write `name,group` as the first line")
        by_name = {(row["name"] or "").strip(): (row["group"] or "").strip() for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        what = f"cannot be read as CSV: {os_reason(error) if isinstance(error, OSError) else error}"
        raise DatasetError(path, what, "save it as UTF-8 text") from None
    bad = [name for name, group in by_name.items() if not group or "," in group]
    if bad:
        raise DatasetError(path, f"expected a group without a comma, got none for {listed(bad)}", "name the group")
    found: dict[Item, str] = {}
    missing = []
    for item in items:
        name = next((n for n in (item.key, item.image.name, item.image.stem) if n in by_name), None)
        if name is None:
            missing.append(item.key)
        else:
            found[item] = by_name[name]
    if missing:
        raise DatasetError(path, f"has no row for {len(missing)} images: {listed(missing)}", "add a row for each")
    return found


def select_groups(split: Split, groups: Groups | None, names: str, option: str) -> tuple[Split, tuple[str, ...]]:
    """Return the images of the groups that an option names, separated by commas, as a split; and the sorted names.

    Raises ConfigError naming the option for groups that the split lacks, or if no groups show.
    """
    if groups is None:
        what = f"the names of the images of split {split.name} show no groups"
        flag = "--data.groups" if option.startswith("--data.") else "--groups"
        raise ConfigError(option, what, f"name the groups in a CSV file, {flag} FILE")
    sizes = groups.sizes(split)
    chosen = tuple(sorted({name.strip() for name in names.split(",")}))
    for name in chosen:
        if name not in sizes:
            what = f"split {split.name} has no group {name!r}; its groups: {listed(sizes, 12)}"
            raise ConfigError(option, what, suggest(name, sizes))
    items = [item for item in split.items if groups.by_item[item] in chosen]
    title = ", ".join(chosen) if len(chosen) <= 4 else f"{len(chosen)} groups"
    return split.with_items(items, f"{split.name} ({title})"), chosen


def describe_sizes(sizes: Mapping[str, int], most: int = 12) -> str:
    """Return "0001TP 62, 0006R0 101", at most `most` groups of them."""
    shown = [f"{name} {size}" for name, size in sizes.items()]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
