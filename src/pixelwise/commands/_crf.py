"""A model with a CRF behind it, its code compiled before the first image, so that no image's time holds the compiler's."""

from __future__ import annotations

import sys
from threading import Timer
from typing import TYPE_CHECKING

import numpy as np

from ..crf import Parameters, refine

if TYPE_CHECKING:
    from ..inference.segmenter import Segmenter

# Code that was compiled before is there sooner than this, and then nothing is said.
NOTICE_DELAY_S = 2.0


def with_crf(segmenter: Segmenter, parameters: Parameters) -> Segmenter:
    """The model's twin that refines its labels; whoever must wait for the compiler is told what for."""
    compile_crf(segmenter.taxonomy.num_classes)
    return segmenter.with_crf(parameters)


def compile_crf(num_classes: int) -> None:
    """Refine four pixels, for which everything is compiled that an image of so many classes needs."""
    words = "getting the CRF's loops ready; compiling them takes some seconds, once on this machine"
    notice = Timer(NOTICE_DELAY_S, print, (words,), {"file": sys.stderr, "flush": True})
    notice.daemon = True
    notice.start()
    try:
        refine(np.zeros((2, 2, 3), np.uint8), np.full((num_classes, 2, 2), 1 / num_classes, np.float32))
    finally:
        notice.cancel()
