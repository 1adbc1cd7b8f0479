"""Groups of images that belong together, such as the frames of a drive or the slices of a patient; holding them out.

Images of one group resemble each other, so a score on images whose neighbors were trained on says little about new
ones: CamVid's val split lies between two training frames of one drive. A group is held out as a whole.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..config import DataConfig
from ..errors import ConfigError, DatasetError, listed, os_reason
from ..files import read_regular
from ..registry import suggest
from .dataset import Dataset, Item, Split

HOLD_OUT = "hold-out"
"""The first word in the name of a split that was held out of the training images."""
HOLD_OUT_SHARE = 0.2
"""The share of the images that is held out for validation where a dataset has no validation split."""
_SEPARATOR = r"[_\-./ ]"
# Rules that find a group in a name, tried in this order. The first is the usual one: 0016E5_07959, Seq05VD_f00270,
# patient03/slice_12; then patient12slice3; then the two eyes of Image_07L, Image_07R.
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
    Names show groups if one rule puts all images of the dataset into at least two groups, which hold two images or
    more on average. `ISIC_0001` is therefore no group, and neither are the years in VOC's names.
    """
    items = list(dict.fromkeys(item for split in dataset.splits.values() for item in split.items))
    training_items = dataset.splits["train"].items if "train" in dataset.splits else ()

    def made(by_item: Mapping[Item, str], rule: str) -> Groups:
        return Groups(by_item, rule, frozenset(by_item[item] for item in training_items))

    if file is not None:
        return made(read_groups(Path(file), items), f"the column `group` of {Path(file).name}")
    if items and all(item.group for item in items):
        return made({item: item.group for item in items}, f"what the format {dataset.name} says")
    for rule, pattern in _RULES.items():
        matches = [re.fullmatch(pattern, item.key) for item in items]
        names = [match[1] if match else item.key for match, item in zip(matches, items, strict=True)]
        found = set(names)
        # A comma separates groups in `--data.hold_out`.
        is_usable = not all(map(_NO_GROUP.fullmatch, found)) and not any("," in name for name in found)
        if 2 <= len(found) <= len(items) / 2 and is_usable:
            return made(dict(zip(items, names, strict=True)), rule)
    return None


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


def training_data(dataset: Dataset, settings: DataConfig) -> tuple[Dataset, tuple[str, ...]]:
    """Return the dataset with the splits to train and to validate on, as `settings` says, and the groups held out.

    With `hold_out`, these groups of the training split become the validation split. Without it, and without a
    validation split in the dataset, a fifth of the training images does: whole groups where groups show (unless
    `split_by` is `image`), single images elsewhere. The choice depends on the names alone; a note of the dataset says
    what was held out.
    Raises ConfigError for groups that do not exist or leave nothing to train on, DatasetError for a missing split.
    """
    needs_split = settings.val_split == DataConfig().val_split and settings.val_split not in dataset.splits
    if settings.hold_out is None and not (needs_split and settings.train_split in dataset.splits):
        return dataset, ()
    train = dataset.split(settings.train_split, option="--data.train_split")
    groups = find_groups(dataset, settings.groups)
    reason, hold_out = "", settings.hold_out
    if hold_out is not None and settings.val_split == settings.train_split:
        what = f"replaces --data.val_split, which is the training split {train.name!r}"
        raise ConfigError("--data.hold_out", what, "leave --data.val_split at its default")
    if hold_out is None:
        if len(train) < 2:
            return dataset, ()
        reason = f"{dataset.name} has no split {settings.val_split}: "
        sizes = groups.sizes(train) if groups and settings.split_by == "group" else {}
        hold_out = ",".join(_choose(sizes, HOLD_OUT_SHARE * len(train))) if len(sizes) > 1 else None
    names: tuple[str, ...] = ()
    if hold_out is not None:
        selected, names = select_groups(train, groups, hold_out, "--data.hold_out")
        if len(selected) == len(train):
            raise ConfigError("--data.hold_out", f"{hold_out!r} leaves no image to train on", "hold out fewer groups")
        assert groups is not None, "only groups that were found are held out"
        held = set(selected.items)
        note = f"groups held out of split {train.name} for validation: {', '.join(names)} ({len(held)} images); "
        note += f"groups and their images: {describe_sizes(groups.sizes(train))}; a group is {groups.rule}"
        title = "+".join(names) if len(names) <= 4 else f"{len(names)} groups"
    else:
        keys = sorted((item.key for item in train.items), key=_digest)
        chosen = set(keys[: max(1, round(HOLD_OUT_SHARE * len(keys)))])
        held = {item for item in train.items if item.key in chosen}
        note = (
            f"{len(held)} of {len(train)} images held out of split {train.name} for validation, chosen by their names"
        )
        title = f"{len(held)} images"
    parts = [item for item in train.items if item not in held], [item for item in train.items if item in held]
    kept, val = (
        train.with_items(items, name) for name, items in zip((train.name, f"{HOLD_OUT} {title}"), parts, strict=True)
    )
    splits = {**dataset.splits, settings.train_split: kept, settings.val_split: val}
    return replace(dataset, splits=splits, notes=(*dataset.notes, reason + note)), names


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


def _choose(sizes: Mapping[str, int], target: float) -> tuple[str, ...]:
    """Return groups with about `target` images in all: those that bring the number nearer, in the order of digests."""
    chosen: list[str] = []
    count = 0
    for name in sorted(sizes, key=_digest):
        if abs(count + sizes[name] - target) < abs(count - target):
            chosen.append(name)
            count += sizes[name]
    return tuple(sorted(chosen or [min(sizes, key=lambda name: (sizes[name], name))]))


def _digest(name: str) -> bytes:
    """Return a digest, by which names are put into an order without a pattern that is the same on every machine."""
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()


def describe_sizes(sizes: Mapping[str, int], most: int = 12) -> str:
    """Return "0001TP 62, 0006R0 101", at most `most` groups of them."""
    shown = [f"{name} {size}" for name, size in sizes.items()]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
