"""The README's first image: photos of `samples/` with the shipped model's labels.

    python tools/images.py

The other images of `docs/images/` are made by the commands that docs/results.md names.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pixelwise.images import write_image
from pixelwise.inference.segmenter import load
from pixelwise.visualization.compare import occurring
from pixelwise.visualization.panels import Panel, contact_sheet, fit, legend

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = ("camvid_seq05vd_f00270", "camvid_0001tp_010350", "camvid_seq05vd_f00840")


def main() -> None:
    """Photos above, labels laid over them below, and the classes that occur."""
    segmenter = load()
    predictions = [segmenter(ROOT / "samples" / f"{name}.jpg") for name in PHOTOS]
    panels = [Panel(fit(p.image, 480)) for p in predictions]
    panels += [Panel(fit(np.asarray(p.overlay(0.6)), 480)) for p in predictions]
    width = 3 * 480 + 2 * 14
    names = occurring([p.mask for p in predictions], segmenter.taxonomy)
    sheet = contact_sheet(panels, len(PHOTOS), footer=legend(names, width))
    write_image(ROOT / "docs" / "images" / "hero.jpg", np.asarray(sheet))


if __name__ == "__main__":
    main()
