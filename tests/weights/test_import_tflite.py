"""Google's quantized DeepLab v3 in `.tflite`, against a float reading of the same graph in NumPy; and files that are
damaged, malicious, or of another network.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.command_line import call, refused
from helpers.tflite_file import Graph, deeplab
from pixelwise import load
from pixelwise.data.formats.voc import TAXONOMY as VOC
from pixelwise.errors import CheckpointError, ConfigError, ResourceError
from pixelwise.weights.importing import import_model
from pixelwise.weights.importing.tflite import MAX_AXES, MAX_OPERATORS, MAX_TENSORS, read_tflite

RELU = 1  # of the schema's ActivationFunctionType


def tiny(seed: int = 0, **options: Any) -> Graph:
    """Return a graph of width 0.1 whose file has 130 KB."""
    defaults: dict[str, Any] = {"width_mult": 0.1, "head": 16, "num_classes": 5}
    return deeplab(np.random.default_rng(seed), **(defaults | options))


def write(folder: Path, graph: Graph, seed: int = 0) -> Path:
    path = folder / "x.tflite"
    path.write_bytes(graph.write(rng=np.random.default_rng(seed)))
    return path


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({"width_mult": 1.0, "head": 256, "num_classes": 21}, (16, 1.0, 1.0), id="width 1"),
        pytest.param({"width_mult": 0.5, "head": 256, "num_classes": 21}, (16, 0.5, 1.0), id="width 0.5"),
        pytest.param({"output_stride": 8, "per_channel": True, "labels": False}, (8, 0.1, 0.0625), id="per channel"),
        pytest.param({"pooling_first": False, "output_stride": 32}, (32, 0.1, 0.0625), id="pooling last"),
    ],
)
def test_logits_are_those_of_the_graph(tmp_path: Path, options: dict[str, Any], expected: tuple[float, ...]) -> None:
    """24 channels of width 1 are 12 at 0.5, not 16; the head keeps its 256 channels."""
    graph = tiny(1, **options)
    imported = import_model(write(tmp_path, graph))
    found = imported.spec.options
    assert (found["output_stride"], found["width_mult"], found["head_width_mult"]) == expected
    assert found["preprocessing"] == {"order": "rgb", "mean": [128.0] * 3, "std": [128.0] * 3}
    assert (imported.spec.name, imported.report.fresh, imported.model.training) == (
        "deeplabv3plus_mobilenetv2", (), False
    )  # fmt: skip
    image = np.random.default_rng(2).integers(0, 256, (33, 33, 3), dtype=np.uint8)
    reading = graph.run(image)[graph.scores]
    with torch.no_grad():
        logits = imported.model.forward_low_res(torch.from_numpy(image).permute(2, 0, 1)[None]).logits
    assert reading.std() > 0.1
    np.testing.assert_allclose(logits[0].permute(1, 2, 0).numpy(), reading, rtol=0, atol=2e-5 * np.abs(reading).max())
    convolutions = [operator for operator in graph.operators if "CONV" in operator.kind]
    assert len(convolutions) == 55
    held = [graph.tensors[i].values for operator in convolutions for i in operator.inputs[1:]]
    assert imported.report.num_values == sum(values.size for values in held if values is not None)
    assert len(imported.report.loaded) == 110


def test_the_command_gives_vocs_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without `--as`; a file of Google's name has its source and license in the card."""
    graph = tiny(3, num_classes=21, head=64)
    path = tmp_path / "deeplabv3_mnv2_dm05_pascal_quant.tflite"
    path.write_bytes(graph.write())
    image = np.random.default_rng(4).integers(0, 256, (33, 33, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "photo.png")
    assert call(capsys, "import", path, "--out", tmp_path / "m").code == 0
    predict = "predict", tmp_path / "photo.png", "--model", tmp_path / "m", "--out", tmp_path / "masks"
    assert call(capsys, *predict).code == 0
    labels = graph.run(image)[graph.outputs[0]].astype(np.uint8)
    assert len(np.unique(labels)) > 2
    found = np.asarray(Image.open(tmp_path / "masks" / "photo.png"))
    # Ties within the rounding of float32 may differ.
    assert (found == labels).mean() > 0.999
    assert load(tmp_path / "m").taxonomy == VOC
    card = (tmp_path / "m" / "README.md").read_text()
    assert all(words in card for words in ("Apache-2.0", "COCO", "mean IU 69.65 on VOC 2012 val", "google-coral"))


def first(graph: Graph, kind: str, **options: Any) -> None:
    graph.of_kind(kind)[0].options.update(options)


def unfused(graph: Graph) -> None:
    """Append an operator that no network of ours has."""
    graph.outputs = [graph.add("MUL", [graph.scores, graph.scores], graph.tensors[graph.scores].shape)]


def constant(graph: Graph, position: int, **fields: Any) -> None:
    """Change the weight (1) or bias (2) of the second convolution."""
    tensor = graph.tensors[graph.of_kind("CONV_2D")[1].inputs[position]]
    for name, value in fields.items():
        setattr(tensor, name, value)


def image(graph: Graph, **fields: Any) -> None:
    for name, value in fields.items():
        setattr(graph.tensors[graph.inputs[0]], name, value)


OTHER: dict[str, tuple[Callable[[Graph], object], str]] = {
    "a stride": (lambda g: first(g, "CONV_2D", StrideW=1), r"stride \(2, 2\), got \(2, 1\)"),
    "an output stride": (lambda g: first(g, "DEPTHWISE_CONV_2D", StrideH=3), "output stride of 8, 16 or 32, got 48"),
    "a dilation": (lambda g: g.of_kind("DEPTHWISE_CONV_2D")[-1].options.update(DilationHFactor=4), "dilation"),
    "an activation": (lambda g: first(g, "CONV_2D", FusedActivationFunction=RELU), "activation RELU6, got RELU"),
    "valid padding": (lambda g: first(g, "CONV_2D", Padding=1), "padding 0, got 1"),
    "a multiplier": (lambda g: first(g, "DEPTHWISE_CONV_2D", DepthMultiplier=2), "multiplier 1, got 2"),
    "corners": (lambda g: first(g, "RESIZE_BILINEAR", AlignCorners=False), "expected aligned corners"),
    "half pixels": (lambda g: first(g, "RESIZE_BILINEAR", HalfPixelCenters=True), "expected aligned corners"),
    "another axis": (lambda g: first(g, "CONCATENATION", Axis=1), "image pooling and 1x1 branch"),
    "one half twice": (
        lambda g: g.of_kind("CONCATENATION")[0].inputs.__setitem__(0, g.of_kind("CONCATENATION")[0].inputs[1]),
        "image pooling and 1x1 branch",
    ),
    "an activated sum": (lambda g: first(g, "ADD", FusedActivationFunction=RELU), "expected no activation"),
    "a far shortcut": (lambda g: g.of_kind("ADD")[2].inputs.__setitem__(1, g.inputs[0]), "expected a shortcut"),
    "no shortcut": (lambda g: g.operators.remove(g.of_kind("ADD")[0]), "expected one ADD that reads tensor"),
    "an operator more": (unfused, "operator 72 .MUL. without a place"),
    "no bias": (lambda g: g.of_kind("CONV_2D")[1].inputs.pop(), "expected more than 2 inputs"),
    "a bias left out": (lambda g: g.of_kind("CONV_2D")[1].inputs.__setitem__(2, -1), "expected more than 2 inputs"),
    "a computed bias": (lambda g: constant(g, 2, values=None), "expected quantized numbers, got INT32 without"),
    "float weights": (
        lambda g: constant(g, 1, type="FLOAT32"), "expected quantized numbers, got FLOAT32 without",
    ),
    "no scale": (lambda g: constant(g, 1, scale=(), zero_point=()), "expected quantized numbers, got UINT8"),
    "a scale beyond float": (lambda g: constant(g, 1, scale=(3e38,)), "not finite"),
    "another image": (lambda g: image(g, type="INT8"), "expected a quantized UINT8 image of 1xHxWx3, got INT8"),
    "gray images": (lambda g: image(g, shape=(1, 33, 33, 1)), "UINT8 image of 1xHxWx3, got UINT8 1x33x33x1"),
    "no labels": (lambda g: setattr(g, "outputs", [g.scores]), "expected the labels or the class scores"),
    "no pooling": (lambda g: setattr(g.of_kind("AVERAGE_POOL_2D")[0], "kind", "MUL"), "one image and one image pool"),
    "two images": (lambda g: g.inputs.append(g.inputs[0]), "one image and one image pooling"),
    "a wide pooling": (
        lambda g: setattr(g.tensors[g.of_kind("AVERAGE_POOL_2D")[0].outputs[0]], "shape", (1, 3, 3, 32)),
        "pooling to 1x1, got a map of 1x3x3x32",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHER)
def test_another_graph_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    change, words = OTHER[case]
    graph = tiny()
    change(graph)
    with pytest.raises(CheckpointError, match=words) as error:
        import_model(write(tmp_path, graph))
    assert "\n" not in str(error.value)
    assert "x.tflite: " in str(error.value)
    assert "; fix: " in str(error.value)


MALICIOUS: dict[str, tuple[Callable[[Graph], object], str]] = {
    "a version": (lambda g: setattr(g, "version", 4), "expected version 3 of TensorFlow Lite's schema, got 4"),
    "two graphs": (lambda g: setattr(g, "copies", 2), "expected one graph, got 2"),
    "no graph": (lambda g: setattr(g, "copies", 0), "expected one graph, got 0"),
    "a tensor": (lambda g: g.operators[5].inputs.__setitem__(1, 10**6), "operator 5: tensor: must be below"),
    "a negative tensor": (lambda g: g.operators[5].inputs.__setitem__(1, -2), "operator 5: tensor: must be below"),
    "an output": (lambda g: setattr(g, "outputs", [2**31 - 1]), "the graph: tensor: must be below"),
    "a buffer": (lambda g: image(g, buffer=2**32 - 1), "buffer: must be below 188, got 4294967295"),
    "a code": (lambda g: setattr(g.operators[5], "code", 77), "operator 5: code: must be below"),
    "options": (lambda g: setattr(g.operators[0], "options_type", "MulOptions"), "Conv2DOptions, got options of type"),
    "few bytes": (lambda g: constant(g, 1, data=bytes(7)), "expected the bytes of UINT8 .*, got 7 bytes"),
    "a huge shape": (lambda g: constant(g, 1, shape=(2**31 - 1,) * 4), "expected the bytes of UINT8"),
    "a negative shape": (lambda g: constant(g, 1, shape=(-2, -24, 1, 1)), "expected the bytes of UINT8"),
    "axes": (lambda g: image(g, shape=(1,) * (MAX_AXES + 1)), f"axes: must be at most {MAX_AXES}, got {MAX_AXES + 1}"),
    "scales": (lambda g: constant(g, 1, scale=(0.1,) * 3, zero_point=(0,) * 3), "positive scale .*, got 3 and 3"),
    "many scales": (lambda g: constant(g, 1, scale=(0.1,) * 10**5), "scales: must be at most"),
    "zero points": (lambda g: constant(g, 1, zero_point=(0, 0)), "positive scale .*, got 1 and 2"),
    "a scale of 0": (lambda g: constant(g, 1, scale=(0.0,)), "expected a positive scale"),
    "an infinite scale": (lambda g: constant(g, 1, scale=(float("inf"),)), "expected a positive scale"),
    "no number": (lambda g: constant(g, 1, scale=(float("nan"),)), "expected a positive scale"),
    "tensors": (lambda g: g.tensors.extend(g.tensors[-1:] * MAX_TENSORS), f"tensors: must be at most {MAX_TENSORS}"),
    "operators": (lambda g: g.operators.extend(g.operators[-1:] * MAX_OPERATORS), "operators: must be at most"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALICIOUS)
def test_a_malicious_file_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    change, words = MALICIOUS[case]
    graph = tiny()
    change(graph)
    with pytest.raises(CheckpointError, match=words) as error:
        read_tflite(write(tmp_path, graph))
    assert "\n" not in str(error.value)
    assert "; fix: " in str(error.value)


def test_a_network_beyond_any_published_width_is_not_built(tmp_path: Path) -> None:
    graph = tiny()
    pooling = graph.of_kind("AVERAGE_POOL_2D")[0].outputs[0]
    conv = next(operator for operator in graph.of_kind("CONV_2D") if operator.inputs[0] == pooling)
    weight = graph.tensors[conv.inputs[1]]
    weight.shape, weight.values = (1, 1, 1, 10**6), np.zeros((1, 1, 1, 10**6), np.uint8)
    with pytest.raises(CheckpointError, match="expected about 320 and 256 channels, got 1000000 and 1"):
        import_model(write(tmp_path, graph))


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    data = tiny().write()
    path = tmp_path / "x.tflite"
    for length in (1, 4, 7, 8, 20, *range(100, len(data), len(data) // 40), len(data) - 64):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"damaged: its tables do not fit|at byte 4 of|expected|must be"):
            import_model(path)


def test_flipped_bytes_are_refused_or_read(tmp_path: Path) -> None:
    """Offsets, lengths and numbers of any value: a graph, or one error of ours."""
    data = tiny().write()
    rng = np.random.default_rng(5)
    path = tmp_path / "x.tflite"
    outcomes = []
    for _ in range(50):
        damaged = bytearray(data)
        # The tables that the writer finishes last lie at the beginning of the file.
        at = int(rng.integers(8, 16_000) if rng.random() < 0.8 else rng.integers(8, len(data) - 4))
        damaged[at : at + 4] = rng.choice([0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 4]).astype("<u4").tobytes()
        path.write_bytes(damaged)
        try:
            outcomes.append(len(read_tflite(path).operators))
        except CheckpointError as error:
            outcomes.append(str(error).count("; fix: "))
    assert set(outcomes) <= {1, 72}
    assert outcomes.count(1) > 5


def test_other_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    for content, words in (
        (b"<html>", "is an HTML page"),
        (b"", "is empty"),
        (b"\0" * 99, "expected b'TFL3' at byte 4"),
        (b"\x18\0\0\0TFL3", "damaged: its tables do not fit into its 8 bytes"),
        (tiny().write(mark=b"TFL2"), "expected b'TFL3' at byte 4 of a TensorFlow Lite file, got b'TFL2'"),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=words):
            import_model(path)
    with pytest.raises(CheckpointError, match="cannot be opened"):
        import_model(tmp_path / "none.tflite")


def test_options_that_the_file_does_not_fit_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, tiny())
    for options, num_classes, words in (
        ({"decoder": True}, None, "missing"),
        ({"atrous": True}, None, "aspp.project.0: expected weight"),
        ({"width_mult": 0.5}, None, "features.0.0: expected weight"),
        ({"output_stride": 32}, None, "stride"),
        ({}, 21, "score: expected weight"),
    ):
        with pytest.raises(CheckpointError, match=words):
            import_model(path, num_classes=num_classes, options=options)
    with pytest.raises(CheckpointError, match="expected weight"):
        import_model(path, in_channels=4)
    with pytest.raises(ConfigError, match="fits deeplabv3plus_mobilenetv2 alone"):
        import_model(path, "fcn8s_vgg16")


def test_a_network_is_named_where_a_file_fits_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.pth")
    message = refused(capsys, "import", tmp_path / "x.pth", "--out", tmp_path / "m", names="--as: ")
    assert "files fit several networks" in message


def test_without_the_package_one_line_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tflite", None)
    with pytest.raises(ResourceError, match=r"^tflite: cannot be imported: .*fix: pip install 'pixelwise\[tflite\]'$"):
        import_model(write(tmp_path, tiny()))
