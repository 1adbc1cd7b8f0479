"""The page of `pixelwise demo`: whole without a network, true to the masks, safe against any name."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

import pixelwise
from helpers.bad_inputs import encoded, photo
from helpers.command_line import TAXONOMY, call, files_below, refused, save_tiny
from pixelwise.core import Prediction, Taxonomy
from pixelwise.visualization.gallery import LONGEST_SIDE, gallery_image, pack_runs, write_gallery

EVIL = "</script><img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """What a browser would find: tags with their attributes, the text of scripts, the text of the rest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = self.script = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.script += data
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def constant(self, name: str) -> Any:
        (value,) = re.findall(rf"^const {name} = (.*);$", self.script, re.MULTILINE)
        return json.loads(value)


def unpack(runs: list[int], size: tuple[int, ...]) -> NDArray[Any]:
    return np.repeat(runs[0::2], runs[1::2]).reshape(size)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    (folder / "photos").mkdir()
    names = ["a.png", "<b>'\"&.png", "long " + "x" * 90 + ".png"]
    for n, name in enumerate(names):
        (folder / "photos" / name).write_bytes(encoded(np.roll(photo(), n, axis=0), "PNG"))
    save_tiny(folder / "model")
    return folder


def test_page_shows_what_the_masks_say(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "demo", demo / "photos", "--out", demo / "out", "--model", demo / "model"
    result = call(capsys, *arguments)
    assert result.code == 0
    assert f"open {demo / 'out/index.html'}" in result.out
    assert len(files_below(demo / "out")) == 3 * 3 + 1
    page = Page((demo / "out/index.html").read_text("utf-8"))
    assert [image["alt"] for image in page.all("img")] == ["<b>'\"&", "a", "long " + "x" * 90]
    segmenter = pixelwise.load(demo / "model")
    for n, place in ((1, 0), (0, 1), (2, 2)):
        mask = segmenter(np.roll(photo(), n, axis=0)).mask
        assert (unpack(page.constant("runs")[place], mask.shape) == mask).all()
        data = base64.b64decode((page.all("img")[place]["src"] or "").partition(",")[2])
        with Image.open(io.BytesIO(data)) as shown:
            assert np.abs(np.asarray(shown).astype(float) - np.roll(photo(), n, axis=0)).mean() < 12
    for entry in page.constant("classes"):
        assert entry["name"] == TAXONOMY.names[entry["id"]]
        assert tuple(entry["color"]) == TAXONOMY.for_figures().colors[entry["id"]]
        assert entry["hidden"] is False
    assert call(capsys, *arguments).code == 0, "a second run writes over the first"


def test_page_loads_nothing_and_every_control_has_a_name(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, "demo", demo / "photos", "--out", demo / "out", "--model", demo / "model")
    text = (demo / "out/index.html").read_text("utf-8")
    page = Page(text)
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|fetch\(|XMLHttp", text)
    loads = [
        value
        for _, attributes in page.tags
        for key, value in attributes.items()
        if key in ("src", "href", "srcset", "data")
    ]
    assert loads
    assert all(value and value.startswith("data:image/jpeg;base64,") for value in loads)
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    sliders = [attributes for attributes in page.all("input") if "aria-label" in attributes]
    assert len(sliders) == 3
    assert {slider["type"] for slider in sliders} == {"range"}
    assert "lang" in page.all("html")[0]


def test_the_background_is_hidden_at_first(tmp_path: Path) -> None:
    taxonomy = Taxonomy(("Background", "cat"))
    prediction = Prediction(np.eye(5, dtype=np.uint8), taxonomy, np.zeros((5, 5, 3), np.uint8))
    path = write_gallery(tmp_path / "index.html", [gallery_image("a", prediction)], taxonomy=taxonomy, title="t")
    assert [entry["hidden"] for entry in Page(path.read_text("utf-8")).constant("classes")] == [True, False]


def test_names_cannot_leave_their_place(tmp_path: Path) -> None:
    taxonomy = Taxonomy((EVIL, "b"))
    prediction = Prediction(np.zeros((4, 5), np.uint8), taxonomy, np.zeros((4, 5, 3), np.uint8))
    path = write_gallery(tmp_path / "index.html", [gallery_image(EVIL, prediction)], taxonomy=taxonomy, title=EVIL)
    text = path.read_text("utf-8")
    page = Page(text)
    assert text.count("</script>") == 1
    assert [image["alt"] for image in page.all("img")] == [EVIL]
    assert page.constant("classes") == [{"id": 0, "name": EVIL, "color": [0xD5, 0x5E, 0], "hidden": False}]
    assert page.text.count(EVIL) == 4


@given(arrays.arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 299])))
def test_runs_are_the_mask(mask: NDArray[Any]) -> None:
    runs = pack_runs(mask)
    assert (unpack(runs, mask.shape) == mask).all()
    assert all(first != second for first, second in zip(runs[0::2], runs[2::2], strict=False))


def test_large_photos_are_shrunk_and_labels_not_mixed() -> None:
    taxonomy = Taxonomy(("a", "b", "c"))
    mask = np.zeros((300, 2 * LONGEST_SIDE), np.uint8)
    mask[:, LONGEST_SIDE:] = 2
    shown = gallery_image("wide", Prediction(mask, taxonomy, np.zeros((*mask.shape, 3), np.uint8)))
    assert (shown.height, shown.width) == (150, LONGEST_SIDE)
    assert (unpack(shown.runs, (150, LONGEST_SIDE)) == mask[::2, ::2]).all()
    assert shown.class_fractions == [(0, 0.5), (2, 0.5)]


def test_nothing_to_show_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_tiny(tmp_path / "model")
    (tmp_path / "empty").mkdir()
    refused(capsys, "demo", tmp_path / "empty", "--out", tmp_path / "out", "--model", model, names="empty")
    (tmp_path / "empty/a.png").write_bytes(b"")
    refused(capsys, "demo", tmp_path / "empty", "--out", tmp_path / "out", "--model", model, names="none of the photos")
    assert files_below(tmp_path / "out") == []
    refused(capsys, "demo", tmp_path / "gone", "--model", model, names="gone")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
def test_a_browser_paints_the_colors(tmp_path: Path) -> None:
    taxonomy = Taxonomy(("a", "b"), ((255, 0, 0), (0, 255, 0)))
    mask = np.repeat([[0], [1]], 200, axis=0).repeat(600, axis=1).astype(np.uint8)
    prediction = Prediction(mask, taxonomy, np.full((400, 600, 3), 255, np.uint8))
    page = write_gallery(tmp_path / "index.html", [gallery_image("a", prediction)], taxonomy=taxonomy, title="t")
    shot = tmp_path / "shot.png"
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000", "--window-size=900,900"]
    subprocess.run([*command, f"--screenshot={shot}", page.as_uri()], check=True, capture_output=True, timeout=110)
    pixels = np.asarray(Image.open(Path(shot)).convert("RGB")).reshape(-1, 3)
    # At opacity 60 % over white: red (255, 102, 102), green (102, 255, 102).
    for color in ((255, 102, 102), (102, 255, 102)):
        assert (np.abs(pixels.astype(int) - color).max(1) <= 2).sum() > 5000
