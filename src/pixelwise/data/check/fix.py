"""A copy of a dataset without what can be fixed: readable pairs, masks as PNG with each pixel in a class, a val split.

The source is never changed, no label of an unbroken mask is changed, and nothing is ignored that was not ignored.
What cannot be fixed is left out, and every change is a line.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ...config import DataConfig
from ...core import size_text
from ...errors import DatasetError, InputError, MaskError, listed
from ...files import write_text
from ...images import (
    ARRAY_SUFFIX,
    FileFacts,
    part_files,
    read_image,
    read_mask_file,
    read_numbers,
    turn,
    write_image,
    write_mask,
)
from ...strict_yaml import to_yaml
from ..class_masks import write_class_masks
from ..conversion import new_dataset_folder
from ..dataset import Item, Split
from ..held_out import training_data
from ..near_misses import near_misses
from ..pixel_formats import declared_pixels
from .coding import Coding, find_coding
from .diagnosis import Diagnosis
from .finding import Look, short_names
from .orientation import find_turned

# Image files that stay as they are, byte for byte; the rest becomes PNG.
_KEPT_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
# Sides whose ratio differs by less than this are of one image at two sizes.
_MAX_ASPECT = 0.03
# Gray that was saved as a color JPEG.
_GRAY_RANGE = 24
_SPLITS = ("train", "val", "test")
Changes = dict[str, list[str]]


Note = tuple[str, str]
"""A kind of change, as a sentence, and the name of the file."""


def write_fixed(
    diagnosis: Diagnosis, out: str | Path, *, report: Callable[[int, int], None] | None = None
) -> list[str]:
    """Write a fixed copy into a new folder; return a line per kind of change, with its number and first names.

    report  called with the number of images done and their total
    Raises InputError for a folder that holds files or lies in the dataset, DatasetError if nothing is left to write.
    """
    look, dataset = diagnosis.look, diagnosis.dataset
    if any(split.second for split in look.splits):
        what = "has two label maps per image, which are checked but not fixed"
        raise DatasetError(dataset.root, what, "correct the files that the check names")
    multilabel = dataset.taxonomy.multilabel
    coding = Coding(dataset.taxonomy, {}, is_color=False) if multilabel else find_coding(look)
    if coding.taxonomy.num_classes < 2 and not multilabel:
        what = "its masks show a single class, so that no copy could be trained on"
        raise DatasetError(dataset.root, what, "export the masks as PNG from their source, or name the classes")
    changes: Changes = {note: [] for note in coding.notes}
    splits = _chosen_items(look, changes)
    if not any(splits.values()):
        raise DatasetError(dataset.root, "no pair of image and mask can be used", "see the lines above")
    with new_dataset_folder(dataset, out) as folder:
        chosen = [item for items in splits.values() for item in items]
        facts = {row.item.image: row.image_file for _, row in look.inspected() if row.image_file is not None}
        turned = find_turned(look)
        files = [[item.image for item in chosen], [item.mask for item in chosen if item.mask is not None]]
        names = {path: name for paths in files for path, name in zip(paths, short_names(paths), strict=True)}
        drawn_as_stored = frozenset(item.image for item in turned.stored)
        writer = _Writer(look.splits[0], coding, folder, facts, drawn_as_stored, names)
        splits = _with_val(look, writer, splits, changes)
        jobs = [(split, item) for split, items in splits.items() for item in items]
        if unclear := {item.image for item in turned.unclear} & {item.image for _, item in jobs}:
            sentence = "masks kept as they are, though it is unclear whether the EXIF tag turns them as well"
            changes[sentence] = [names[path] for path in sorted(unclear)]
        with ThreadPoolExecutor() as executor:
            for done, notes in enumerate(executor.map(lambda job: writer.write(*job), jobs), 1):
                for sentence, name in notes:
                    changes.setdefault(sentence, []).append(name)
                if report:
                    report(done, len(jobs))
        if not any((folder / "images").rglob("*.*")):
            raise DatasetError(dataset.root, "no pair of image and mask can be used", "see the lines above")
        data = coding.taxonomy.to_dict()
        if multilabel:
            # Mask files of a class each hold 0 and 1: no value is a class's own.
            data["classes"] = [{key: row[key] for key in ("name", "color")} for row in data["classes"]]
        pixels = declared_pixels(dataset.root)
        write_text(folder / "classes.yaml", to_yaml(data | ({"images": pixels.to_dict()} if pixels else {})))
        lines = list(_lines(changes))
        write_text(folder / "fixes.txt", "".join(f"{line}\n" for line in lines))
    return lines


def _lines(changes: Changes) -> Iterator[str]:
    for sentence, names in changes.items():
        yield f"{sentence}: {len(names)}, {listed(names)}" if names else sentence


def _chosen_items(look: Look, changes: Changes) -> dict[str, list[Item]]:
    """Return the pairs of each split that are kept: each file once, near misses in place of missing files."""
    missing = look.dataset.missing()
    near = near_misses(missing)
    chosen: dict[str, list[Item]] = {}
    owner: dict[bytes, str] = {}
    for split in _by_precedence(look):
        if split.name not in _SPLITS:
            changes[f"split {split.name} is not written: the copy holds train, val and test"] = []
            continue
        seen: dict[tuple[bytes, str], str] = {}
        keys: set[str] = set()
        taken = {near[item.mask].path for item in split.items if item.mask in near}
        for row in look.found[split.name]:
            item = row.item
            if item.image in missing and item.mask in taken:
                # The mask of another item, under a name that differs from its image's.
                continue
            for path in (item.image, item.mask):
                if path is not None and path in near and near[path].path.is_file():
                    other = near[path].path
                    is_image = path == item.image
                    item = replace(item, image=other) if is_image else replace(item, mask=other)
                    sentence = f"another file taken as the missing {'image' if is_image else 'mask'}"
                    changes.setdefault(sentence, []).append(other.name)
            why = ""
            if item.mask is None or (item.mask in missing):
                why = "left out: images without a mask"
            elif item.image in missing:
                why = "left out: masks without an image"
            elif item.image == row.item.image and row.image_error is not None:
                why = "left out: images that cannot be read"
            elif item.key.casefold() in keys:
                why = "left out: names that a split holds twice"
            elif row.digest and owner.get(row.digest, split.name) != split.name:
                why = f"left out of {split.name}: images that are in {owner[row.digest]} as well"
            elif row.digest and (row.digest, str(sorted(row.pixels.items()))) in seen:
                why = f"left out of {split.name}: images that it holds twice, with equal labels"
            if why:
                changes.setdefault(why, []).append(row.item.image.name if item.image in missing else item.image.name)
                continue
            keys.add(item.key.casefold())
            if row.digest:
                owner.setdefault(row.digest, split.name)
                seen[row.digest, str(sorted(row.pixels.items()))] = item.key
            chosen.setdefault(split.name, []).append(item)
    return {name: chosen[name] for name in _SPLITS if name in chosen}


def _by_precedence(look: Look) -> list[Split]:
    """Return the splits in the order in which they keep an image that several of them hold.

    What is scored stays, what is trained on goes, unless less than half of the training images would remain.
    """
    pixels = {
        split.name: {row.digest for row in look.found[split.name] if row.digest and row.item.mask is not None}
        for split in look.splits
    }
    train, order = pixels.get("train", set()), ["test", "val"]

    def is_too_little(left: set[bytes]) -> bool:
        return len(left) < min(2, len(train)) or 2 * len(left) < len(train)

    if is_too_little(train - pixels.get("val", set()) - pixels.get("test", set())):
        order.insert(0 if is_too_little(train - pixels.get("test", set())) else 1, "train")
    return sorted(look.splits, key=lambda split: order.index(split.name) if split.name in order else len(order))


def _with_val(look: Look, writer: _Writer, splits: dict[str, list[Item]], changes: Changes) -> dict[str, list[Item]]:
    """Return the splits with a val split, chosen as a training does, if there is none.

    What cannot be written leaves train before the choice.
    """
    if "val" in splits or not splits.get("train"):
        return splits
    clean = {row.item for _, row in look.inspected() if row.error is None}
    doubtful = [item for item in splits["train"] if item not in clean]
    with ThreadPoolExecutor() as executor:
        for item, why in zip(doubtful, executor.map(writer.why_left_out, doubtful), strict=True):
            if not why:
                clean.add(item)
            for sentence, name in why:
                changes.setdefault(sentence, []).append(name)
    splits = {**splits, "train": [item for item in splits["train"] if item in clean]}
    if len(splits["train"]) < 2:
        return splits
    dataset, coding = look.dataset, writer.coding
    ignore_id = coding.taxonomy.ignore_id
    # By the mask, as an image of a similar name may have taken the place of a missing one.
    classes = {row.item.mask: coding.classes_of(row) - {ignore_id} for _, row in look.inspected()}
    signs = {row.item.image: row.perceptual_hash for _, row in look.inspected()}
    sources = {name: dataset.splits[name].with_items(items) for name, items in splits.items()}
    data, held_out = training_data(
        replace(dataset, splits=sources, notes=(), faults=()),
        DataConfig(path=str(dataset.root)),
        classes_of=lambda item: frozenset(classes.get(item.mask, ())),
        sign_of=lambda item: signs.get(item.image, b""),
    )
    if held_out is not None:
        changes[f"split val made: {held_out.why}"] = []
    return {name: list(split.items) for name, split in data.splits.items()}


def _resized(ids: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize ids (H, W), or labels (H, W, K), by nearest neighbor."""
    planes = [ids] if ids.ndim == 2 else list(np.moveaxis(ids, 2, 0))
    resized = [cv2.resize(p, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT) for p in planes]
    return np.asarray(resized[0] if ids.ndim == 2 else np.stack(resized, 2))


@dataclass(frozen=True)
class _Writer:
    """Writes pairs into images/SPLIT and masks/SPLIT.

    drawn_as_stored  images whose masks fit their pixels without the turn that EXIF asks for
    names            what to call each file
    """

    source: Split
    coding: Coding
    folder: Path
    facts: dict[Path, FileFacts]
    drawn_as_stored: frozenset[Path]
    names: dict[Path, str]

    def fit(self, item: Item) -> tuple[NDArray[Any] | None, list[Note]]:
        """Return class ids (H, W), or labels (H, W, K), of the size of the image, and what was changed.

        None for a pair that cannot be used, with the reason.
        """
        name = item.key if item.mask is None else self.names[item.mask]
        facts = self.facts.get(item.image)
        try:
            ids, notes = self._class_labels(item) if self.source.taxonomy.multilabel else self._labels(item)
            size = facts.size if facts is not None else self._image_size(item)
        except InputError as error:
            return None, [(f"left out: masks or images that cannot be used ({error.what})", name)]
        # Several labels per pixel have their classes in front.
        ids = np.moveaxis(ids, 0, 2) if ids.ndim == 3 else ids
        if facts is not None and item.image in self.drawn_as_stored:
            ids = turn(ids, facts.orientation)
            notes.append(("masks turned as the EXIF orientation of their image says", name))
        if ids.shape[:2] != size:
            if abs(np.log(ids.shape[0] / ids.shape[1] / (size[0] / size[1]))) <= _MAX_ASPECT:
                ids = _resized(ids, size)
                notes.append(("masks resized to their image, by nearest neighbor", name))
            else:
                shapes = f"{size_text(ids.shape[:2])} for {size_text(size)}"
                return None, [(f"left out: masks of another shape than their image ({shapes})", name)]
        return ids, notes

    def why_left_out(self, item: Item) -> list[Note]:
        """Return why a pair cannot be used; empty if it can be."""
        ids, notes = self.fit(item)
        return notes if ids is None else []

    def write(self, split: str, item: Item) -> list[Note]:
        """Write one pair; return what was changed, or why it was left out."""
        ids, notes = self.fit(item)
        if ids is None:
            return notes
        notes += self._write_image(split, item)
        taxonomy = self.coding.taxonomy
        path = self.folder / "masks" / split / item.key
        path.parent.mkdir(parents=True, exist_ok=True)
        if taxonomy.multilabel:
            write_class_masks(path, np.ascontiguousarray(np.moveaxis(ids, 2, 0)), taxonomy, as_array=False)
        else:
            write_mask(path.with_name(f"{path.name}.png"), taxonomy.decode(ids), palette=taxonomy.palette("value"))
        return notes

    def _class_labels(self, item: Item) -> tuple[NDArray[Any], list[Note]]:
        """Return the labels (K, H, W) of an image with a mask per class, and what was changed. Raises MaskError."""
        assert item.mask is not None, "only labeled items are chosen"
        try:
            labels = self.source.read_labels(item)
            assert labels is not None, "the item has masks"
            return labels, []
        except MaskError as error:
            files = item.class_files or ()
            if self.source.taxonomy.ignored or not files or any(path.suffix == ARRAY_SUFFIX for _, path in files):
                raise
            planes = {}
            for k, path in files:
                raw, _ = read_mask_file(path, lossy=True)
                if raw.ndim == 3 and (raw.max(2) - raw.min(2)).max() > _GRAY_RANGE:
                    raise
                gray = raw.max(2) if raw.ndim == 3 else raw
                # A label is 1, or far from 0: values of a few levels are the noise of an absent class.
                largest = int(gray.max())
                planes[k] = gray > (0 if largest == 1 else max(largest // 2, 15))
            if len({plane.shape for plane in planes.values()}) > 1 or max(planes) >= self.source.taxonomy.num_classes:
                raise error from None
            labels = np.zeros((self.source.taxonomy.num_classes, *next(iter(planes.values())).shape), np.uint8)
            for k, plane in planes.items():
                labels[k] = plane
            return labels, [("masks of a class set to its label or none, whichever is nearer", self.names[item.mask])]

    def _labels(self, item: Item) -> tuple[NDArray[Any], list[Note]]:
        """Return the class ids of a mask, and what was changed. Raises MaskError if they cannot be known."""
        assert item.mask is not None, "only labeled items are chosen"
        name = self.names[item.mask]
        if item.drawing is not None:
            drawn = self.source.read_labels(item)
            assert drawn is not None, "the item has a drawing"
            return drawn, []
        raw, file = read_mask_file(item.mask, by_color=self.coding.is_color, lossy=True)
        if raw.ndim == 3 and not self.coding.is_color and (raw != raw[..., :1]).any():
            ids = None if file.lossy else self.coding.encode_drawn(raw)
            if ids is None:
                raise DatasetError(item.mask, "drawn in colors, while the classes are numbers", "")
            return ids, [("masks in the colors of the classes saved as numbers", name)]
        if file.lossy and not self.coding.bears_loss:
            raise DatasetError(item.mask, "lossy, and the values of the classes are too near to one another", "")
        ids, num_wrong, num_far = self.coding.encode(raw, str(item.mask), lossy=file.lossy)
        notes: list[Note] = []
        if num_far:
            sentence = "pixels unlike the classes around them (thin or unknown ones) given the nearest of all, in masks"
            notes.append((sentence, f"{name} ({num_far} px)"))
        if num_wrong:
            notes.append(("pixels of no class given the nearest class around them, in masks", name))
        if file.format != "PNG":
            notes.append((f"{file.format} masks saved as PNG", name))
        elif file.orientation > 1:
            notes.append(("masks saved upright, without their EXIF orientation", name))
        return ids, notes

    def _image_size(self, item: Item) -> tuple[int, int]:
        shape = (read_image(item.image) if self.source.pixels.is_rgb else read_numbers(item.image)).shape
        return shape[0], shape[1]

    def _write_image(self, split: str, item: Item) -> list[Note]:
        """Copy an image byte for byte, or save it as PNG, upright, if its format is unusual or EXIF turns it."""
        suffix = item.image.suffix.lower()
        facts = self.facts.get(item.image)
        place = self.folder / "images" / split / f"{item.key}{suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        is_turned = facts is not None and facts.orientation > 1 and facts.bits == 8
        if self.source.pixels.is_rgb and (is_turned or suffix not in _KEPT_SUFFIXES):
            write_image(place.with_name(place.name.removesuffix(suffix) + ".png"), read_image(item.image))
            if is_turned:
                return [("images saved upright as PNG, without their EXIF orientation", self.names[item.image])]
            return [(f"{suffix.removeprefix('.').upper() or 'nameless'} images saved as PNG", self.names[item.image])]
        first, *parts = part_files(item.image, self.source.pixels)
        shutil.copyfile(first, place)
        for part, declared in zip(parts, self.source.pixels.parts[1:], strict=True):
            target = self.folder / "images" / split / f"{item.key}{declared.suffix}{part.suffix}"
            if declared.folder:
                target = self.folder / declared.folder / split / f"{item.key}{part.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(part, target)
        return []
