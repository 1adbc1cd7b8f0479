"""Words by which names call files images or masks, and whether names allow for pairs of image and mask at all."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...images import cut_suffix

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


def may_hold_pairs(names: Sequence[str]) -> bool:
    """Return whether image files may be pairs of images and masks by their names; False costs no more than the listing.

    There are none among names that differ in their numbers alone, and none among JPEG files without a word for masks.
    names  relative to the folder, with / between folders
    """
    # Thousands of numbered names have few forms.
    forms = {re.sub(r"\d+", "0", name.casefold()) for name in names}
    if any(map(MASK_WORDS.search, forms)) or len({cut_suffix(name).rpartition("/")[2] for name in names}) < len(names):
        return True
    return len(forms) > 1 and not all(form.endswith((".jpg", ".jpeg")) for form in forms)
