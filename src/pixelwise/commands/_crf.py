"""A model followed by a CRF, compiled before the first image, so that no image's time includes the compiler's."""

from __future__ import annotations

import sys
from threading import Timer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..crf import Parameters
    from ..inference.base import BaseSegmenter

# Code that was compiled before loads faster than this, and then nothing is printed.
NOTICE_DELAY_S = 2.0


def with_crf(segmenter: BaseSegmenter, parameters: Parameters) -> BaseSegmenter:
    """Return a copy of the model that refines its labels, ready to run."""
    refining = segmenter.with_crf(parameters)
    compile_with_notice(segmenter.taxonomy.num_classes)
    return refining


def compile_with_notice(num_classes: int) -> None:
    """Compile the CRF's loops for `num_classes` classes; print why the user waits, if it takes long."""
    from ..crf.refinement import compile_ahead

    notice = "compiling the CRF's loops; this takes some seconds, once per machine"
    timer = Timer(NOTICE_DELAY_S, print, (notice,), {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        compile_ahead(num_classes)
    finally:
        timer.cancel()
