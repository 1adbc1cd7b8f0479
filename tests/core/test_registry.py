"""Registries: a typing error in a name or an option leads to the right one, and nothing is swallowed."""

from __future__ import annotations

from typing import Any

import pytest

from pixelwise.errors import ConfigError, UnknownNameError
from pixelwise.models import create_model
from pixelwise.registry import Registry, suggest


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
    assert list(shapes) == ["square", "circle"]
    assert "square" in shapes
    assert "sqare" not in shapes


def test_an_unknown_name_leads_to_the_nearest(shapes: Registry[tuple[str, int, str]]) -> None:
    with pytest.raises(UnknownNameError) as caught:
        shapes.create("sqare")
    assert str(caught.value) == "sqare: no such shape; fix: did you mean square?"
    assert caught.value.exit_code == 2


def test_a_name_far_from_all_lists_all(shapes: Registry[tuple[str, int, str]]) -> None:
    with pytest.raises(UnknownNameError, match="xyz: no such shape; fix: known are circle, square"):
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


def test_suggest_names_at_most_three() -> None:
    assert suggest("fcn8", ["fcn8a", "fcn8b", "fcn8c", "fcn8d"]).count("fcn8") == 3


@pytest.mark.parametrize(
    ("option", "value", "fix"),
    [("width", "wide", "a number"), ("width", True, "a number"), ("num_classes", 2.5, "a whole number")],
)
def test_an_option_that_is_no_number_is_named(option: str, value: object, fix: str) -> None:
    options: Any = {option: value}
    with pytest.raises(ConfigError, match=f"option {option} is {value!r}; fix: write {fix}"):
        create_model("pspnet_resnet50", **options)
