"""Registries: a typing error in a name or an option leads to the right one, and nothing is swallowed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import pixelwise
from pixelwise.backbones import BACKBONES
from pixelwise.errors import ConfigError, UnknownNameError
from pixelwise.models import MODELS
from pixelwise.registry import INDEX, Registry, suggest


@pytest.fixture
def shapes() -> Registry[tuple[str, int, str]]:
    registry: Registry[tuple[str, int, str]] = Registry("shape")

    @registry.register("square", tiny={"width": 1}, paper="Euclid", year=-300)
    def square(width: int = 10, color: str = "red") -> tuple[str, int, str]:
        """Four equal sides.

        And four equal angles.
        """
        return "square", width, color

    @registry.register("circle", tiny={})
    def circle(radius: int = 3) -> tuple[str, int, str]:
        return "circle", radius, ""

    return registry


def test_options_override_the_tiny_size_and_that_the_defaults(shapes: Registry[tuple[str, int, str]]) -> None:
    assert shapes.create("square") == ("square", 10, "red")
    assert shapes.create("square", tiny=True) == ("square", 1, "red")
    assert shapes.create("square", tiny=True, width=4) == ("square", 4, "red")
    assert shapes.create("square", color="blue") == ("square", 10, "blue")


def test_an_entry_describes_itself(shapes: Registry[tuple[str, int, str]]) -> None:
    entry = shapes["square"]
    assert (entry.name, entry.summary, entry.paper, entry.year) == ("square", "Four equal sides.", "Euclid", -300)
    assert list(entry.options) == ["width", "color"]
    assert shapes["circle"].summary == ""
    assert list(shapes) == ["circle", "square"], "sorted, whatever was imported first"
    assert "square" in shapes
    assert "sqare" not in shapes


def test_an_unknown_name_leads_to_the_nearest(shapes: Registry[tuple[str, int, str]]) -> None:
    with pytest.raises(UnknownNameError) as caught:
        shapes.create("sqare")
    assert str(caught.value) == "sqare: no such shape; fix: did you mean square?"
    assert caught.value.exit_code == 2


def test_a_name_far_from_all_lists_all(shapes: Registry[tuple[str, int, str]]) -> None:
    with pytest.raises(UnknownNameError, match="xyz: no such shape; fix: choose one of circle, square"):
        shapes["xyz"]


def test_an_unknown_option_leads_to_the_nearest(shapes: Registry[tuple[str, int, str]]) -> None:
    with pytest.raises(ConfigError) as caught:
        shapes.create("square", widht=3)
    assert str(caught.value) == "shape square: has no option 'widht'; fix: did you mean width?"


def test_the_tiny_size_is_checked_when_it_is_declared(shapes: Registry[tuple[str, int, str]]) -> None:
    def line(length: int = 1) -> tuple[str, int, str]:
        return "line", length, ""

    with pytest.raises(AssertionError, match="lenght"):
        shapes.register("line", tiny={"lenght": 2})(line)
    with pytest.raises(AssertionError, match="square is registered twice"):
        shapes.register("square", tiny={})(line)


def test_many_names_are_listed_by_their_command() -> None:
    names = [f"shape{n:02}" for n in range(11)]
    assert suggest("xyz", names, listing="pixelwise shapes") == "see `pixelwise shapes`"
    assert suggest("xyz", names[:10], listing="pixelwise shapes") == f"choose one of {', '.join(names[:10])}"
    assert suggest("xyz", names) == f"choose one of {', '.join(names[:10])}, ... (11 in total)"


def test_suggest_names_at_most_three() -> None:
    assert suggest("fcn8", ["fcn8a", "fcn8b", "fcn8c", "fcn8d"]).count("fcn8") == 3


class Polygon:
    """A polygon.

    And its area.
    """

    def __init__(
        self,
        sides: int,
        *,
        side: float = 1.0,
        fill: Literal["solid", "hatched"] = "solid",
        label: str | None = None,
        corners: Sequence[int] = (),
        closed: bool = True,
    ) -> None:
        self.sides = sides
        self.side = side


@pytest.fixture
def polygons() -> Registry[Polygon]:
    registry: Registry[Polygon] = Registry("polygon")
    registry.register("polygon")(Polygon)
    for sides, name in ((3, "triangle"), (4, "square")):
        registry.register(name, summary=f"{sides} sides", tiny={"side": 0.5})(partial(Polygon, sides))
    registry.register("unit_square")(partial(Polygon, 4, side=1.0))
    return registry


def test_a_class_and_its_partials_are_builders(polygons: Registry[Polygon]) -> None:
    assert polygons.create("triangle", tiny=True).sides == 3
    assert polygons.create("triangle", tiny=True).side == 0.5
    assert polygons.create("square", side=2).side == 2
    assert polygons.create("polygon", sides=7).sides == 7


def test_options_are_the_parameters_that_a_partial_leaves_open(polygons: Registry[Polygon]) -> None:
    options = ["side", "fill", "label", "corners", "closed"]
    assert list(polygons["polygon"].options) == ["sides", *options]
    assert list(polygons["square"].options) == options
    assert list(polygons["unit_square"].options) == options[1:]
    with pytest.raises(ConfigError, match="has no option 'side'"):
        polygons.create("unit_square", side=2)


def test_a_summary_is_given_or_taken_from_the_docstring_of_what_a_partial_calls(polygons: Registry[Polygon]) -> None:
    assert polygons["triangle"].summary == "3 sides"
    assert polygons["polygon"].summary == polygons["unit_square"].summary == "A polygon."
    assert polygons["triangle"].module == polygons["polygon"].module == __name__


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("side", "wide", "a number, got 'wide'; fix: leave it out: the default is 1.0"),
        ("side", True, "a number, got True"),
        ("sides", 2.5, "an integer, got 2.5"),
        ("sides", "x", "an integer, got 'x'"),
        ("fill", "dotted", "one of solid, hatched, got 'dotted'"),
        ("label", 3, "a string or null, got 3"),
        ("corners", 4, "a list of integers, got 4"),
        ("corners", [1, "b"], "a list of integers, got [1, 'b']"),
        ("closed", "yes", "true or false, got 'yes'"),
    ],
)
def test_a_value_of_the_wrong_type_is_an_error(
    polygons: Registry[Polygon], option: str, value: object, expected: str
) -> None:
    options: dict[str, Any] = {"sides": 3, option: value}
    with pytest.raises(ConfigError) as caught:
        polygons.create("polygon", **options)
    assert str(caught.value).startswith(f"polygon polygon: option {option}: expected {expected}")


def test_values_of_the_right_type_are_accepted(polygons: Registry[Polygon]) -> None:
    options: dict[str, Any] = {"fill": "hatched", "label": None, "corners": (1, 2), "closed": False}
    assert polygons.create("square", side=np.float32(2), **options).side == 2
    assert polygons.create("polygon", sides=np.int64(5), label="five").sides == 5


class Triangle:
    def __init__(self, side: int = 2) -> None:
        self.side = side


def triangle(side: int = 3) -> Triangle:
    return Triangle(side)


@pytest.mark.parametrize("build", [Triangle, partial(Triangle, side=5), triangle])
def test_an_entry_knows_the_class_that_it_builds(build: Any) -> None:
    registry: Registry[Triangle] = Registry("shape")
    registry.register("triangle")(build)
    assert registry["triangle"].product is Triangle


def test_a_name_has_defaults_of_its_own_that_options_override() -> None:
    registry: Registry[Triangle] = Registry("shape")
    registry.register("large triangle", defaults={"side": 9})(Triangle)
    assert registry["large triangle"].options["side"].default == 9
    assert registry.create("large triangle").side == 9
    assert registry.create("large triangle", side=4).side == 4


MODULE = """
from toolbox import TOOLS

for name in {names!r}:
    TOOLS.register(name, summary=f"The {{name}}.")(lambda size=(1, 2): size)
"""


@pytest.fixture
def toolbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The index of a package of two modules, which knows what `hand` registers, and not yet `power`."""
    folder = tmp_path / "toolbox"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from pixelwise.registry import Registry\nTOOLS = Registry('tool', package=__name__)"
    )
    (folder / "hand.py").write_text(MODULE.format(names=["saw", "hammer"]))
    (folder / "power.py").write_text(MODULE.format(names=["drill"]))
    rows = [
        {"name": name, "summary": f"The {name}.", "paper": "", "year": 0, "scores": "", "options": {"size": [1, 2]}}
        for name in ("hammer", "saw")
    ]
    (folder / INDEX).write_text(json.dumps({"hand": rows}))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(pixelwise.__file__).parents[1]}")
    return folder / INDEX


def answer(expression: str) -> list[str]:
    """The value of an expression on TOOLS in a process of its own, and the modules that it imported."""
    program = f"import sys; from toolbox import TOOLS; print({expression}); print(*sorted(sys.modules))"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    value, modules = child.stdout.splitlines()
    return [value, *(name for name in modules.split() if name.startswith("toolbox."))]


def test_an_index_leads_to_the_one_module_of_a_name(toolbox: Path) -> None:
    assert answer("TOOLS.create('saw')") == ["(1, 2)", "toolbox.hand"]
    assert answer("'saw' in TOOLS") == ["True"]
    assert answer("TOOLS.row('saw').options") == ["{'size': [1, 2]}"]
    toolbox.write_text(toolbox.read_text().replace('{"hand"', '{"power": [], "hand"'))
    assert answer("[row.name for row in TOOLS.rows()]") == ["['hammer', 'saw']"], "a listing trusts the index"
    assert answer("'drill' in TOOLS") == ["False"], "no file was changed after the index was written"
    with pytest.raises(subprocess.CalledProcessError) as error:
        answer("TOOLS['sawn']")
    assert "sawn: no such tool; fix: did you mean saw?" in error.value.stderr
    toolbox.write_text(toolbox.read_text().replace('"saw"', '"axe"'))
    with pytest.raises(subprocess.CalledProcessError) as error:
        answer("TOOLS['axe']")
    assert "axe: no such tool; fix: choose one of drill, hammer, saw" in error.value.stderr


def test_what_the_index_does_not_know_is_found(toolbox: Path) -> None:
    """A builder in a new module, in a known one, and one that has moved."""
    listed = "['drill', 'hammer', 'saw']"
    assert answer("[row.name for row in TOOLS.rows()]") == [listed, "toolbox.power"]
    assert answer("list(TOOLS)") == [listed, "toolbox.hand", "toolbox.power"]
    assert answer("TOOLS.create('drill', size=3)") == ["3", "toolbox.hand", "toolbox.power"]
    assert answer("[TOOLS[name].name for name in TOOLS]") == [listed, "toolbox.hand", "toolbox.power"]
    toolbox.write_text(toolbox.read_text().replace('"saw"', '"axe"').replace('{"hand"', '{"power": [], "hand"'))
    later = toolbox.stat().st_mtime + 3600
    os.utime(toolbox.with_name("hand.py"), (later, later))
    assert answer("TOOLS['saw'].row == TOOLS.row('saw')") == ["True", "toolbox.hand", "toolbox.power"]
    toolbox.write_text(toolbox.read_text().replace('"power": [], "hand"', '"hand": [], "gone": [], "power"'))
    assert answer("TOOLS['hammer'].module") == ["toolbox.hand", "toolbox.hand", "toolbox.power"]
    toolbox.unlink()
    assert answer("list(TOOLS)") == [listed, "toolbox.hand", "toolbox.power"]


@pytest.mark.parametrize("registry", [MODELS, BACKBONES], ids=["models", "backbones"])
def test_the_indexes_hold_what_their_files_register(registry: Registry[Any]) -> None:
    """`python tools/write_index.py` writes them anew. A file that an index does not know may register anything."""
    file = Path(pixelwise.__file__).parent / registry.package.partition(".")[2] / INDEX
    index, registered = json.loads(file.read_text(encoding="utf-8")), json.loads(registry.index_text())
    assert index == {module: registered.get(module) for module in index}
    for module, rows in index.items():
        for row in rows:
            entry = registry[row["name"]]
            assert entry.module == f"{registry.package}.{module}"
            assert (row["summary"], row["paper"], row["year"]) == (entry.summary, entry.paper, entry.year)
            for option, default in row["options"].items():
                assert json.loads(json.dumps(entry.options[option].default, default=dict)) == default, option
