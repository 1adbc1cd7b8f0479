"""One mask per object: a folder per image with the image in images/ and a mask for each object in masks/.

    stage1_train/ID/images/ID.png  stage1_train/ID/masks/1b44d22643830cd4.png ...

All objects are of one class, and the mask of the image is their union. Folders above are splits by their names.
Source: 2018 Data Science Bowl, "Data description".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core import Taxonomy, size_text
from ...errors import DatasetError, MaskError
from ...images import IMAGE_SUFFIXES, image_size, read_mask, write_binary_mask
from ..dataset import Dataset, Item
from ..shapes.drawing import Drawing, Shape
from ..shapes.fill import crop
from . import DATASETS
from .annotations import annotated_dataset, split_of
from .base import DatasetFormat
from .conversion import Conversion

_LABEL = "object"
_ONE_CLASS = Taxonomy((_LABEL,), kind="multilabel")
# Folders that are looked at to recognize a dataset.
_LOOKED_AT = 50


@dataclass(frozen=True)
class ObjectsDrawing(Drawing):
    """The masks of the objects of one image."""

    image: Path
    files: tuple[Path, ...]

    @property
    def source(self) -> str:
        """The folder of the masks."""
        return str(self.image.parent.parent / "masks")

    def read(self) -> tuple[tuple[int, int], list[Shape]]:
        """Return the size of the image and one shape per file."""
        size: tuple[int, int] | None = None
        shapes = []
        for path in self.files:
            mask = _ONE_CLASS.encode_class(read_mask(path), path)
            size = size or (mask.shape[0], mask.shape[1])
            if mask.shape != size:
                what = f"expected {size_text(size)}, the size of {self.files[0].name}, got {size_text(mask.shape)}"
                raise MaskError(path, what + " (height x width)", "export all masks at one size")
            shapes.append(Shape(_LABEL, crop(mask > 0)))
        return size or image_size(self.image), shapes

    def draw(self, taxonomy: Taxonomy) -> NDArray[Any]:
        """Return the union of the masks as the one class that is no background. Raises MaskError for more classes."""
        rest, label = _two_classes(taxonomy, self.source)
        size, shapes = self.read()
        mask = np.full(size, rest, taxonomy.dtype)
        for _, (top, left, pixels) in shapes:
            mask[top : top + pixels.shape[0], left : left + pixels.shape[1]][pixels] = label
        return mask[None] if taxonomy.multilabel else mask


@DATASETS.register("objects", tiny={})
class Objects(DatasetFormat):
    """One mask per object: ID/images/ID.png, ID/masks/*.png."""

    needs = "a folder per image with one file in images/ and a mask per object in masks/; folders above are splits"
    targets: Mapping[str, str] = MappingProxyType({"objects": "a mask per object, of a single class"})

    def find_root(self, folder: Path) -> Path | None:
        """Return `folder` itself if folders below hold one image and several masks of other names."""
        samples = (sample for sample, _ in zip(_samples(folder), range(_LOOKED_AT), strict=False))
        return folder if any(_has_objects(sample) for _, sample in samples) else None

    def read(self, root: Path) -> Dataset:
        """Read one item per folder; one without masks/ is not labeled."""
        splits: dict[str, list[Item]] = {}
        for parent, sample in _samples(root):
            images = _files_in(sample / "images")
            if len(images) != 1:
                raise DatasetError(sample / "images", f"holds {len(images)} images", "keep one image per folder")
            files = _files_in(sample / "masks")
            split = split_of(parent.name) or "train" if parent != root else "train"
            item = Item(sample.name, images[0])
            if (sample / "masks").is_dir():
                drawing = ObjectsDrawing(images[0], tuple(files))
                item = Item(sample.name, images[0], files[0] if files else images[0], drawing=drawing)
            splits.setdefault(split, []).append(item)
        order = sorted(splits, key=lambda split: (split != "train", split))
        return annotated_dataset("objects", root, [(_LABEL, None)], {split: splits[split] for split in order})

    def write(self, target: str, conversion: Conversion) -> None:
        """Write SPLIT/KEY/images/KEY.png and a mask for each part that touches by edges or corners."""
        import cv2

        taxonomy = conversion.taxonomy
        _, label = _two_classes(taxonomy, str(conversion.dataset.root))
        for split, item, mask in conversion.samples():
            stem = item.key.replace("/", "_")
            place = conversion.place_image(item, f"{split}/{stem}/images", stem)
            folder = (conversion.out / place).parent.parent / "masks"
            folder.mkdir(parents=True, exist_ok=True)
            if (mask == taxonomy.ignore_id).any():
                raise MaskError(
                    item.mask, "has ignored pixels, which masks of objects cannot hold", "convert to `folder`"
                )
            is_object = (mask[0] == 1) if taxonomy.multilabel else mask == label
            count, parts = cv2.connectedComponents(is_object.astype(np.uint8), connectivity=8)
            for number in range(1, count):
                write_binary_mask(folder / f"{number:04d}.png", parts == number)
        conversion.write_classes()


def _two_classes(taxonomy: Taxonomy, source: str) -> tuple[int, int]:
    """Return the values of background and object in a mask. Raises MaskError if there are more classes."""
    if taxonomy.num_classes != (1 if taxonomy.multilabel else 2):
        what = f"has one mask per object, all of one class, but there are {taxonomy.num_classes} classes"
        raise MaskError(source, what, "use classes of one object, such as `classes: [background, nucleus]`")
    rest = taxonomy.background[0] if taxonomy.background and not taxonomy.multilabel else 0
    return rest, 1 - rest


def _samples(root: Path) -> Iterator[tuple[Path, Path]]:
    """Yield (folder above, folder of one image) for every folder with images/ one or two levels below the root."""
    for outer in _folders(root):
        if (outer / "images").is_dir():
            yield root, outer
        else:
            yield from ((outer, inner) for inner in _folders(outer) if (inner / "images").is_dir())


def _has_objects(sample: Path) -> bool:
    images, masks = _files_in(sample / "images"), _files_in(sample / "masks")
    return len(images) == 1 and len(masks) > 1 and images[0].stem not in {path.stem for path in masks}


def _folders(root: Path) -> list[Path]:
    try:
        return [path for path in sorted(root.iterdir()) if path.is_dir()]
    except OSError as error:
        raise DatasetError(root, f"cannot be opened: {error.strerror}", "check its permissions") from None


def _files_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES]
