"""Words by which names call files images or masks, and whether names allow for pairs of image and mask at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

MASK_WORDS = re.compile(
    r"(?:^|[^a-z])(?:\d*(?:st|nd|rd))?(?:mask|msk|label|lbl|gt|ann|anno|annot|annotation|truth|groundtruth|seg|"
    r"segmentation|manual|target|ho|class|index|마스크|정답|라벨|레이블)(?:s|es|ed|ids|class|id|trainids)?\d*(?:$|[^a-z])"
)
IMAGE_WORDS = re.compile(
    r"(?:^|[^a-z])(?:image|img|photo|picture|pic|input|rgb|sat|raw|orig|original|data|x|jpg|scan|"  # word: quoted
    r"이미지|사진|원본)s?\d*(?:$|[^a-z])"
)
# CamVid's folders are called trainannot and so on.
MASK_FOLDER = re.compile(rf"{MASK_WORDS.pattern}|annot$")


def may_hold_pairs(paths: Sequence[PurePath]) -> bool:
    """Return whether image files may be pairs of images and masks by their names; False costs no more than the listing.

    There are none among names that differ in their numbers alone, and none among JPEG files without a word for masks.
    paths  relative to the folder
    """
    # Thousands of numbered names have few forms.
    forms = {re.sub(r"\d+", "0", path.as_posix().casefold()) for path in paths}
    if any(map(MASK_WORDS.search, forms)) or len({path.stem for path in paths}) < len(paths):
        return True
    return len(forms) > 1 and not all(form.endswith((".jpg", ".jpeg")) for form in forms)
