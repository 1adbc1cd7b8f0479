"""The vocabulary: what a taxonomy refuses and translates, and how a prediction looks, against values set by hand."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pixelwise.colors import voc_color
from pixelwise.core import Prediction, Sample, Taxonomy, Window, size_text
from pixelwise.errors import (
    ConfigError,
    ImageError,
    InputError,
    Interrupted,
    MaskError,
    PixelwiseError,
    ResourceError,
    error_lines,
    listed,
    os_reason,
    shown,
)

ROAD_AND_CAR = Taxonomy(("road", "car"), ((128, 64, 128), (0, 0, 142)), (7, 26), (0, 255))


@st.composite
def taxonomies(draw: st.DrawFn) -> Taxonomy:
    """Up to 300 classes with distinct values anywhere in 0..65535, and up to three ignored values beside them."""
    count = draw(st.sampled_from([1, 2, 11, 254, 255, 256, 300]))
    top = draw(st.sampled_from([count + 3, 65535]))
    dense, sparse = st.permutations(range(count + 3)), st.lists(st.integers(0, top), unique=True, min_size=count + 3)
    values = tuple(draw(sparse if top == 65535 else dense))
    return Taxonomy(
        tuple(f"class {k}" for k in range(count)), (), values[:count], values[count : count + draw(st.integers(0, 3))]
    )


@given(taxonomies(), st.data())
def test_encode_undoes_decode(taxonomy: Taxonomy, data: st.DataObject) -> None:
    allowed = [*range(taxonomy.num_classes), *([taxonomy.ignore_id] if taxonomy.ignored else [])]
    ids = data.draw(st.lists(st.sampled_from(allowed), min_size=1, max_size=12))
    mask = np.array([ids], taxonomy.dtype)
    raw = taxonomy.decode(mask)
    again = taxonomy.encode(raw)
    assert again.dtype == mask.dtype
    np.testing.assert_array_equal(again, mask)
    # Beside the round trip, the file's values one by one: an encode and a decode that are both wrong would pass it.
    meant = [taxonomy.values[k] if k < taxonomy.num_classes else taxonomy.ignored[0] for k in ids]
    assert raw.tolist() == [meant]


def test_encode_by_hand() -> None:
    raw = np.array([[7, 26, 0], [255, 7, 7]], np.uint8)
    mask = ROAD_AND_CAR.encode(raw)
    assert mask.tolist() == [[0, 1, 255], [255, 0, 0]]
    assert mask.dtype == np.uint8


def test_decode_writes_the_ignored_pixels_as_asked() -> None:
    mask = np.array([[0, 1, 255]], np.uint8)
    assert ROAD_AND_CAR.decode(mask).tolist() == [[7, 26, 0]]
    assert ROAD_AND_CAR.decode(mask, ignore_value=255).tolist() == [[7, 26, 255]]
    assert ROAD_AND_CAR.decode(mask, ignore_value=300).dtype == np.uint16


def test_decode_invents_no_value_for_pixels_of_no_class() -> None:
    binary = Taxonomy(("sky", "cloud"), (), (0, 255))
    assert binary.decode(np.array([[0, 1]], np.uint8)).tolist() == [[0, 255]]
    with pytest.raises(MaskError, match="has no file value for them"):
        binary.decode(np.array([[0, 255]], np.uint8))


def test_an_unknown_value_names_file_value_count_and_place() -> None:
    raw = np.full((40, 50), 7, np.uint8)
    raw[2, 3] = raw[3, 0] = raw[3, 1] = 9
    raw[3, 4] = 200
    with pytest.raises(MaskError) as caught:
        ROAD_AND_CAR.encode(raw, "masks/a.png")
    assert str(caught.value) == (
        "masks/a.png: unknown mask values 9 (3 px), 200 (1 px), first at row 2, column 3; known values: 7, 26; "
        "fix: add the value to a class, or to `ignore`, in classes.yaml"
    )


def test_a_mask_of_0_and_255_leads_to_the_value_setting() -> None:
    strict = Taxonomy(("background", "cell"), ignored=())
    with pytest.raises(MaskError, match=r"value 255 \(1 px\).*set `value: 255`"):
        strict.encode(np.array([[0, 255]], np.uint8))
    assert Taxonomy(("background", "cell"), (), (0, 255)).encode(np.array([[0, 255]], np.uint8)).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    "raw",
    [
        np.zeros((2, 3, 3), np.uint8),
        np.zeros(3, np.uint8),
        np.zeros((2, 3), bool),
        np.full((2, 3), -1, np.int64),
        np.zeros((2, 3), np.float32),
    ],
    ids=["color", "one row", "bool", "negative", "float"],
)
def test_encode_refuses_what_is_no_mask(raw: NDArray[Any]) -> None:
    taxonomy = Taxonomy(("a", "b"), (), (0, 65535))
    with pytest.raises(MaskError, match=r"a\.png: expected a mask \(height, width\) of uint8 or uint16, got "):
        taxonomy.encode(raw, "a.png")


def test_big_endian_masks_are_read_as_they_are_meant() -> None:
    assert ROAD_AND_CAR.encode(np.array([[7, 26]], ">u2")).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("count", "ignore_id", "dtype"), [(255, 255, np.uint8), (256, 65535, np.uint16), (65535, 65535, np.uint16)]
)
def test_more_than_255_classes_take_16_bits(count: int, ignore_id: int, dtype: type) -> None:
    taxonomy = Taxonomy(tuple(map(str, range(count))))
    assert (taxonomy.ignore_id, taxonomy.dtype) == (ignore_id, dtype)
    raw = np.array([[0, count - 1]], np.uint16)
    mask = taxonomy.encode(raw)
    assert mask.dtype == dtype
    assert mask.tolist() == taxonomy.decode(mask).tolist() == [[0, count - 1]]
    assert taxonomy.palette().shape == (ignore_id + 1, 3)


@pytest.mark.parametrize(
    ("colors", "unscored"), [([(1, 2, 3), (9, 9, 9)], (0, 0, 0)), ([(0, 0, 0), (9, 9, 9)], (224, 224, 192))]
)
def test_what_is_not_scored_has_a_color_of_its_own(
    colors: list[tuple[int, int, int]], unscored: tuple[int, int, int]
) -> None:
    """The other color is that of label 255 in the VOC devkit's palette."""
    taxonomy = Taxonomy(("a", "b"), tuple(colors))
    assert taxonomy.palette()[[0, 1, taxonomy.ignore_id]].tolist() == [*map(list, colors), list(unscored)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"names": ()}, "expected 1 to 65535 classes, got 0"),
        ({"names": ("a",) * 65536}, "got 65536"),
        ({"names": ("a", "b", "a")}, "repeated name: a"),
        ({"names": ("a", " ")}, "class 1 has the name ' '; fix: write a word"),
        ({"names": ("a", "b"), "values": (3, 3)}, "repeated value: 3"),
        ({"names": ("a", "b"), "values": (3,)}, "2 names, 2 colors, 1 values"),
        ({"names": ("a", "b"), "colors": ((0, 0, 0),)}, "2 names, 1 colors, 2 values"),
        ({"names": ("a", "b"), "ignored": (1,)}, "value 1 is both a class and ignored"),
        ({"names": ("a",), "values": (-1,)}, "values must be in 0..65535"),
        ({"names": ("a",), "ignored": (65536,)}, "values must be in 0..65535"),
        ({"names": ("a",), "colors": ((0, 0, 256),)}, r"must be three integers of 0\.\.255, got \(0, 0, 256\)"),
        ({"names": ("a",), "colors": ((0, 0),)}, r"must be three integers of 0\.\.255, got \(0, 0\)"),
        ({"names": ("a",), "colors": ((0, 0, 0.5),)}, "must be three integers"),
    ],
)
def test_a_taxonomy_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Taxonomy(**fields)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "has no list `classes`"),
        ({"classes": []}, "has no list `classes`"),
        ({"classes": "road"}, "has no list `classes`"),
        ({"classes": {"road": 0}}, "has no list `classes`"),
        ({"classes": ["a"], "ignored": [0]}, "unknown key 'ignored'"),
        ({"classes": ["a"], 5: 0}, "unknown key '5'"),
        ({"classes": ["a", 3]}, "class 1: expected a name, got 3"),
        ({"classes": ["a", False]}, "class 1: expected a name, got False"),
        ({"classes": [{"name": None}]}, "class 0: expected a name, got {'name': None}"),
        ({"classes": [{"color": [1, 2, 3]}]}, "class 0: expected a name"),
        ({"classes": [{"name": "a", "colr": [1, 2, 3]}]}, "class 0: expected a name"),
        ({"classes": [{"name": "a", "color": [1, 2]}]}, "expected a color"),
        ({"classes": [{"name": "a", "color": [0, 0, 300]}]}, "expected a color"),
        ({"classes": [{"name": "a", "color": [0.5, 0, 0]}]}, "expected a color"),
        ({"classes": [{"name": "a", "color": 7}]}, "expected a color"),
        ({"classes": [{"name": "a", "value": 1.5}]}, "an integer value"),
        ({"classes": [{"name": "a", "value": "5"}]}, "an integer value"),
        ({"classes": [{"name": "a", "value": True}]}, "an integer value"),
        ({"classes": ["a"], "ignore": "255"}, "`ignore` must be integers, got '255'"),
        ({"classes": ["a"], "ignore": [2.5]}, "`ignore` must be integers"),
        ({"classes": ["a"], "ignore": ["void"]}, "`ignore` must be integers"),
        ({"classes": ["a"], "ignore": [0]}, "value 0 is both a class and ignored"),
        ({"classes": ["a", "a"]}, "repeated name: a"),
    ],
)
def test_from_dict_refuses_and_names_the_file(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Taxonomy.from_dict(data, "set/classes.yaml")
    assert str(caught.value).startswith("set/classes.yaml: ")
    assert "\n" not in str(caught.value)


def test_from_dict_fills_in_what_is_left_out() -> None:
    taxonomy = Taxonomy.from_dict({"classes": ["sky", {"name": "car", "value": 9, "color": [1, 2, 3]}], "ignore": 255})
    assert taxonomy == Taxonomy(("sky", "car"), ((0, 0, 0), (1, 2, 3)), (0, 9), (255,))
    assert Taxonomy.from_dict({"classes": ["sky"], "ignore": None}).ignored == ()


@given(taxonomies())
def test_to_dict_and_back(taxonomy: Taxonomy) -> None:
    assert Taxonomy.from_dict(taxonomy.to_dict()) == taxonomy


def test_the_written_form() -> None:
    assert ROAD_AND_CAR.to_dict() == {
        "classes": [
            {"name": "road", "color": [128, 64, 128], "value": 7},
            {"name": "car", "color": [0, 0, 142], "value": 26},
        ],
        "ignore": [0, 255],
    }


@pytest.mark.parametrize(
    ("label", "color"),
    [
        (0, (0, 0, 0)),
        (1, (128, 0, 0)),
        (2, (0, 128, 0)),
        (8, (64, 0, 0)),
        (15, (192, 128, 128)),
        (20, (0, 64, 128)),
        (255, (224, 224, 192)),
    ],
)
def test_colors_of_the_voc_devkit(label: int, color: tuple[int, int, int]) -> None:
    """Source: palette of VOC 2012's segmentation PNGs: background, aeroplane, bicycle, cat, person, monitor, border."""
    assert voc_color(label) == color


def test_a_palette_by_file_value_colors_classes_and_ignored_values() -> None:
    table = Taxonomy(("road", "car"), ((0, 0, 0), (0, 0, 142)), (7, 26), (3, 255)).palette(by="value")
    assert table.shape == (256, 3)
    assert {value: tuple(color) for value, color in enumerate(table.tolist()) if any(color)} == {
        26: (0, 0, 142),
        3: (224, 224, 192),
        255: (224, 224, 192),
    }
    assert Taxonomy(("a", "b"), (), (0, 300)).palette(by="value")[300].tolist() == [128, 0, 0]


def test_shares_count_pixels_and_leave_ignored_ones_nameless() -> None:
    mask = np.array([[0, 1, 1, 255]], np.uint8)
    shares = Prediction(mask, ROAD_AND_CAR, np.zeros((1, 4, 3), np.uint8)).class_fractions()
    assert list(shares.items()) == [("car", 0.5), ("road", 0.25)]


def test_overlay_and_colorize_by_hand() -> None:
    image = np.array([[[10, 20, 31], [200, 100, 0], [50, 60, 70]]], np.uint8)
    prediction = Prediction(np.array([[0, 1, 255]], np.uint8), ROAD_AND_CAR, image)
    assert np.asarray(prediction.colorize()).tolist() == [[[128, 64, 128], [0, 0, 142], [0, 0, 0]]]
    assert np.asarray(prediction.overlay(0)).tolist() == image.tolist()
    # The car's color is too dark on a photo, so both are vermilion and sky blue there; ignored pixels stay clear.
    assert np.asarray(prediction.overlay(1)).tolist() == [[[213, 94, 0], [86, 180, 233], [50, 60, 70]]]
    # A quarter of the color on three quarters of the image: 60.75, 38.5, 23.25 | 171.5, 120, 58.25; halves to even.
    assert np.asarray(prediction.overlay(0.25)).tolist() == [[[61, 38, 23], [172, 120, 58], [50, 60, 70]]]


@pytest.mark.parametrize("opacity", [-0.1, 1.1, float("nan")])
def test_overlay_refuses_an_opacity_outside_0_to_1(opacity: float) -> None:
    prediction = Prediction(np.zeros((1, 1), np.uint8), ROAD_AND_CAR, np.zeros((1, 1, 3), np.uint8))
    with pytest.raises(InputError, match="opacity: must be between 0 and 1, got"):
        prediction.overlay(opacity)


def test_16_bit_masks_are_drawn_too() -> None:
    taxonomy = Taxonomy(tuple(map(str, range(300))))
    image = Prediction(np.array([[299, 65535]], np.uint16), taxonomy, np.zeros((1, 2, 3), np.uint8)).colorize()
    assert np.asarray(image).tolist() == [[list(voc_color(299)), [252, 248, 248]]], "class 0 is black"


def test_a_sample_refuses_a_mask_of_another_size() -> None:
    with pytest.raises(MaskError, match=r"street 1: image is 4x6, mask 4x5 \(height x width\)"):
        Sample("street 1", np.zeros((4, 6, 3), np.uint8), np.zeros((4, 5), np.uint8))
    with pytest.raises(MaskError, match="mask 24"):
        Sample("street 1", np.zeros((4, 6, 3), np.uint8), np.zeros(24, np.uint8))


def test_a_window_is_half_open() -> None:
    assert Window(2, 3, 10, 30).size == (8, 27)


@pytest.mark.parametrize(
    ("kind", "code"), [(InputError, 2), (ConfigError, 2), (MaskError, 2), (ResourceError, 3), (Interrupted, 4)]
)
def test_an_error_is_one_line_and_survives_a_worker_process(kind: type[PixelwiseError], code: int) -> None:
    error = pickle.loads(pickle.dumps(kind("a.png", "got 3\n  bands", "use one")))  # noqa: S301 - our own bytes
    assert type(error) is kind
    assert str(error) == "a.png: got 3 bands; fix: use one"
    assert (error.subject, error.fix, error.exit_code) == ("a.png", "use one", code)


def test_the_words_that_messages_share() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(range(7), limit=3) == "0, 1, 2, ... (7 in total)"
    assert os_reason(OSError(28, "No space left on device", "/x")) == "No space left on device"
    assert os_reason(OSError("odd")) == "odd"
    assert size_text((480, 640)) == "480x640"


def test_values_in_messages_are_cut() -> None:
    assert shown({"a": [1, "x"], "b": None}) == "{'a': [1, 'x'], 'b': None}"
    nested: Any = []
    for _ in range(2000):
        nested = [nested] * 9
    for value in (nested, "x" * 10**7, b"\xff" * 10**7, 10**6000, list(range(10**5)), {k: k for k in range(10**5)}):
        assert len(shown(value)) <= 100
    assert shown("x" * 200).startswith("'xxx")
    assert listed(["a" * 1000, "b"]) == "a" * 97 + "..., b"
    assert listed(["a" * 50] * 4) == ", ".join(["a" * 50] * 2) + ", ... (4 in total)"
    assert listed(["a" * 100] * 4) == "a" * 100 + ", ... (4 in total)"
    assert os_reason(ValueError("two\nlines" + "x" * 10**6)).startswith("two lines")
    assert len(os_reason(ValueError("x" * 10**6))) <= 100


def test_equal_errors_of_many_files_are_one_line() -> None:
    cut_images = [ImageError(f"a{n}.png", f"is cut after {n} bytes", "export it again") for n in range(8)]
    others = [MaskError("m.png", "unknown value 7", "add it"), ImageError("b.png", "is empty", "export it again")]
    lines = error_lines([*cut_images[:3], *others, *cut_images[3:]])
    assert lines == [
        "a0.png: is cut after 0 bytes; fix: export it again "
        "(and 7 more: a1.png, a2.png, a3.png, a4.png, a5.png, ... (7 in total))",
        "m.png: unknown value 7; fix: add it",
        "b.png: is empty; fix: export it again",
    ]
    letters = [ImageError("x", letter, "y") for letter in "abcde"]
    shown_lines = ["x: a; fix: y", "x: b; fix: y", "x: c; fix: y", "... and 2 more kinds of errors"]
    assert error_lines(letters, limit=3) == shown_lines
