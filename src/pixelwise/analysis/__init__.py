"""Measure networks: parameters, multiply-adds, activations, receptive fields.

Reading order: `mult_adds` and `receptive_field` (each measures one thing), `profile` (all of them for one network),
`model_table` (all networks), `conformance` (these numbers beside the published ones).
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
