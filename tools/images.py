"""Draw the README's first figure: images of `samples/` with the labels of the shipped model.

    python tools/images.py

The commands that docs/results.md names make the other files of `docs/images/`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pixelwise.images import write_image
from pixelwise.images.legend import GAP, legend, legend_entries
from pixelwise.inference.segmenter import load
from pixelwise.visualization.panels import Panel, contact_sheet, fit

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ("camvid_seq05vd_f00270", "camvid_0001tp_010350", "camvid_seq05vd_f00840")
WIDTH = 480


def main() -> None:
    """Draw the images in the upper row, their labels laid over them in the lower row, and a legend."""
    segmenter = load()
    predictions = [segmenter(ROOT / "samples" / f"{name}.jpg") for name in IMAGES]
    panels = [Panel(fit(p.image, WIDTH)) for p in predictions]
    panels += [Panel(fit(np.asarray(p.overlay(0.6)), WIDTH)) for p in predictions]
    entries = legend_entries([p.mask for p in predictions], segmenter.taxonomy.for_figures())
    footer = legend(entries, 3 * WIDTH + 2 * GAP)
    sheet = contact_sheet(panels, len(IMAGES), footer=footer)
    write_image(ROOT / "docs" / "images" / "hero.jpg", np.asarray(sheet))


if __name__ == "__main__":
    main()
