"""The fully connected CRF: labels that follow the edges of the image, after any classifier.

    from pixelwise.crf import refine

    refined = refine(image, probs, "deeplabv2")         # (H, W, 3) uint8, (C, H, W) -> (C, H, W)

Paper: Kraehenbuehl, Koltun, "Efficient inference in fully connected CRFs with Gaussian edge potentials" (NIPS 2011,
https://arxiv.org/abs/1210.5644); DeepLab v1 and v2 apply it to their scores.

Read in this order; each file needs those before it:

    reference.py    algorithm 1 by definition, over all pairs of pixels: 20 lines of numpy
    features.py     equation 3: the two kernels, their parameters in the paper's letters, the presets
    refinement.py   `refine`: checks, and the choice of kernels
    meanfield.py    algorithm 1 in linear time: tiles of the image, the steps by the paper's names
    lattice.py      one message passing: splat, blur, slice, with a diagram of bands
    codes.py        where lattice vertices lie and how they are numbered
    simplex.py      loops: the vertices around each point, their neighbors
    blur.py         two ways to blur along a direction, for colors and for positions
    loops.py        loops: what runs per pixel and per lattice point in every iteration
    torchcrf.py     the same in torch: batches, GPUs, gradients (CRF-RNN); needs only features.py and codes.py

`jit/simd.py` has the arithmetic on eight classes at once, `jit/compiled.py` compiles the loops and runs them on several
threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .features import (
        NORMALIZATIONS,
        PRESETS,
        Kernel,
        Parameters,
        appearance_features,
        position_features,
    )
    from .refinement import refine, refine_each
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "NORMALIZATIONS": "features",
            "PRESETS": "features",
            "Kernel": "features",
            "Parameters": "features",
            "appearance_features": "features",
            "position_features": "features",
            "refine": "refinement",
            "refine_each": "refinement",
        },
    )

__all__ = [
    "NORMALIZATIONS",
    "PRESETS",
    "Kernel",
    "Parameters",
    "appearance_features",
    "position_features",
    "refine",
    "refine_each",
]
