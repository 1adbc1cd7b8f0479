"""The sheet's geometry, the order of the ladder, what its titles and its legend tell, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pixelwise import images
from pixelwise.commands.compare import compare as command
from pixelwise.core import Prediction, Taxonomy
from pixelwise.errors import CheckpointError, DatasetError, ImageError, InputError, MaskError
from pixelwise.images import RGB, write_image, write_mask
from pixelwise.images.legend import elide, legend, legend_entries
from pixelwise.inference.segmenter import Segmenter
from pixelwise.models import create_model
from pixelwise.visualization import panels
from pixelwise.visualization.compare import PANEL, draw_comparison, short_names
from pixelwise.visualization.panels import MARGIN, Panel, contact_sheet, fit, grid, heat
from pixelwise.weights.checkpoint import save_checkpoint

TAXONOMY = Taxonomy(("road", "car", "sky"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))


class Says:
    """A segmenter that gives every pixel one class."""

    def __init__(self, name: str, label: int, taxonomy: Taxonomy = TAXONOMY) -> None:
        self.name, self.label, self.taxonomy = name, label, taxonomy
        self.crf, self.pixels = None, RGB
        self.network = "compact"

    def __call__(self, image: NDArray[np.uint8]) -> Prediction:
        return Prediction(np.full(image.shape[:2], self.label, np.uint8), self.taxonomy, image)


def says(name: str, label: int, taxonomy: Taxonomy = TAXONOMY) -> Segmenter:
    return cast(Segmenter, Says(name, label, taxonomy))


def column_colors(image: Image.Image, row: int) -> list[tuple[int, ...]]:
    """The colors met on one row from left to right, white left out, each run once."""
    met: list[tuple[int, ...]] = []
    for color in map(tuple, np.asarray(image)[row].tolist()):
        if color != (255, 255, 255) and (not met or met[-1] != color):
            met.append(color)
    return met


IMAGE = np.full((90, 120, 3), 77, np.uint8)


def test_the_ladder_is_image_then_models_as_given_then_truth() -> None:
    truth = np.full((90, 120), 1, np.uint8)
    models = [says("runs/32s", 2), says("runs/16s", 0), says("runs/8s", 1)]
    drawn = draw_comparison(IMAGE, models, truth=truth)
    row = MARGIN + PANEL // 3
    assert column_colors(drawn, row) == [(77, 77, 77), (0, 0, 255), (255, 0, 0), (0, 255, 0)]
    # Two green panels, divided by the gap: 8s and the truth.
    green = (np.asarray(drawn)[row] == (0, 255, 0)).all(1)
    assert green.sum() == 2 * PANEL
    assert np.diff(green.astype(int)).tolist().count(1) == 2
    assert column_colors(draw_comparison(IMAGE, models[::-1]), row) == [
        (77, 77, 77),
        (0, 255, 0),
        (255, 0, 0),
        (0, 0, 255),
    ]


def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All text that the sheet writes, in order."""
    texts: list[str] = []
    for module in (panels, images.legend):
        monkeypatch.setattr(module, "draw_text", lambda draw, position, text, **style: texts.append(text))
    return texts


def test_titles_tell_the_run_and_its_score_on_this_image(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = written(monkeypatch)
    truth = np.zeros((90, 120), np.uint8)
    truth[:30] = 1
    truth[80:] = TAXONOMY.ignore_id
    draw_comparison(IMAGE, [says("runs/a", 0), says("runs/b/checkpoints/best", 1)], truth=truth)
    # All road: 50 of 80 scored rows are right, car is missed: (50 / 80 + 0) / 2. All car: (30 / 80 + 0) / 2.
    assert [t for t in texts if t] == [
        *("road", "car", "not scored"),
        *("image", "90 x 120 pixels", "a", "compact, mean IoU 31.2 %", "b", "compact, mean IoU 18.8 %", "truth"),
    ]


def test_without_truth_there_is_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = written(monkeypatch)
    draw_comparison(IMAGE, [says("runs/a", 2)])
    assert [t for t in texts if t] == ["sky", "image", "90 x 120 pixels", "a", "compact"]


def test_runs_of_one_name_are_distinguished() -> None:
    assert short_names(["x/a", "y/a", "z/b/checkpoints/last"]) == ["x/a", "y/a", "b"]
    assert short_names(["the model that ships with pixelwise"]) == ["the model that ships with pixelwise"]


def test_the_legend_lists_what_occurs_in_the_order_of_the_ids() -> None:
    masks = [np.array([[2, 255]], np.uint8), np.array([[0, 0]], np.uint8)]
    assert legend_entries(masks, TAXONOMY) == [("road", (255, 0, 0)), ("sky", (0, 0, 255)), ("not scored", (0, 0, 0))]


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=9),
    st.integers(1, 5),
    st.integers(0, 40),
)
def test_images_of_a_grid_lie_apart_in_reading_order_with_room_for_captions(
    sizes: list[tuple[int, int]], columns: int, caption: int
) -> None:
    boxes = grid(sizes, columns, top=30, caption=caption)
    assert [box.size for box in boxes] == sizes
    taken = np.zeros((1000, 400), np.uint8)
    for box in boxes:
        assert box.left >= MARGIN
        taken[box.top : box.bottom + caption, box.left : box.right] += 1
    assert taken.max() == 1
    assert taken[:30].sum() == 0
    assert [(box.top, box.left) for box in boxes] == sorted((box.top, box.left) for box in boxes)
    for first, second in zip(boxes, boxes[columns:], strict=False):
        assert first.left == second.left


def test_a_sheet_holds_its_panels_untouched_inside_a_margin() -> None:
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 255, (40, 60, 3), np.uint8) for _ in range(3)]
    drawn = np.asarray(
        contact_sheet([Panel(Image.fromarray(p), "t") for p in images], 2, heading="heading", note="note")
    )
    boxes = grid([(40, 60)] * 3, 2, top=MARGIN + 30 + 24, caption=26)
    for image, box in zip(images, boxes, strict=True):
        assert (drawn[box.top : box.bottom, box.left : box.right] == image).all()
    for edge in (drawn[:MARGIN], drawn[-MARGIN:], drawn[:, :MARGIN], drawn[:, -MARGIN:]):
        assert (edge == 255).all()


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 64))
def test_fitted_images_keep_their_shape_and_labels_their_colors(height: int, width: int, side: int) -> None:
    pixels = np.where(np.indices((height, width)).sum(0)[..., None] % 2, (255, 0, 0), (0, 0, 255)).astype(np.uint8)
    fitted = np.asarray(fit(pixels, side, labels=True))
    assert max(fitted.shape[:2]) <= side
    assert {tuple(c) for c in fitted.reshape(-1, 3).tolist()} <= {(255, 0, 0), (0, 0, 255)}
    factor = side / max(height, width)
    scale = int(factor) if factor >= 1 else factor
    assert abs(fitted.shape[0] - max(1, height * scale)) <= 0.5
    assert abs(fitted.shape[1] - max(1, width * scale)) <= 0.5


def test_heat_is_the_published_table_and_grows_brighter() -> None:
    ends = heat(np.array([[-5.0, 0, 1, 9]]), low=0, high=1)
    # Viridis from (68, 1, 84) to (253, 231, 37), in RGB.
    assert np.abs(ends[0].astype(int) - ([(68, 1, 84)] * 2 + [(253, 231, 37)] * 2)).max() <= 1
    light = heat(np.linspace(0, 1, 50)[None], low=0, high=1)[0].astype(float) @ (0.299, 0.587, 0.114)
    assert (np.diff(light) > -1).all()
    assert heat(np.ones((2, 2)), low=3, high=3).shape == (2, 2, 3)


def test_long_names_lose_their_middle() -> None:
    assert elide("short", 15, 400) == "short"
    cut = elide("a" * 50 + "end", 15, 120)
    assert "…" in cut
    assert cut.startswith("a")
    assert cut.endswith("nd")


def test_a_long_legend_breaks_into_lines() -> None:
    one, many = (legend([("pavement", (1, 2, 3))] * n, 300) for n in (1, 9))
    assert one.width == many.width == 300
    # A swatch and its word take about 95 pixels: three a line.
    assert many.height == 3 * one.height


def test_models_of_other_classes_and_a_truth_of_another_size_are_refused() -> None:
    with pytest.raises(DatasetError, match="b: has 2 classes, a has 3"):
        draw_comparison(IMAGE, [says("a", 0), says("b", 0, Taxonomy(("road", "car")))])
    with pytest.raises(MaskError, match="image is 90x120, mask 5x5"):
        draw_comparison(IMAGE, [says("a", 0)], truth=np.zeros((5, 5), np.uint8))
    with pytest.raises(MaskError, match="nothing to score: every pixel is ignored"):
        draw_comparison(IMAGE, [says("a", 0)], truth=np.full((90, 120), 255, np.uint8))
    with pytest.raises(InputError, match="no model"):
        draw_comparison(IMAGE, [])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    torch.manual_seed(0)
    save_checkpoint(folder / "one", create_model("compact", 3, tiny=True), TAXONOMY)
    save_checkpoint(folder / "two", create_model("fcn8s_vgg16", 3, tiny=True, geometry="same"), TAXONOMY)
    write_image(folder / "photo.png", np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    write_mask(folder / "truth.png", np.eye(48, 64, dtype=np.uint8))
    write_image(folder / "colors.png", TAXONOMY.palette()[np.eye(48, 64, dtype=np.uint8)])
    (folder / "cut.png").write_bytes((folder / "photo.png").read_bytes()[:3000])
    return folder


def test_command_writes_one_image(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [str(files / "one"), str(files / "two")]
    assert (
        command(files / "photo.png", model=models, truth=files / "truth.png", out=tmp_path / "new" / "sheet.png") == 0
    )
    assert capsys.readouterr().out.strip() == str(tmp_path / "new" / "sheet.png")
    with Image.open(tmp_path / "new" / "sheet.png") as drawn:
        # Four panels of 64 x 48, grown five times, three gaps, two margins.
        assert drawn.width == 4 * 320 + 3 * 14 + 2 * 20
    command(files / "photo.png", model=models, truth=files / "colors.png", out=tmp_path / "colors.png")
    assert (tmp_path / "colors.png").read_bytes() == (tmp_path / "new" / "sheet.png").read_bytes()


def test_command_refuses_in_one_line_and_leaves_nothing(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "sheet.png"
    model = [str(files / "one")]
    with pytest.raises(ImageError, match=r"cut\.png"):
        command(files / "cut.png", model=model, out=out)
    with pytest.raises(CheckpointError, match="no such folder"):
        command(files / "photo.png", model=["nowhere"], out=out)
    with pytest.raises(InputError, match=r"sheet\.gif: images cannot be written as \.gif"):
        command(files / "photo.png", model=model, out=tmp_path / "sheet.gif")
    write_mask(tmp_path / "small.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match=r"small\.png: is 4x4, the image 48x64"):
        command(files / "photo.png", model=model, truth=tmp_path / "small.png", out=out)
    write_mask(tmp_path / "odd.png", np.full((48, 64), 9, np.uint8))
    with pytest.raises(MaskError, match=r"odd\.png: unknown mask value 9"):
        command(files / "photo.png", model=model, truth=tmp_path / "odd.png", out=out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["odd.png", "small.png"]
