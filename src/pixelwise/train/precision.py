"""The number format that the hardware computes fastest in."""

from __future__ import annotations

from typing import Literal

import torch


def choose_precision(name: Literal["auto", "float32", "bfloat16"], device: str) -> Literal["float32", "bfloat16"]:
    """Return `name`, or for "auto" bfloat16 on chips that support it natively, and float32 on others.

    Such chips are some CUDA devices, and CPUs with AMX or AVX512-BF16.
    """
    if name != "auto":
        return name
    if device == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return "bfloat16" if native else "float32"
