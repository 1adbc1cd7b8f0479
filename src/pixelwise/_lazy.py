"""Import modules when they are first used, so that `import pixelwise` and `pixelwise --help` need no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType


def lazy_modules(package: str, names: Sequence[str]) -> Callable[[str], ModuleType]:
    """Return a `__getattr__` for a package that imports its modules `names` on first use."""

    def import_on_first_use(name: str) -> ModuleType:
        if name in names:
            return import_module(f".{name}", package)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return import_on_first_use
