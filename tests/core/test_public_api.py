"""The public API: each package lists its names, sorted and importable; `import pixelwise` reaches all of them."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import pixelwise

PACKAGES = ["pixelwise", *(m.name for m in pkgutil.walk_packages(pixelwise.__path__, "pixelwise.") if m.ispkg)]
# Packages that offer their modules; the others offer functions and classes.
ROOMS = [
    f"pixelwise.{name}"
    for name in ["analysis", "commands", "evaluation", "inference", "jit", "nn", "train", "visualization", "weights"]
]


def modules_of(package: ModuleType) -> list[str]:
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


def order(name: str) -> tuple[int, str]:
    """Constants, classes, functions and modules, each in alphabetical order, as ruff sorts them."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_says_what_it_offers(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__doc__
    assert package.__all__ == sorted(package.__all__, key=order)
    assert len(set(package.__all__)) == len(package.__all__)
    for offered in package.__all__:
        getattr(package, offered)
    own = [
        key
        for key, value in vars(package).items()
        if not key.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == name
    ]
    assert set(own) <= set(package.__all__), "public, but not in __all__"


@pytest.mark.parametrize("name", ROOMS)
def test_a_package_of_modules_offers_all_of_them(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__all__ == modules_of(package)


def test_an_unknown_name_is_an_attribute_error() -> None:
    for package in (pixelwise, importlib.import_module("pixelwise.nn")):
        with pytest.raises(AttributeError, match=rf"module '{package.__name__}' has no attribute 'nothing'"):
            _ = package.nothing


PROGRAM = """
import sys
import pixelwise
assert "torch" not in sys.modules and "numpy" not in sys.modules
assert set(pixelwise.__all__) == set(dir(pixelwise))
pixelwise.inference, pixelwise.visualization, pixelwise.train
pixelwise.weights, pixelwise.evaluation, pixelwise.analysis
assert "torch" not in sys.modules
print(pixelwise.data.open_dataset.__name__, pixelwise.crf.refine.__name__, pixelwise.evaluation.metrics.Scores.__name__)
"""


def test_import_pixelwise_is_enough_and_needs_no_torch() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100, check=False)
    assert result.stderr == ""
    assert result.stdout.split() == ["open_dataset", "refine", "Scores"]
