"""The page of a run: whole without a network, safe against any name, there for runs that are only half done."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pixelwise.commands.report import report as command
from pixelwise.core import Prediction, Taxonomy
from pixelwise.data.dataset import Item, Split
from pixelwise.data.groups import Groups
from pixelwise.errors import ConfigError, InputError
from pixelwise.evaluation.evaluator import evaluate_model
from pixelwise.evaluation.metrics import Scores
from pixelwise.evaluation.result import Evaluation, ImageScore, ScoringProtocol, write_scores
from pixelwise.images import write_image, write_mask
from pixelwise.visualization.charts import Chart, read_charts, trimap_chart
from pixelwise.visualization.examples import collect_examples, read_examples, write_examples
from pixelwise.visualization.report import matrix_rows, write_report

EVIL = "<script>alert('road')</script>"
TAXONOMY = Taxonomy((EVIL, 'car"><img src=x>', "sky"))
VOID_TAGS = {"meta", "img", "br", "line", "polyline"}


class Page(HTMLParser):
    """Collects what a browser would load and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action") and value]
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID_TAGS:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Six images 400x300, truth an upper and a lower half; image n, key 9 - n, is right down to row 50 n + 50."""
    items = []
    for index in range(6):
        image, mask = tmp_path / f"{index}.png", tmp_path / f"{index}_mask.png"
        write_image(image, np.full((300, 400, 3), 40 * index, np.uint8))
        truth = np.zeros((300, 400), np.uint8)
        truth[150:], truth[:, :10] = 1, 255
        write_mask(mask, truth)
        items.append(Item(f"{EVIL} {9 - index}", image, mask))
    return Split("val", items, TAXONOMY)


def label(image: NDArray[np.uint8]) -> Prediction:
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[150:] = 1
    mask[int(image[0, 0, 0]) // 40 * 50 + 50 :] = 2
    return Prediction(mask, TAXONOMY, image)


@pytest.fixture
def run(split: Split, tmp_path: Path) -> Path:
    folder = tmp_path / "run <a>"
    folder.mkdir()
    result = evaluate_model(label, split, dataset="toy & co", model="runs/<b>")
    write_scores(folder / "scores.json", result)
    write_examples(folder / "samples", collect_examples(label, split, scores=result.images, num=2))
    (folder / "config.yaml").write_text("model:\n  name: <i>fcn</i>\n")
    (folder / "environment.json").write_text(
        json.dumps({"python": "3.11", "gpu": {"name": "<none>"}, "packages": ["a", "b"]})
    )
    rows = "0,train,2.5,0.1,", "10,train,1.5,0.05,", "10,val,1.75,,0.25", "20,val,nan,,0.5"
    (folder / "metrics.csv").write_text("\n".join(["step,split,loss,lr,miou", *rows, ""]))
    return folder


def test_page_is_whole_and_loads_nothing(run: Path) -> None:
    path = write_report(run)
    text = path.read_text("utf-8")
    page = Page(text)
    assert path == run / "report.html"
    assert page.open == []
    assert page.loads
    assert all(load.startswith("data:image/") for load in page.loads)
    assert not re.search(r"https?:|@import|url\(", text)
    assert "script" not in page.tags
    assert "link" not in page.tags


def test_command_prints_the_path(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(run) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    assert (run / "report.html").stat().st_size > 10_000


def test_every_name_is_escaped_and_shown(run: Path) -> None:
    text = write_report(run).read_text("utf-8")
    page = Page(text)
    assert "<script" not in text
    assert "<i>fcn" not in text
    assert "<img src=x" not in text
    assert page.text.count(EVIL) >= 3
    for shown in (
        'car"><img src=x>',
        "run <a>",
        "toy & co",
        "runs/<b>",
        "name: <i>fcn</i>",
        "gpu.name",
        "<none>",
        f"{EVIL} 5",
    ):
        assert shown in page.text, shown


def test_numbers_on_the_page_are_the_scores(run: Path, split: Split) -> None:
    page = Page(write_report(run).read_text("utf-8"))
    evaluation = evaluate_model(label, split)
    for mean in evaluation.means().values():
        assert mean.value is not None
        assert f"{100 * mean.value:.1f} %{mean.title}" in "".join(page.text.splitlines())
        for bound in mean.interval or ():
            assert f"{100 * bound:.1f}" in page.text
    assert "95 % intervals by image (6 images, no groups show in their names)" in page.text
    assert "6 images at native resolution (300x400" in page.text
    # Two columns of metrics.csv with two splits each; near boundaries, and all pixels.
    assert page.tags.count("polyline") == 4 + 2
    assert page.tags.count("img") == 12


def test_groups_have_a_table_and_the_boundaries_a_curve(run: Path, split: Split) -> None:
    groups = Groups(
        {item: f"drive <{k % 2}>" for k, item in enumerate(split.items)}, "a rule", frozenset({"drive <0>"})
    )
    evaluation = evaluate_model(label, split, groups=groups)
    write_scores(run / "scores.json", evaluation)
    page = Page(write_report(run).read_text("utf-8"))
    assert evaluation.spread is not None
    for row in evaluation.spread.groups:
        assert f"{row.name}3{100 * row.mean_iou:.1f}{100 * row.mean_image_iou:.1f}" in "".join(page.text.split("\n"))
    assert "2 groups: a group is a rule" in page.text
    assert "not unseen, as images of them lie in split train: drive <0>" in page.text
    chart = trimap_chart(evaluation.trimap, evaluation.scores.mean_iou)
    assert chart is not None
    assert [label for _, label in chart.x_ticks] == ["1", "2", "4", "8", "16", "32"]
    near, overall = chart.curves
    heights = [float(point.split(",")[1]) for line in near.lines for point in line.split()]
    ious = [point.mean_iou for point in evaluation.trimap]
    # y points down: the higher the score, the lower the number.
    assert sorted(range(6), key=lambda k: -heights[k]) == sorted(range(6), key=lambda k: ious[k] or 0)
    assert overall.last == f"{100 * evaluation.scores.mean_iou:.4g}"
    assert trimap_chart((), 0.5) is None


def test_images_are_small_and_show_the_masks(run: Path) -> None:
    sheet = read_examples(run / "samples")
    assert [example.is_best for example in sheet.examples] == [False, False, True, True]
    ious = [example.score.mean_iou or 0.0 for example in sheet.examples]
    assert ious == sorted(ious)
    last = sheet.examples[-1]
    assert last.score.key.endswith("4")
    truth, prediction = (
        np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in (last.truth, last.prediction)
    )
    assert Image.open(io.BytesIO(last.image)).size == (240, 180)
    assert truth.shape == (180, 240, 3)
    assert [tuple(truth[y, 120]) for y in (0, 179)] == [(0xD5, 0x5E, 0x00), (0x56, 0xB4, 0xE9)]
    assert tuple(truth[90, 0]) == (0, 0, 0)
    assert (prediction[:, 6:] == truth[:, 6:]).all()
    text = write_report(run).read_text("utf-8")
    assert base64.b64encode(last.truth).decode() in text
    assert "Black is not scored" in text


def test_few_images_are_shown_once_each(split: Split) -> None:
    for count in (1, 2, 3):
        part = split[:count]
        sheet = collect_examples(label, part, scores=evaluate_model(label, part).images)
        assert sorted(example.score.key for example in sheet.examples) == sorted(item.key for item in part.items)


def test_images_without_a_score_are_not_shown(split: Split) -> None:
    assert collect_examples(label, split, scores=[ImageScore(split.items[0].key, 0)]).examples == ()


@pytest.mark.parametrize("kept", ["config.yaml", "environment.json", "metrics.csv", "scores.json"])
def test_partial_runs_have_a_page(run: Path, kept: str, tmp_path: Path) -> None:
    folder = tmp_path / "partial"
    folder.mkdir()
    (folder / kept).write_bytes((run / kept).read_bytes())
    page = Page(write_report(folder).read_text("utf-8"))
    assert page.open == []
    assert ("No scores yet" in page.text) == (kept != "scores.json")


def test_folders_that_are_no_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds none of config\.yaml"):
        write_report(tmp_path)
    with pytest.raises(InputError, match="nowhere: is not a folder"):
        write_report(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("scores.json", "{}"),
        ("environment.json", "{"),
        ("environment.json", "[1]"),
        ("samples/examples.json", "{}"),
        ("samples/examples.json", '{"examples": [], "legend": [["a", "url(x)"]]}'),
        ("samples/examples.json", '{"examples": [{}, {}, {}, {}, {}], "legend": []}'),
    ],
)
def test_damaged_files_are_named(run: Path, name: str, text: str) -> None:
    (run / name).write_text(text)
    with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
        write_report(run)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    "name", ["config.yaml", "environment.json", "metrics.csv", "scores.json", "samples/examples.json"]
)
@pytest.mark.parametrize("kind", ["pipe", "device", "deep", "large"])
def test_files_that_cannot_be_read_to_their_end_are_refused(run: Path, name: str, kind: str) -> None:
    """None of them makes the report wait or fill the memory."""
    (run / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(run / name)
    elif kind == "device":
        (run / name).symlink_to("/dev/zero")
    elif kind == "deep":
        if not name.endswith(".json"):
            pytest.skip("JSON alone is nested")
        (run / name).write_text('{"a":' * 50_000)
    else:
        with open(run / name, "wb") as file:
            file.truncate(2**40)
    with pytest.raises(ConfigError) as caught:
        write_report(run)
    assert str(caught.value).startswith(f"{run / name}: ")
    assert len(str(caught.value)) < len(str(run)) + 300


def test_matrix_is_normalized_by_rows() -> None:
    scores = Scores.from_matrix(np.array([[6, 2, 0], [0, 4, 0], [0, 0, 0]]), ["a", "b", "c"])
    rows = matrix_rows(scores)
    assert [name for name, _ in rows] == ["a", "b", "c"]
    assert [[cell.share for cell in cells] for _, cells in rows] == [[0.75, 0.25, 0], [0, 1, 0], [None] * 3]
    assert rows[0][1][1].title == "a predicted as b: 25.0 %, 2 pixels"


def test_many_classes_stay_readable(tmp_path: Path) -> None:
    counts = np.diag(np.arange(1, 151))
    scores = Scores.from_matrix(counts, [f"class {k}" for k in range(150)])
    rows = matrix_rows(scores)
    assert [name for name, _ in rows] == [f"class {k}" for k in range(110, 150)]
    protocol = ScoringProtocol("toy", "val", 1, ((5, 5),), 0, "net")
    write_scores(tmp_path / "scores.json", Evaluation(scores, (), protocol))
    page = Page(write_report(tmp_path).read_text("utf-8"))
    assert "Shown are the 40 most frequent of 150 classes" in page.text
    assert page.tags.count("td") == 150 * 6 + 40 * 40


# --- curves


def charts(tmp_path: Path, text: str) -> list[Chart]:
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    return read_charts(path)


def test_curves_are_drawn_to_scale(tmp_path: Path) -> None:
    (loss,) = charts(tmp_path, "step,split,loss\n0,train,4\n50,train,1\n100,train,2\n")
    ((x0, y0), (x1, y1), (x2, y2)) = ([float(v) for v in point.split(",")] for point in loss.curves[0].lines[0].split())
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert (y1 - y0) / (y1 - y2) == pytest.approx(3, abs=0.02)
    assert y0 < y2 < y1
    assert [label for _, label in loss.x_ticks] == ["0", "50", "100"]
    assert [label for _, label in loss.y_ticks] == ["1", "2", "3", "4"]
    assert {label: y for y, label in loss.y_ticks}["4"] == pytest.approx(y0)


def test_one_chart_a_column_one_curve_a_split(tmp_path: Path) -> None:
    found = charts(tmp_path, "step,split,zeta,miou,loss\n1,val,3,0.5,1\n1,train,3,,2\n2,train,4,,1.5\n")
    assert [chart.title for chart in found] == ["Loss", "Mean IoU %", "zeta"]
    assert [[(curve.name, curve.last) for curve in chart.curves] for chart in found] == [
        [("train", "1.5"), ("val", "1")],
        [("val", "50")],
        [("train", "4"), ("val", "3")],
    ]


def test_nan_is_a_gap_and_half_a_line_is_passed_over(tmp_path: Path) -> None:
    (loss,) = charts(
        tmp_path, "step,split,loss\n0,train,4\n1,train,3\n2,train,nan\n3,train,inf\n4,train,2\nfive,train,9\n6,tra"
    )
    assert [len(line.split()) for line in loss.curves[0].lines] == [2, 2]
    assert loss.curves[0].last == "2"


@pytest.mark.parametrize(
    "text", ["", "step,split,loss\n", "step,split,loss\n1,train,nan\n", "a,b\n1,2\n", "step\n1,2,3\n"]
)
def test_no_numbers_no_charts(tmp_path: Path, text: str) -> None:
    assert charts(tmp_path, text) == []
    assert read_charts(tmp_path / "none.csv") == []


def test_one_point_and_constant_curves_have_a_scale(tmp_path: Path) -> None:
    for text in ("5,train,0\n", "5,train,3\n6,train,3\n", "0,train,-2\n"):
        (chart,) = charts(tmp_path, "step,split,loss\n" + text)
        assert chart.y_ticks
        assert all(
            0 <= float(v) <= 460 for line in chart.curves[0].lines for point in line.split() for v in point.split(",")
        )


def test_long_runs_are_thinned_to_means(tmp_path: Path) -> None:
    rows = "".join(f"{step},train,{step % 2}\n" for step in range(10000))
    (chart,) = charts(tmp_path, "step,split,loss\n" + rows)
    assert len(chart.curves[0].lines[0].split()) == 400
