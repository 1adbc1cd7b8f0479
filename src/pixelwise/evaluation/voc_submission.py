"""The archive format that PASCAL VOC's evaluation server accepts.

Source: VOC2012 development kit, section "Submission of results": results/VOC2012/Segmentation/comp6_test_cls/<id>.png.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.formats.voc import TAXONOMY
from ..errors import InputError, MaskError
from ..files import atomic_write
from ..images import encode_mask

FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"


def write_voc_submission(predictions: Iterable[tuple[str, NDArray[Any]]], out: str | Path) -> int:
    """Pack pairs (image id, mask (H, W) of class ids 0..20) as palette PNGs into `out`, and return their number.

    out  the archive, .tgz or .tar.gz
    The same predictions give the same bytes. Raises InputError for another suffix, a wrong or repeated id, or no
    prediction, MaskError for an id beyond 20 (borders are not predicted), ResourceError when it cannot be written.
    """
    out = Path(out)
    if not out.name.endswith((".tgz", ".tar.gz")):
        raise InputError(out, "expected an archive name ending in .tgz or .tar.gz", "name it .tgz")
    packed: set[str] = set()
    # No file name and no times in the archive, so that it depends on the predictions alone.
    with atomic_write(out) as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as zipped:
        with tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for key, mask in predictions:
                if key in packed:
                    raise InputError(key, "is predicted twice", "give each image once")
                _check_prediction(key, mask)
                packed.add(key)
                data = encode_mask(mask.astype(np.uint8), palette=np.array(TAXONOMY.colors))
                info = tarfile.TarInfo(f"{FOLDER}/{key}.png")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        if not packed:
            raise InputError(out, "would hold no prediction", "predict the images of ImageSets/Segmentation/test.txt")
    return len(packed)


def _check_prediction(key: str, mask: NDArray[Any]) -> None:
    if not key.isascii() or not key.replace("_", "").replace("-", "").isalnum():
        fix = "use the ids of ImageSets/Segmentation/test.txt, such as 2008_000006"
        raise InputError(key or "id", "is not an image id", fix)
    if mask.ndim != 2 or not mask.size or mask.dtype.kind not in "iu":
        raise MaskError(key, f"expected class ids (H, W), got {mask.shape} {mask.dtype}", "convert them first")
    if mask.min() < 0 or mask.max() >= TAXONOMY.num_classes:
        worst = int(mask.max()) if mask.max() >= TAXONOMY.num_classes else int(mask.min())
        count = int((mask == worst).sum())
        what = f"expected ids 0 to {TAXONOMY.num_classes - 1}, got {worst} ({count} px)"
        raise MaskError(key, what, "predict one of the 21 classes; borders are not predicted")
