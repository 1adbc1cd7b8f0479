"""What a network costs and sees: parameters, multiply-adds, activations, receptive field.

Reading order: `mult_adds` and `receptive_field` (each measures one thing), `profile` (all of them for one network),
`model_table` (all networks), `conformance` (the same numbers beside those that the papers publish).
"""

from __future__ import annotations

from .._lazy import lazy_modules

__all__ = [
    "conformance",
    "model_table",
    "mult_adds",
    "profile",
    "receptive_field",
]

__getattr__ = lazy_modules(__name__, __all__)
