"""The reader of `.caffemodel` against protobuf itself, against made files, and against damage of every kind."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.caffe_file import blob, block, net, number, varint, write
from pixelwise.errors import CheckpointError
from pixelwise.weights.importing import caffemodel
from pixelwise.weights.importing.caffemodel import read_caffemodel

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(4, 3, 2, 5)).astype(np.float32)
BIAS = RNG.normal(size=4).astype(np.float32)
LAYERS = [("conv1", "Convolution", [WEIGHT, BIAS]), ("relu1", "ReLU", []), ("fc6/x", "InnerProduct", [WEIGHT[0, 0]])]


def refusal(tmp_path: Path, content: bytes) -> str:
    """The one line that reading `content` gives."""
    path = tmp_path / "made.caffemodel"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_caffemodel(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "; fix: " in message
    assert "\n" not in message
    return message


@pytest.fixture(scope="session")
def schema() -> SimpleNamespace:
    """The messages of caffe.proto that hold weights, built in protobuf: an engine of another hand."""
    descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
    descriptor_pool = pytest.importorskip("google.protobuf.descriptor_pool")
    message_factory = pytest.importorskip("google.protobuf.message_factory")
    kinds = {"float": 2, "double": 1, "int64": 3, "int32": 5, "string": 9, "enum": 5}

    def message(name: str, *fields: tuple[str, int, str, bool]) -> None:
        proto = file.message_type.add(name=name)
        for field, place, kind, repeated in fields:
            added = proto.field.add(name=field, number=place, label=3 if repeated else 1)
            added.type = kinds.get(kind, 11)
            if kind not in kinds:
                added.type_name = f".caffe.{kind}"
            if repeated and kind in ("float", "double", "int64"):
                added.options.packed = True

    file = descriptor_pb2.FileDescriptorProto(name="caffe_weights.proto", package="caffe", syntax="proto2")
    message("BlobShape", ("dim", 1, "int64", True))
    message(
        "BlobProto",
        *[(field, place, "int32", False) for place, field in enumerate(("num", "channels", "height", "width"), 1)],
        ("data", 5, "float", True),
        ("diff", 6, "float", True),
        ("shape", 7, "BlobShape", False),
        ("double_data", 8, "double", True),
    )
    message(
        "LayerParameter", ("name", 1, "string", False), ("type", 2, "string", False), ("blobs", 7, "BlobProto", True)
    )
    message(
        "V1LayerParameter", ("name", 4, "string", False), ("type", 5, "enum", False), ("blobs", 6, "BlobProto", True)
    )
    message(
        "NetParameter",
        ("name", 1, "string", False),
        ("layers", 2, "V1LayerParameter", True),
        ("input_dim", 4, "int32", True),
        ("layer", 100, "LayerParameter", True),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    get = message_factory.GetMessageClass
    return SimpleNamespace(net=get(pool.FindMessageTypeByName("caffe.NetParameter")))


@pytest.mark.parametrize("v1", [False, True])
def test_reads_what_protobuf_writes(tmp_path: Path, schema: SimpleNamespace, v1: bool) -> None:
    made = schema.net(name="net", input_dim=[1, 3, 224, 224])
    for name, kind, blobs in LAYERS:
        if v1:
            added = made.layers.add(name=name, type={"Convolution": 4, "InnerProduct": 14}.get(kind, 18))
        else:
            added = made.layer.add(name=name, type=kind)
        for values in blobs:
            held = added.blobs.add(data=values.ravel().tolist(), diff=[1.0, 2.0])
            if v1:
                axes = (1,) * (4 - values.ndim) + values.shape
                held.num, held.channels, held.height, held.width = axes
            else:
                held.shape.dim.extend(values.shape)
    path = tmp_path / "net.caffemodel"
    path.write_bytes(made.SerializeToString())
    layers = read_caffemodel(path)
    assert [layer.name for layer in layers] == ["conv1", "relu1", "fc6/x"]
    assert [layer.type for layer in layers] == ["Convolution", "type 18" if v1 else "ReLU", "InnerProduct"]
    for layer, (_, _, blobs) in zip(layers, LAYERS, strict=True):
        for read, values in zip(layer.blobs, blobs, strict=True):
            expected = (1,) * (4 - values.ndim) + values.shape if v1 else values.shape
            assert read.shape == expected
            np.testing.assert_array_equal(read.reshape(values.shape), values)


@pytest.mark.parametrize("v1", [False, True])
def test_protobuf_reads_what_the_tests_write(schema: SimpleNamespace, v1: bool) -> None:
    parsed = schema.net.FromString(net(LAYERS, v1=v1))
    held = (parsed.layers if v1 else parsed.layer)[0].blobs
    np.testing.assert_array_equal(np.float32(held[0].data), WEIGHT.ravel())
    np.testing.assert_array_equal(np.float32(held[1].data), BIAS)


@settings(max_examples=40, deadline=None)
@given(
    names=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), min_size=1, max_size=4, unique=True),
    shape=st.lists(st.integers(0, 4), max_size=4),
    double=st.booleans(),
    packed=st.booleans(),
)
def test_any_net_comes_back(names: list[str], shape: list[int], double: bool, packed: bool) -> None:
    values = np.arange(np.prod(shape, dtype=int), dtype=np.float64 if double else np.float32).reshape(shape)
    body = b"".join(block(100, block(1, name.encode()) + block(7, blob(values, packed=packed))) for name in names)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.caffemodel"
        path.write_bytes(body)
        layers = read_caffemodel(path)
        assert [layer.name for layer in layers] == names
        for layer in layers:
            assert layer.blobs[0].dtype == np.float32
            np.testing.assert_array_equal(layer.blobs[0], values)


def test_values_in_several_pieces_are_joined(tmp_path: Path) -> None:
    halves = b"".join(block(5, half.tobytes()) for half in (BIAS[:1], BIAS[1:]))
    held = block(7, block(1, varint(4))) + halves
    path = tmp_path / "x.caffemodel"
    path.write_bytes(block(100, block(1, b"a") + block(7, held)))
    np.testing.assert_array_equal(read_caffemodel(path)[0].blobs[0], BIAS)


def test_doubles_beyond_float32_become_infinite_without_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path / "x.caffemodel", [("a", "Convolution", [np.array([1e300, 2.0])])])
    assert read_caffemodel(path)[0].blobs[0].tolist() == [float("inf"), 2]


def test_values_stay_in_the_file(tmp_path: Path) -> None:
    blobs = read_caffemodel(write(tmp_path / "x.caffemodel", LAYERS))[0].blobs
    assert not any(b.flags.owndata or b.flags.writeable for b in blobs)


def test_every_cut_is_refused(tmp_path: Path) -> None:
    whole = net(LAYERS)
    path = tmp_path / "cut.caffemodel"
    between_layers = {len(net(LAYERS[:n])) for n in (1, 2)}
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        # Only a cut between two layers leaves a file that is whole in itself; the import misses the layers later.
        if length in between_layers:
            assert 0 < len(read_caffemodel(path)) < len(LAYERS)
        else:
            with pytest.raises(CheckpointError, match=re.escape(str(path))):
                read_caffemodel(path)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damage_never_escapes_as_another_error(data: st.DataObject) -> None:
    content = bytearray(net(LAYERS[1:], v1=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.caffemodel"
        path.write_bytes(bytes(content))
        with contextlib.suppress(CheckpointError):
            read_caffemodel(path)


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=1, max_size=60))
def test_noise_never_escapes_as_another_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.caffemodel"
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            read_caffemodel(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html></html>", "HTML page"),
        (b"\x89HDF\r\n\x1a\n0000", "HDF5"),
        (b"PK\x03\x04rest", "PyTorch"),
        (b'name: "VGG"\nlayer { }', "prototxt"),
        (b"", "is empty"),
        (b"\xff" * 11, "longer than 10 bytes"),
        (varint(100 << 3 | 2) + varint(2**62) + b"x", "the file is cut"),
        (varint(100 << 3 | 3), "wire type 3"),
        (varint(0) + varint(1), "field 0"),
        (number(100, 5), "wire type 0"),
        (net([("conv1", "Convolution", [])]), "no weights"),
        (net([LAYERS[0], LAYERS[0]]), "'conv1' has weights twice"),
        (block(100, block(1, b"\xff\xfe") + block(7, blob(BIAS))), "not UTF-8"),
        (block(100, block(1, b"a" * 2000) + block(7, blob(BIAS))), "got 2000 bytes"),
        (block(100, block(7, blob(BIAS))), "no name"),
        (block(2, block(1, block(1, b"conv1"))), "V0"),
        (
            block(100, block(1, b"a") + block(7, block(7, block(1, varint(9))) + block(5, BIAS.tobytes()))),
            "shape 9 has 4 values",
        ),
        (block(100, block(1, b"a") + block(7, block(7, block(1, varint(2**40) * 2)))), "1099511627776x1099511627776"),
        (block(100, block(1, b"a") + block(7, block(7, block(1, varint(1) * 40)))), "32 axes"),
        (block(100, block(1, b"a") + block(7, block(5, b"12345"))), "not a multiple of 4-byte"),
        (block(100, block(1, b"a") + block(7, number(5, 3))), "wire type 0"),
        (block(100, block(1, b"a") + block(7, block(5, BIAS.tobytes()))), "0x0x0x0 has 4 values"),
    ],
)
def test_wrong_files_are_called_by_their_name(tmp_path: Path, content: bytes, words: str) -> None:
    assert words in refusal(tmp_path, content)


def test_the_byte_is_named(tmp_path: Path) -> None:
    content = net(LAYERS[:1])
    assert f"of {len(content) - 3}: " in refusal(tmp_path, content[:-3])


def test_a_flood_of_fields_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caffemodel, "MAX_FIELDS", 100)
    assert "more than 100 fields" in refusal(tmp_path, number(4, 1) * 101)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for name, words in (("none.caffemodel", "cannot be opened"), (".", "not a regular file")):
        with pytest.raises(CheckpointError, match=words):
            read_caffemodel(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.caffemodel")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_caffemodel(tmp_path / "pipe.caffemodel")


def test_time_is_linear_in_the_number_of_layers(tmp_path: Path) -> None:
    """30,000 layers: a reader that looks for each name among all names would take minutes."""
    layer_count, started = 30_000, time.monotonic()
    content = b"".join(block(100, block(1, f"l{n}".encode()) + block(7, blob(BIAS[:1]))) for n in range(layer_count))
    assert "more than 100000 fields" in refusal(tmp_path, content)
    content = b"".join(block(100, block(1, f"l{n}".encode()) + block(7, blob(BIAS[:1]))) for n in range(10_000))
    (tmp_path / "made.caffemodel").write_bytes(content)
    assert len(read_caffemodel(tmp_path / "made.caffemodel")) == 10_000
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("axes", [[0, 2**63, 2**63], [0, 2**30, 2**30, 2**30], [2**62, 2**62], [0] + [2**31] * 31])
def test_shapes_beyond_any_array_are_refused(tmp_path: Path, axes: list[int]) -> None:
    shape = block(7, block(1, b"".join(varint(axis) for axis in axes)))
    assert "a blob of shape" in refusal(tmp_path, block(100, block(1, b"a") + block(7, shape)))
