"""Import modules when they are first used, so that `import pixelwise` and `pixelwise --help` need no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any


def lazy_modules(package: str, names: Sequence[str]) -> Callable[[str], ModuleType]:
    """Return a `__getattr__` for a package that imports its modules `names` on first use."""

    def import_on_first_use(name: str) -> ModuleType:
        if name in names:
            return import_module(f".{name}", package)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return import_on_first_use


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a `__getattr__` for a package that imports a function, class or constant when it is first used.

    homes  name -> the module of the package that defines it
    """

    def import_on_first_use(name: str) -> Any:
        if name in homes:
            return getattr(import_module(f".{homes[name]}", package), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return import_on_first_use
