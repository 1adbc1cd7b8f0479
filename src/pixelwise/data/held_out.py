"""The images of a training split that a run validates on, where the dataset has no validation split for it.

Whole groups are held out where groups show, single images elsewhere, but of a numbered sequence whose neighbors look
alike its last images. The choice depends on the names, so that it is the same on every machine, and on the masks in
one respect: no class is held out with all of its images. A run keeps the names in `held_out.json`, from which a resumed
run and `pixelwise evaluate` read them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..config import DataConfig
from ..errors import ConfigError, DatasetError, InputError, listed, os_reason
from ..files import read_json, write_text
from ..images import read_pixels
from .dataset import Dataset, Item, Split
from .groups import Groups, describe_sizes, find_groups, select_groups
from .perceptual_hash import perceptual_hash
from .sequences import SignOf, find_sequences

HOLD_OUT = "hold-out"
"""The first word in the name of a split that was held out of the training images."""
HOLD_OUT_SHARE = 0.2
"""The share of the images that is held out for validation where a dataset has no validation split."""
HELD_OUT_FILE = "held_out.json"
"""The file of a run that names the images."""
# Each name falls on one side by itself, so that new images move no other one, unless the number of images comes out
# as less or more than these multiples of a fifth.
_LEAST, _MOST = 0.75, 2.0
# A group with more of the images is not held out unless it is asked for.
_MAX_SHARE = 0.5
# Blocks of a sequence.
_PARTS = 5

ClassesOf = Callable[[Item], frozenset[int]]


@dataclass(frozen=True)
class HeldOut:
    """Images of the training split that are validated on.

    name    of their split: "hold-out" and what it is
    keys    of the images, sorted
    groups  the groups that they are, empty for single images
    why     how they were chosen, in words
    """

    name: str
    keys: tuple[str, ...]
    groups: tuple[str, ...]
    why: str

    def split(self, train: Split) -> tuple[Split, Split]:
        """Return the images that remain in `train`, and those that are held out.

        Raises DatasetError for a name that `train` lacks, and if none remains.
        """
        held = set(self.keys)
        missing = held - {item.key for item in train.items}
        if missing:
            what = f"{len(missing)} of {len(held)} images that were held out are missing: {listed(sorted(missing))}"
            raise DatasetError(f"split {train.name}", what, "restore them, or start a new run")
        if len(held) == len(train):
            what = "no image remains to train on, as all are held out"
            raise DatasetError(f"split {train.name}", what, "restore the other images, or start a new run")
        parts = ([item for item in train.items if (item.key in held) == is_held] for is_held in (False, True))
        return train.with_items(next(parts)), train.with_items(next(parts), self.name)

    def write(self, path: Path) -> None:
        """Write the names to a file, one per line."""
        data = {"split": self.name, "why": self.why, "groups": list(self.groups), "images": list(self.keys)}
        write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")

    @staticmethod
    def read(path: Path) -> HeldOut:
        """Read what `write` wrote. Raises InputError."""
        fix = "restore the file, or start a new run"
        try:
            data = read_json(path)
            keys, groups = ([str(name) for name in data[key]] for key in ("images", "groups"))
            return HeldOut(str(data["split"]), tuple(keys), tuple(groups), str(data["why"]))
        except (KeyError, TypeError):
            what = "does not name the images that a run held out"
        except (OSError, ValueError) as error:
            what = f"cannot be read: {os_reason(error)}"
        raise InputError(path, what, fix)


def held_out_of(model: str | Path | None) -> HeldOut | None:
    """Return what a run held out, from its folder or that of one of its checkpoints; None for anything else."""
    if model is None:
        return None
    folder = Path(model)
    for place in (folder, folder.absolute().parent.parent) if folder.is_dir() else ():
        if (place / HELD_OUT_FILE).is_file():
            return HeldOut.read(place / HELD_OUT_FILE)
    return None


def split_or_held_out(dataset: Dataset, name: str, model: str | Path | None, *, option: str) -> Split:
    """Return a split of the dataset; in place of a missing `val`, the images of `train` that a run held out.

    model  the run, or a checkpoint of it
    Raises DatasetError for a split that does not exist, and for images that are no longer there.
    """
    held_out = held_out_of(model)
    if name == DataConfig().val_split and name not in dataset.splits and held_out is None:
        what = f"has no split {name}; existing splits: {', '.join(dataset.splits)}"
        fix = f"set {option} to one of them, or name a run that held images out, whose {HELD_OUT_FILE} lists them"
        raise DatasetError(dataset.root, what, fix)
    if held_out is None or name != DataConfig().val_split or name in dataset.splits or "train" not in dataset.splits:
        return dataset.split(name, option=option)
    return held_out.split(dataset.splits["train"])[1]


def training_data(
    dataset: Dataset,
    settings: DataConfig,
    *,
    held_out: HeldOut | None = None,
    classes_of: ClassesOf | None = None,
    sign_of: SignOf | None = None,
) -> tuple[Dataset, HeldOut | None]:
    """Return the dataset with the splits to train and to validate on, as `settings` says, and what was held out.

    With `hold_out`, these groups of the training split become the validation split. Without it, and without a
    validation split in the dataset, about a fifth of the training images does: whole groups where groups show (unless
    `split_by` is `image`), the last images of numbered sequences, and single images elsewhere. A note of the dataset
    says what was held out.

    held_out    what the run holds out already, so that nothing is chosen, unless `hold_out` names other groups
    classes_of  the class ids in the mask of an item; by default the masks are read, as far as the choice needs them
    sign_of     the perceptual hash of an item, empty for one that cannot be read; by default images are read likewise
    Raises ConfigError for groups that do not exist or leave nothing to train on, DatasetError for a missing split.
    """
    named = None if settings.hold_out is None else {name.strip() for name in settings.hold_out.split(",")}
    if held_out is not None and named not in (None, set(held_out.groups)):
        held_out = None
    needs_split = settings.val_split == DataConfig().val_split and settings.val_split not in dataset.splits
    if settings.hold_out is None and held_out is None and not (needs_split and settings.train_split in dataset.splits):
        return dataset, None
    train = dataset.split(settings.train_split, option="--data.train_split")
    if settings.hold_out is not None and settings.val_split == settings.train_split:
        what = f"replaces --data.val_split, which is the training split {train.name!r}"
        raise ConfigError("--data.hold_out", what, "leave --data.val_split at its default")
    if held_out is None and settings.hold_out is None and len(train) < 2:
        return dataset, None
    if held_out is None:
        held_out = _choose(dataset, train, settings, classes_of or _reader(train), sign_of or _hasher(train))
    kept, val = held_out.split(train)
    splits = {**dataset.splits, settings.train_split: kept, settings.val_split: val}
    return replace(dataset, splits=splits, notes=(*dataset.notes, held_out.why)), held_out


def _choose(dataset: Dataset, train: Split, settings: DataConfig, classes_of: ClassesOf, sign_of: SignOf) -> HeldOut:
    """Return the groups that the settings name, or else the groups or images that are a fifth of the split."""
    groups = find_groups(dataset, settings.groups)
    if settings.hold_out is not None:
        selected, names = select_groups(train, groups, settings.hold_out, "--data.hold_out")
        if len(selected) == len(train):
            what = f"{settings.hold_out!r} leaves no image to train on"
            raise ConfigError("--data.hold_out", what, "hold out fewer groups")
        assert groups is not None, "only groups that were found are held out"
        return _of_groups(train, groups, names, "")
    reason = f"{dataset.name} has no split {settings.val_split}: "
    if groups and settings.split_by == "group" and (names := _choose_groups(train, groups, classes_of)):
        return _of_groups(train, groups, names, reason)
    if settings.split_by == "group" and (sequences := find_sequences(train.items, sign_of)):
        return _of_sequences(train, sequences, classes_of, reason)
    held = _choose_images(train.items)
    back = _only_ones(held, [item for item in train.items if item not in held], classes_of)
    if len(back) == len(held):
        back = set()
    keys, kept = (tuple(sorted(item.key for item in items)) for items in (held - back, back))
    why = f"{len(keys)} of {len(train)} images held out of split {train.name} for validation, chosen by their names"
    why += f": {listed(keys)}"
    if kept:
        why += f"; not {listed(kept)}, as no other image has one of the classes"
    return HeldOut(f"{HOLD_OUT} {len(keys)} images", keys, (), reason + why)


def _of_groups(train: Split, groups: Groups, names: Sequence[str], reason: str) -> HeldOut:
    items = [item for item in train.items if groups.by_item[item] in names]
    why = f"groups held out of split {train.name} for validation: {', '.join(names)} ({len(items)} images); "
    why += f"groups and their images: {describe_sizes(groups.sizes(train))}; a group is {groups.rule}"
    title = "+".join(names) if len(names) <= 4 else f"{len(names)} groups"
    keys = tuple(sorted(item.key for item in items))
    return HeldOut(f"{HOLD_OUT} {title}", keys, tuple(names), reason + why)


def _of_sequences(train: Split, sequences: Sequence[Sequence[Item]], classes_of: ClassesOf, reason: str) -> HeldOut:
    """Hold out one block of each sequence, the last if no class goes with it, and a fifth of the other images."""
    in_sequence = {item for frames in sequences for item in frames}
    others = [item for item in train.items if item not in in_sequence]
    single = _choose_images(others) if others else set[Item]()

    def held_with(part: int) -> tuple[list[Sequence[Item]], set[Item]]:
        blocks = [frames[len(frames) * part // _PARTS : len(frames) * (part + 1) // _PARTS] for frames in sequences]
        held = single.union(*blocks)
        return blocks, _only_ones(held, [item for item in train.items if item not in held], classes_of)

    tried = [held_with(_PARTS - 1)]
    while tried[-1][1] and len(tried) < _PARTS:
        # The first block has training images on one side alone, too.
        tried.append(held_with(len(tried) - 1))
    blocks, back = min(tried, key=lambda pair: len(pair[1]))
    # A frame that is trained on must not lie between two that are held out.
    kept = [block for block in (_longest_run(block, back) for block in blocks) if block]
    if not kept:
        kept, back = blocks, set()
    keys = tuple(sorted(item.key for item in single.union(*kept) - back))
    spans = listed(f"{block[0].key} to {block[-1].key}" for block in kept)
    which = "a numbered sequence" if len(kept) == 1 else f"each of {len(kept)} numbered sequences"
    why = f"{len(keys)} of {len(train)} images held out of split {train.name} for validation"
    why += f": a block of {which} whose neighbors look alike: {spans}"
    why += f"; and {listed(sorted(item.key for item in single - back))}" if single - back else ""
    if back:
        why += f"; without {listed(sorted(item.key for item in back))}, as no other image has one of the classes"
    return HeldOut(f"{HOLD_OUT} {len(keys)} images", keys, (), reason + why)


def _longest_run(block: Sequence[Item], without: Set[Item]) -> Sequence[Item]:
    """Return the longest part of a block that has none of some items."""
    gaps = [-1, *(k for k, item in enumerate(block) if item in without), len(block)]
    begin, end = max(pairwise(gaps), key=lambda pair: pair[1] - pair[0])
    return block[begin + 1 : end]


def _choose_groups(train: Split, groups: Groups, classes_of: ClassesOf) -> tuple[str, ...]:
    """Return groups with about a fifth of the images, whose classes all occur in the others; empty if there are none.

    In the order of digests, those that bring the number nearer to a fifth.
    """
    sizes, target = groups.sizes(train), HOLD_OUT_SHARE * len(train)
    while len(sizes) > 1:
        chosen: list[str] = []
        count = 0
        for name in sorted(sizes, key=_digest):
            if abs(count + sizes[name] - target) < abs(count - target):
                chosen.append(name)
                count += sizes[name]
        chosen = chosen or [min(sizes, key=lambda name: (sizes[name], name))]
        held = {item for item in train.items if groups.by_item[item] in chosen}
        if len(held) > _MAX_SHARE * len(train):
            return ()
        only_ones = _only_ones(held, [item for item in train.items if item not in held], classes_of)
        if not only_ones:
            return tuple(sorted(chosen))
        # The groups that alone have a class are trained on.
        alone = {groups.by_item[item] for item in only_ones}
        sizes = {name: size for name, size in sizes.items() if name not in alone}
    return ()


def _choose_images(items: Sequence[Item]) -> set[Item]:
    """Return about a fifth of the items, by the digests of their names."""
    count = max(1, round(HOLD_OUT_SHARE * len(items)))
    limit = int(HOLD_OUT_SHARE * 2**64).to_bytes(8, "big")
    held = {item for item in items if _digest(item.key) < limit}
    if not _LEAST * count <= len(held) <= _MOST * count:
        held = set(sorted(items, key=lambda item: _digest(item.key))[:count])
    return held


def _only_ones(held: Iterable[Item], kept: Iterable[Item], classes_of: ClassesOf) -> set[Item]:
    """Return the items of `held` that have a class which no item of `kept` has."""
    held, rest = list(held), iter(kept)
    with ThreadPoolExecutor() as executor:
        by_item: Mapping[Item, frozenset[int]] = dict(zip(held, executor.map(classes_of, held), strict=True))
        missing = set[int]().union(*by_item.values())
        # Mostly a few masks have all classes.
        while missing and (some := [item for _, item in zip(range(32), rest, strict=False)]):
            missing = missing.difference(*executor.map(classes_of, some))
    return {item for item, classes in by_item.items() if classes & missing}


def _reader(split: Split) -> ClassesOf:
    """Return a function that reads the classes in the mask of an item, each once; none in one that is not read."""
    known: dict[Item, frozenset[int]] = {}

    def classes_of(item: Item) -> frozenset[int]:
        if item not in known:
            try:
                mask = split.read_labels(item)
            except InputError:
                # The check before the training reports it.
                mask = None
            if mask is None:
                ids: Iterable[int] = ()
            elif split.taxonomy.multilabel:
                ids = np.flatnonzero((mask == 1).any((1, 2))).tolist()
            else:
                ids = set(np.unique(mask).tolist()) - {split.ignore_id}
            known[item] = frozenset(ids)
        return known[item]

    return classes_of


def _hasher(split: Split) -> SignOf:
    """Return a function that reads the image of an item and returns its perceptual hash, each once."""

    @cache
    def sign_of(item: Item) -> bytes:
        try:
            return perceptual_hash(split.pixels.to_rgb(read_pixels(item.image, split.pixels)))
        except InputError:
            return b""

    return sign_of


def _digest(name: str) -> bytes:
    """Return a digest, by which names are put into an order without a pattern that is the same on every machine."""
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
