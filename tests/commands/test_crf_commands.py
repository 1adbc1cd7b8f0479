"""The CRF after a model: in predict, evaluate and compare, and the search for its parameters."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pixelwise
from helpers.command_line import call, refused
from helpers.tiny_data import NAMES, TINY_COMPACT, make_image, write_dataset
from pixelwise.core import Taxonomy
from pixelwise.crf import Parameters, refine, refine_each
from pixelwise.crf.refinement import compile_ahead
from pixelwise.data import open_dataset
from pixelwise.evaluation import crf_search
from pixelwise.evaluation.crf_search import SearchResult, search
from pixelwise.evaluation.crf_search_cache import SearchCache
from pixelwise.evaluation.evaluator import evaluate_model
from pixelwise.images import read_mask, write_mask
from pixelwise.inference.crf_settings import find_crf, read_crf, write_crf
from pixelwise.inference.label_map import low_res_logits, probabilities
from pixelwise.models import create_model
from pixelwise.weights.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"), num_train=1, num_val=2, size=(24, 32))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    save_checkpoint(folder, create_model("compact", 3, **TINY_COMPACT), Taxonomy(NAMES))
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(make_image(5, (24, 32))[0]).save(path)
    return path


def test_labels_are_those_of_the_refined_probabilities(model: Path) -> None:
    image, _ = make_image(5, (24, 32))
    plain = pixelwise.load(model)
    refined = plain.with_crf("deeplabv2")
    before = plain.predict(image, probs=True)
    assert before.probs is not None
    expected = refine(image, before.probs, "deeplabv2")
    after = refined.predict(image, probs=True)
    np.testing.assert_array_equal(after.mask, expected.argmax(0))
    np.testing.assert_array_equal(after.probs, expected)
    assert plain.crf is None, "the model itself is left as it was"


def test_predict_evaluate_and_compare_take_it(
    model: Path, data: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(capsys, "predict", photo, "--model", model, "--crf", "deeplabv1", "--out", tmp_path / "out").code == 0
    written = np.asarray(Image.open(tmp_path / "out" / "photo.png"))
    np.testing.assert_array_equal(written, pixelwise.load(model).with_crf("deeplabv1")(photo).mask)
    result = call(capsys, "evaluate", "--data", data, "--split", "val", "--model", model, "--crf", "deeplabv1")
    assert result.code == 0
    assert "with CRF Parameters(w1=4" in result.out, "the protocol says what was scored"
    assert ", preset deeplabv1" in result.out
    assert call(capsys, "compare", photo, "--model", model, "--crf", "deeplabv2", "--out", tmp_path / "c.png").code == 0
    alone = call(capsys, "compare", photo, "--model", model, "--out", tmp_path / "d.png")
    assert alone.code == 0
    with Image.open(tmp_path / "c.png") as refined, Image.open(tmp_path / "d.png") as plain:
        assert refined.width > plain.width


def test_mistakes_are_one_line(
    model: Path, data: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, "predict", photo, "--model", model, "--crf", "deeplabv3", "--out", tmp_path / "o", names="deeplabv")
    refused(capsys, "predict", photo, "--model", model, "--crf", "run", "--out", tmp_path / "o", names="crf-search")
    refused(capsys, "predict", photo, "--crf", "run", "--out", tmp_path / "o", names="--model")
    refused(capsys, "evaluate", "--data", data, "--predictions", tmp_path, "--crf", "deeplabv1", names="--crf")
    refused(capsys, "crf-search", "--model", tmp_path / "none", "--data", data, names="no such folder")
    refused(capsys, "crf-search", "--model", model, "--data", data, "--images", "0", names="--images")
    refused(capsys, "crf-search", "--model", model, "--data", data, "--split", "test", names="bias")
    (model / "crf.json").write_text('{"parameters": {"w1": -1}}')
    refused(
        capsys,
        "predict",
        photo,
        "--model",
        model,
        "--crf",
        "run",
        "--out",
        tmp_path / "o",
        names="crf.json: crf w1: must be >= 0, got -1",
    )
    (model / "crf.json").write_text("[]")
    refused(capsys, "predict", photo, "--model", model, "--crf", "run", "--out", tmp_path / "o", names="crf-search")
    assert not (tmp_path / "o").exists()


def test_the_search_finds_the_best_of_what_it_tried(model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting scored once more, by `evaluate`."""
    monkeypatch.setattr(crf_search, "COARSE", ((3.0,), (20.0, 50.0), (3.0, 6.0)))
    segmenter, split = pixelwise.load(model), open_dataset(data).split("val")
    calls: list[tuple[int, int]] = []
    found = search(
        segmenter, split, num_images=2, start=Parameters(iterations=2), progress=lambda *args: calls.append(args)
    )
    assert found.num_images == 2
    assert [done for done, _ in calls] == list(range(1, 2 * found.num_settings + 1))
    assert calls[-1][0] == calls[-1][1], "the bar comes to its end"

    def score(parameters: Parameters | None) -> float:
        twin = segmenter if parameters is None else segmenter.with_crf(parameters)
        return evaluate_model(twin, split, boundary=False).scores.mean_iou

    assert score(None) == pytest.approx(found.mean_iou_before, abs=0.01)
    assert score(found.parameters) == pytest.approx(found.mean_iou)
    grid = [
        score(Parameters(w1=3.0, theta_alpha=alpha, theta_beta=beta, iterations=2))
        for alpha in (20.0, 50.0)
        for beta in (3.0, 6.0)
    ]
    assert found.mean_iou >= max(grid) - 1e-9
    assert found.parameters.w2 == 3


def test_the_search_holds_one_image_at_a_time(model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred images with the scores of a network that labels at full size are more than a machine's memory."""
    monkeypatch.setattr(crf_search, "COARSE", ((3.0,), (20.0,), (3.0,)))
    monkeypatch.setattr(crf_search, "FINE", (0.0, 0.0, 0.0))
    scores: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def watched(*args: Any, **options: Any) -> Any:
        low_res = low_res_logits(*args, **options)
        scores.append(weakref.ref(low_res.logits))
        return low_res

    def kept(*args: Any) -> Any:
        probs = probabilities(*args)
        scores.append(weakref.ref(probs))
        return probs

    def counting(*args: Any) -> Any:
        alive.append(sum(each() is not None for each in scores))
        return refine_each(*args)

    monkeypatch.setattr(crf_search, "low_res_logits", watched)
    monkeypatch.setattr(crf_search, "probabilities", kept)
    monkeypatch.setattr(crf_search, "refine_each", counting)
    search(pixelwise.load(model), open_dataset(data).split("val"))
    assert alive
    assert max(alive) <= 1


def change_weights(model: Path, data: Path) -> None:
    save_checkpoint(model, create_model("compact", 3, **TINY_COMPACT), Taxonomy(NAMES))


def change_masks(model: Path, data: Path) -> None:
    for path in (data / "masks" / "val").iterdir():
        write_mask(path, read_mask(path)[::-1])


def change_classes(model: Path, data: Path) -> None:
    values = (1, 0, 2)
    rows = "".join(f"  - {{name: {name}, value: {value}}}\n" for name, value in zip(NAMES, values, strict=True))
    (data / "classes.yaml").write_text(f"classes:\n{rows}")


def change_names_of_files(model: Path, data: Path) -> None:
    for path in [*data.glob("*/val/*")]:
        path.rename(path.with_stem("renamed_" + path.stem))


@pytest.mark.parametrize(
    "change",
    [None, change_names_of_files, change_masks, change_classes, change_weights],
    ids=["nothing", "names of files", "masks", "classes", "weights"],
)
def test_a_stopped_search_resumes(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path, Path], None] | None,
) -> None:
    """Stopped at the second image, and once more in the middle of a line; the same result as in one go."""
    monkeypatch.setattr(crf_search, "COARSE", ((3.0, 6.0), (20.0,), (3.0,)))
    monkeypatch.setattr(crf_search, "FINE", (1.5, 0.0, 0.0))
    data = write_dataset(tmp_path / "data", num_train=1, num_val=2, size=(24, 32))
    arguments = "crf-search", "--model", model, "--data", data, "--images", "3"
    refined: list[Any] = []

    def stopping(image: Any, *rest: Any) -> Any:
        refined.append(image)
        if len(refined) == 2:
            raise KeyboardInterrupt
        return refine_each(image, *rest)

    monkeypatch.setattr(crf_search, "refine_each", stopping)
    left = model / "crf-search.jsonl"
    stopped = call(capsys, *arguments)
    assert stopped.code == 4
    assert stopped.err[-1].endswith(f"{left}; fix: run the command again to resume")
    with open(left, "a") as file:
        file.write('\n{"cut')
    if change is not None:
        change(model, data)
    again = call(capsys, *arguments)
    assert any("resuming" in line for line in again.err)
    counted_again = 1 if change in (None, change_names_of_files) else 2  # other scores or masks: both images
    assert len(refined) == 2 + counted_again + 2, "before the stop, the rest of the coarse grid, the fine grid"
    assert not left.exists()
    found = (model / "crf.json").read_text()
    refused(capsys, *arguments, names="crf.json: exists already")
    assert (model / "crf.json").read_text() == found
    whole = call(capsys, *arguments, "--overwrite")
    assert whole.out == again.out
    assert (model / "crf.json").read_text() == found


def test_counts_survive_a_line_that_was_cut(tmp_path: Path) -> None:
    counts = np.arange(18).reshape(2, 3, 3)
    SearchCache(tmp_path / "t").add("a", counts)
    with open(tmp_path / "t", "ab") as file:
        file.write(b'\n{"b": "eJxj')
    SearchCache(tmp_path / "t").add("c", 2 * counts)
    again = SearchCache(tmp_path / "t")
    np.testing.assert_array_equal(again.find("a", (2, 3, 3)), counts)
    np.testing.assert_array_equal(again.find("c", (2, 3, 3)), 2 * counts)
    assert again.find("b", (2, 3, 3)) is None
    assert again.find("a", (4, 3, 3)) is None


def test_a_search_without_gain_says_so(
    model: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for after, says in ((0.4, True), (0.6, False)):
        result = SearchResult(Parameters(), mean_iou=after, mean_iou_before=0.5, num_settings=53, num_images=2)
        monkeypatch.setattr(crf_search, "search", lambda *_, result=result, **__: result)
        printed = call(capsys, "crf-search", "--model", model, "--data", data, "--overwrite")
        assert ("do not use --crf" in printed.out) == says


def test_the_command_leaves_its_result_in_the_run(
    model: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crf_search, "COARSE", ((3.0,), (20.0,), (3.0,)))
    monkeypatch.setattr(crf_search, "FINE", (0.0, 0.0, 0.0))
    result = call(capsys, "crf-search", "--model", model, "--data", data, "--images", "1")
    assert result.code == 0
    assert "mean IoU without a CRF" in result.out
    parameters = find_crf("run", model)
    assert parameters == read_crf(model / "crf.json")
    assert parameters is not None
    assert (parameters.w1, parameters.theta_alpha, parameters.theta_beta) == (3.0, 20.0, 3.0)
    scored = call(capsys, "evaluate", "--data", data, "--split", "val", "--model", model, "--crf", "run")
    assert f"found on {open_dataset(data).name} val" in scored.out, (
        "the protocol says that this split chose the parameters"
    )


def test_parameters_round_trip(tmp_path: Path) -> None:
    parameters = Parameters(w1=2.5, theta_alpha=33, normalization="before")
    assert read_crf(write_crf(tmp_path, parameters, {"images": 3})) == parameters


@pytest.mark.slow
def test_waiting_for_the_compiler_is_explained(model: Path, photo: Path, tmp_path: Path) -> None:
    """In a process that finds no compiled code."""
    arguments = ["predict", photo, "--model", model, "--crf", "deeplabv1", "--out", tmp_path / "out"]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "compiled")}
    command = [sys.executable, "-m", "pixelwise", *map(str, arguments)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "compiling the CRF's loops" in result.stderr


def test_compiled_loops_are_not_announced(
    model: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compile_ahead(3)
    result = call(capsys, "predict", photo, "--model", model, "--crf", "deeplabv1", "--out", tmp_path / "out")
    assert result.code == 0
    assert not any("compiling" in line for line in result.err)


def test_a_checkpoint_inside_a_run_shares_its_parameters(tmp_path: Path) -> None:
    best = tmp_path / "run" / "checkpoints" / "best"
    best.mkdir(parents=True)
    write_crf(tmp_path / "run", Parameters(w1=7), {})
    assert find_crf("run", best) == Parameters(w1=7)
    write_crf(best, Parameters(w1=8), {})
    assert find_crf("run", best) == Parameters(w1=8)
