"""Exported networks: the same answers as their source in every runtime, at any size; nothing written otherwise."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from helpers.annotated_folders import make_photo
from helpers.command_line import TAXONOMY, files_below, refused
from helpers.foreign_nets import filled
from pixelwise.cli import main
from pixelwise.core import LowResLogits, Taxonomy, Upsample
from pixelwise.errors import CheckpointError, InputError
from pixelwise.export.formats import SUFFIXES
from pixelwise.export.graphs import make_graph
from pixelwise.export.run import export_segmenter
from pixelwise.images import RGB, PixelFormat
from pixelwise.inference.class_masks import class_probabilities, masks_upsampled
from pixelwise.inference.export_info import KEY, ExportInfo
from pixelwise.inference.exported import ExportedSegmenter, load_exported
from pixelwise.inference.label_map import argmax_upsampled, probabilities
from pixelwise.inference.load_any import load_exported_form, load_without_torch
from pixelwise.inference.segmenter import Segmenter, load
from pixelwise.inference.stored_config import checkpoint_folder
from pixelwise.inference.temperature import write_temperature
from pixelwise.models import create_model, list_models
from pixelwise.nn.upsampling import AlignedBilinear, Bilinear, Identity, TransposedBilinear
from pixelwise.weights.checkpoint import Checkpoint, find_checkpoint, save_checkpoint

SIZES = [(1, 1), (1, 90), (33, 70), (64, 64), (8, 655)]


def scene(size: tuple[int, int], channels: int = 3) -> NDArray[np.uint8]:
    """Blobs of colors, so that labels vary over the image."""
    height, width = size
    small = np.random.default_rng(0).integers(0, 256, (height // 9 + 1, width // 9 + 1, channels), np.uint8)
    return np.ascontiguousarray(small.repeat(9, 0).repeat(9, 1)[:height, :width])


def assert_same_answers(source: Segmenter, exported: ExportedSegmenter, size: tuple[int, int]) -> None:
    image = scene(size, source.in_channels)
    ours, theirs = source.predict(image, probs=True), exported.predict(image, probs=True)
    assert ours.probs is not None
    assert theirs.probs is not None
    assert np.abs(ours.probs - theirs.probs).max() < 1e-3
    second, first = np.partition(ours.probs, -2, axis=0)[-2:]
    assert ((ours.mask == theirs.mask) | (first - second < 1e-3)).all()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FCN-32s is the fastest to trace."""
    network = filled(create_model("fcn32s_alexnet", TAXONOMY.num_classes, tiny=True))
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"), network, TAXONOMY, {})


@pytest.fixture(scope="module")
def onnx_file(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "tiny.onnx"
    export_segmenter(load(checkpoint), out, format="onnx")
    return out


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_labels_and_probabilities_are_those_of_the_source(runtime: Any, checkpoint: Path, onnx_file: Path) -> None:
    source, exported = load(checkpoint), load_exported(onnx_file, runtime=runtime)
    assert exported.taxonomy == source.taxonomy
    assert len(np.unique(source(scene((64, 64))).mask)) > 1
    for size in SIZES:
        assert_same_answers(source, exported, size)


def test_the_file_says_what_it_is(onnx_file: Path) -> None:
    """Read by ONNX's own library, as other programs do."""
    model = onnx.load(onnx_file)
    onnx.checker.check_model(model)
    (images,) = model.graph.input
    dims = [dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim]
    assert dims == ["batch", 3, "height", "width"]
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    values = {entry.key: entry.value for entry in model.metadata_props}
    assert set(values) == {KEY}, "other programs cannot use low-resolution logits"
    stored = json.loads(values[KEY])
    assert Taxonomy.from_dict(stored["taxonomy"]) == TAXONOMY
    assert stored["parity"]["images"][0]["size"] == [1, 1]
    assert all(row["wrong"] == 0 for row in stored["parity"]["images"])


def test_a_batch_is_computed_at_once(onnx_file: Path) -> None:
    runtime = load_exported(onnx_file).runtime
    images = np.stack([scene((40, 50)), scene((40, 50))[::-1]]).transpose(0, 3, 1, 2)
    both = runtime.run(np.ascontiguousarray(images))
    for k in range(2):
        np.testing.assert_allclose(both[k], runtime.run(np.ascontiguousarray(images[k : k + 1]))[0], atol=1e-4)


WITHOUT_TORCH = (
    "import sys; from pixelwise.cli import main; code = main(sys.argv[1:]);"
    "heavy = {'torch', 'numba', 'huggingface_hub', 'lightning'} & set(sys.modules);"
    "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
)


def test_predict_needs_no_torch(checkpoint: Path, onnx_file: Path, tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "photo.jpg")
    words = ["predict", photo, "--overlay", "--probs", "--model", onnx_file, "--out", tmp_path / "exported"]
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *map(str, words)], check=True, timeout=120)
    expected = load(checkpoint)(photo)
    found = load_exported(onnx_file)(photo)
    np.testing.assert_array_equal(found.mask, expected.mask)
    assert files_below(tmp_path / "exported") == ["photo.png", "photo_overlay.jpg", "photo_probs.npy"]


def test_a_checkpoint_beside_its_exported_form_needs_no_torch(
    checkpoint: Path, onnx_file: Path, tmp_path: Path
) -> None:
    photo, model = make_photo(tmp_path / "photo.jpg"), shutil.copytree(checkpoint, tmp_path / "model")
    assert main(["export", "--model", str(model), "--weights", "float16"]) == 0
    assert (model / "model.onnx").stat().st_size < 0.62 * onnx_file.stat().st_size
    write_temperature(model, 2.5, "a test")
    words = ["predict", str(photo), "--probs", "--model", str(model), "--out"]
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *words, str(tmp_path / "out")], check=True, timeout=120)
    # torch computes what ONNX Runtime does not.
    assert main([*words, str(tmp_path / "flipped"), "--flip"]) == 0
    expected, found = load(model).predict(photo, probs=True), load_exported_form(model)
    assert expected.probs is not None
    probs = np.load(tmp_path / "out" / "photo_probs.npy").astype(np.float32)
    assert np.abs(probs - expected.probs).max() < 5e-3
    assert isinstance(found, ExportedSegmenter)
    assert (found(photo).mask != expected.mask).mean() < 1e-3


def test_an_exported_form_of_other_weights_is_not_used(checkpoint: Path, tmp_path: Path) -> None:
    model = shutil.copytree(checkpoint, tmp_path / "model")
    assert main(["export", "--model", str(model)]) == 0
    assert load_exported_form(model) is not None
    assert load_without_torch(model) is not None
    for other in ({"device": "cuda"}, {"precision": "bfloat16"}, {"runtime": "torch"}, {"is_plain": False}):
        assert load_without_torch(model, **other) is None
    assert main(["export", "--model", str(model), "--overwrite", "--options", "{dropout: 0.1}"]) == 2
    config = json.loads((model / "config.json").read_text())
    renamed = json.loads(json.dumps(config))
    renamed["taxonomy"]["classes"][0]["name"] = "other"
    (model / "config.json").write_text(json.dumps(renamed))
    assert load(model).taxonomy.names[0] == "other"
    assert load_exported_form(model) is None
    (model / "config.json").write_text(json.dumps(config))
    assert load_exported_form(model) is not None
    changed = load(model)
    with torch.no_grad():
        changed.model.get_parameter("score_fr.bias")[0] += 100
    changed.save_pretrained(model)
    assert load_exported_form(model) is None


def test_the_exported_form_is_of_the_checkpoint_that_torch_takes(checkpoint: Path, tmp_path: Path) -> None:
    """A first save of `best` that was killed while it renamed counts; `last` is not labeled with in its place."""
    best, last = tmp_path / "checkpoints/best", tmp_path / "checkpoints/last"
    for folder in (best, last):
        shutil.copytree(checkpoint, folder)
    (best / "config.json").rename(best / "new.config.json")
    assert main(["export", "--model", str(last)]) == 0
    assert checkpoint_folder(tmp_path) == find_checkpoint(tmp_path) == best
    assert load_exported_form(last) is not None
    assert load_exported_form(tmp_path) is None


def test_weights_beyond_float16(checkpoint: Path, tmp_path: Path) -> None:
    source = load(checkpoint)
    with torch.no_grad():
        source.model.get_parameter("fc7.conv.weight")[0, 0] = 1e5
    with pytest.raises(InputError, match="holds numbers above 65504"):
        export_segmenter(source, tmp_path / "x.onnx", format="onnx", weights="float16")
    with pytest.raises(InputError, match="choose --format onnx or openvino"):
        export_segmenter(source, tmp_path / "x.pt2", format="torch", weights="float16")
    assert not list(tmp_path.iterdir())


def test_other_answers_are_not_written(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, other = load(checkpoint), load(checkpoint)
    with torch.no_grad():
        other.model.get_parameter("score_fr.bias")[0] += 100
    monkeypatch.setattr("pixelwise.export.run.make_graph", lambda _, output: make_graph(other, output))
    with pytest.raises(InputError, match=r"differs from its source on an image of 1x1: .* differ by up to 0\.[1-9]"):
        export_segmenter(source, tmp_path / "x.onnx", format="onnx")
    assert not list(tmp_path.iterdir())


def test_files_that_no_runtime_can_use(onnx_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = make_photo(tmp_path / "photo.jpg")
    cut, foreign = tmp_path / "cut.onnx", tmp_path / "foreign.onnx"
    cut.write_bytes(onnx_file.read_bytes()[:5000])
    kind = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, None, None])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3, None, None])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [kind], [result])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), foreign)
    with pytest.raises(CheckpointError, match=r"expected a file that ends in \.onnx, \.xml, \.pt2"):
        load_exported(tmp_path)
    for path, reason in (
        (cut, "cannot be read by ONNX Runtime"),
        (foreign, "holds no description"),
        ("no.xml", "no such"),
    ):
        refused(capsys, "predict", photo, "--model", path, "--out", tmp_path / "out", names=reason)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--precision", "bfloat16"], "--precision: "),
        (["--options", "{output_stride: 8}"], "--options: "),
        (["--flip"], "--flip and --scales: "),
        (["--tile", "512"], "--tile: "),
        (["--head", "x"], "head: "),
        (["--runtime", "torch"], "--runtime: 'torch' does not run .onnx files"),
    ],
)
def test_what_an_exported_network_cannot_do(
    words: list[str], reason: str, onnx_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = make_photo(tmp_path / "photo.jpg")
    refused(capsys, "predict", photo, "--model", onnx_file, "--out", tmp_path / "out", *words, names=reason)
    assert not (tmp_path / "out").exists()


def test_an_export_that_cannot_start(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "taken.onnx"
    taken.write_bytes(b"mine")
    for words, reason in (
        (["--out", tmp_path / "x.xml"], "expected a name that ends in .onnx for --format onnx"),
        (["--out", tmp_path / "x.onnx", "--images", "nowhere"], "nowhere"),
        (["--out", taken], "exists already"),
        (["--format", "openvino"], "--out: is missing"),
    ):
        refused(capsys, "export", "--model", checkpoint, *words, names=reason)
    assert [path.name for path in tmp_path.iterdir()] == ["taken.onnx"]
    assert taken.read_bytes() == b"mine"


def test_several_labels_and_five_channels(tmp_path: Path) -> None:
    """Masks (B, K, H, W) of a graph that computes labels; images of 16 bits."""
    torch.manual_seed(0)
    taxonomy, pixels = Taxonomy(("a", "b", "c"), kind="multilabel"), PixelFormat.of_channels(5)
    network = filled(create_model("fcn32s_alexnet", 3, 5, tiny=True))
    source = Segmenter(Checkpoint(network, taxonomy, thresholds=(0.5, 0.4, 0.6), pixels=pixels), "five", device="cpu")
    done = export_segmenter(source, tmp_path / "x.onnx", format="onnx", output="labels")
    assert all(row.wrong == 0 for row in done.rows)
    exported = load_exported(tmp_path / "x.onnx")
    values = {entry.key: entry.value for entry in onnx.load(tmp_path / "x.onnx").metadata_props}
    assert json.loads(values["class_names"]) == {"0": "a", "1": "b", "2": "c"}
    assert json.loads(values["model_type"]) == "Segmentor"
    image = scene((40, 60), 5)
    found, probs = exported(image), source.predict(image, probs=True).probs
    assert probs is not None
    near = np.abs(probs - np.array(source.thresholds)[:, None, None]) < 1e-3
    assert found.mask.shape == (3, 40, 60)
    assert ((found.mask == source(image).mask) | near).all()
    with pytest.raises(InputError, match="computes labels, and no probabilities"):
        exported.predict(image, probs=True)


class Given:
    """A runtime that returns given scores."""

    name = "given"

    def __init__(self, scores: NDArray[np.float32], upsample: Upsample, taxonomy: Taxonomy) -> None:
        thresholds = tuple(np.linspace(0.2, 0.8, taxonomy.num_classes)) if taxonomy.multilabel else ()
        named = type(upsample).__name__, dict(vars(upsample))
        info = ExportInfo("x", "x", "0", "scores", 3, "uint8", taxonomy, RGB, named, thresholds)
        self.scores = scores[None]
        self.text: str | None = info.to_json()

    def run(self, images: NDArray[np.generic]) -> NDArray[np.generic]:
        return self.scores


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([Bilinear(), Bilinear(align_corners=True), AlignedBilinear(4), TransposedBilinear(8, 4, 2)]),
    st.integers(1, 5),
    st.tuples(st.integers(2, 6), st.integers(2, 6)),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_numpys_labels_and_probabilities_are_those_of_torch(
    upsample: Upsample, num_classes: int, low: tuple[int, int], multilabel: bool, seed: int
) -> None:
    names = tuple(f"class {k}" for k in range(num_classes))
    taxonomy = Taxonomy(names, kind="multilabel") if multilabel else Taxonomy(names)
    scores = np.random.default_rng(seed).normal(0, 3, (num_classes, *low)).astype(np.float32)
    size = 4 * low[0] - 3, 4 * low[1] - 4
    segmenter = ExportedSegmenter(Given(scores, upsample, taxonomy), "given")
    found = segmenter.predict(np.zeros((*size, 3), np.uint8), probs=True)
    low_res = LowResLogits(torch.from_numpy(scores)[None], upsample)
    assert found.probs is not None
    if multilabel:
        expected = class_probabilities(low_res, size)
        near = np.abs(expected - np.array(segmenter.thresholds)[:, None, None]) < 1e-5
        assert ((found.mask == masks_upsampled(low_res, size, segmenter.thresholds)) | near).all()
    else:
        expected = probabilities(low_res, size)
        np.testing.assert_array_equal(found.mask, argmax_upsampled(low_res, size))
    np.testing.assert_allclose(found.probs, expected, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"output": "masks"},
        {"input": "int4"},
        {"upsample": {"name": "Nearest"}},
        {"upsample": {"name": "Bilinear", "factor": 2}},
        {"taxonomy": {"classes": []}},
        {"thresholds": ["x"]},
        {"parity": 3},
        {"in_channels": None},
    ],
)
def test_a_damaged_description_is_refused(change: dict[str, Any]) -> None:
    text = Given(np.zeros((2, 1, 1), np.float32), Identity(), Taxonomy(("a", "b"))).text
    assert text is not None
    assert ExportInfo.from_json(text, "x").to_json() == text
    with pytest.raises(CheckpointError, match=r"^model\.onnx: "):
        ExportInfo.from_json(json.dumps({**json.loads(text), **change}), "model.onnx")
    with pytest.raises(CheckpointError, match="cannot be read"):
        ExportInfo.from_json(text[:-5], "model.onnx")


# --- every network, every format


def segmenter_of(name: str) -> Segmenter:
    """A small network with random weights, whose labels vary."""
    network = filled(create_model(name, 5, tiny=True))
    return Segmenter(Checkpoint(network, Taxonomy(tuple("abcde"))), name, device="cpu")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", list_models())
def test_every_network_exports(name: str, tmp_path: Path) -> None:
    source = segmenter_of(name)
    export_segmenter(source, tmp_path / "x.onnx", format="onnx")
    for runtime in ("onnxruntime", "openvino"):
        exported = load_exported(tmp_path / "x.onnx", runtime=runtime)
        for size in SIZES:
            assert_same_answers(source, exported, size)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name", ["compact", "fcn8s_vgg16", "unet", "unet_padded", "frrn_a", "deeplabv3plus_resnet50", "pspnet_resnet50"]
)
@pytest.mark.parametrize("format", ["onnx", "openvino", "torch"])
@pytest.mark.parametrize("output", ["logits", "labels"])
def test_every_format_and_output(name: str, format: str, output: Any, tmp_path: Path) -> None:
    source = segmenter_of(name)
    done = export_segmenter(source, tmp_path / f"x{SUFFIXES[format]}", format=format, output=output)
    exported = load_exported(done.files[-1])
    for size in SIZES:
        image = scene(size)
        probs = source.predict(image, probs=True).probs
        assert probs is not None
        second, first = np.partition(probs, -2, axis=0)[-2:]
        assert ((source(image).mask == exported(image).mask) | (first - second < 1e-3)).all()
