"""Checkpoints, training states, files of PyTorch, Caffe and TensorFlow Lite: damaged, mismatched, made to run code."""

from __future__ import annotations

import builtins
import io
import json
import os
import pickle
import struct
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import safetensors.torch
import torch

from fuzz.damage import EXTREMES, damaged
from fuzz.harness import Attempt
from fuzz.texts import json_bytes
from helpers.caffe_file import Layer, blob, block, net, number, varint
from helpers.command_line import TAXONOMY, save_tiny
from helpers.tflite_file import deeplab
from pixelwise.train.state import STATE, TrainingProgress, read_newest_state, save_state
from pixelwise.weights.checkpoint import CONFIG, WEIGHTS, load_checkpoint
from pixelwise.weights.importing import import_model
from pixelwise.weights.importing.load import read_weight_file

SENTINEL = "sentinel"


@cache
def checkpoint() -> dict[str, bytes]:
    """Return the files of a checkpoint of the smallest network."""
    with tempfile.TemporaryDirectory() as made:
        return {path.name: path.read_bytes() for path in save_tiny(Path(made)).iterdir()}


@cache
def state() -> bytes:
    """Return a training state."""
    tensors = {"model.weight": torch.arange(60.0), "ema.b": torch.ones(3).bfloat16(), "model.count": torch.tensor(7)}
    with tempfile.TemporaryDirectory() as made:
        save_state(Path(made), tensors, TrainingProgress(3, 0.5, 3, 2), {"model": {"name": "compact"}})
        return Path(made, STATE).read_bytes()


@cache
def quantized_deeplab() -> bytes:
    """Return Google's DeepLab v3 in TensorFlow Lite, as narrow as it can be."""
    return deeplab(np.random.default_rng(0), width_mult=0.1, head=16, num_classes=3).write()


def damaged_safetensors(data: bytes, rng: Random) -> bytes:
    """Return a safetensors file with changes in its header, of which the length is right, or anywhere."""
    if rng.random() < 0.4:
        return damaged(data, rng, [data])
    length = struct.unpack_from("<Q", data)[0]
    header = json_bytes(json.loads(data[8 : 8 + length]), rng)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def checkpoint_case(rng: Random, folder: Path) -> Attempt:
    """Load a checkpoint whose configuration or weights are damaged; whatever loads has the weights that were saved."""
    run = folder / "run"
    run.mkdir()
    files = dict(checkpoint())
    if rng.random() < 0.6:
        files[CONFIG] = json_bytes(json.loads(files[CONFIG]), rng)
    else:
        files[WEIGHTS] = damaged_safetensors(files[WEIGHTS], rng)
    if rng.random() < 0.1:
        # As after a kill in the middle of saving.
        name = rng.choice(sorted(files))
        files[f"new.{name}"] = files.pop(name)
    for name, data in files.items():
        (run / name).write_bytes(data)
    options = (
        None if rng.random() < 0.9 else {rng.choice(("output_stride", "channels", "num_classes")): rng.choice(EXTREMES)}
    )

    def judge(loaded: Any) -> None:
        saved = safetensors.torch.load(checkpoint()[WEIGHTS])
        found = loaded.model.state_dict()
        assert found.keys() == saved.keys()
        assert all(
            torch.equal(found[name], tensor.float() if tensor.is_floating_point() else tensor)
            for name, tensor in saved.items()
        )
        assert loaded.taxonomy.num_classes == TAXONOMY.num_classes

    return Attempt(lambda: load_checkpoint(run, options), judge)


def state_case(rng: Random, folder: Path) -> Attempt:
    """Read a damaged training state, with or without a whole one before it."""
    data = damaged_safetensors(state(), rng)
    (folder / STATE).write_bytes(data)
    has_previous = rng.random() < 0.5
    if has_previous:
        (folder / "previous.safetensors").write_bytes(state())

    def judge(found: tuple[Any, list[str]]) -> None:
        loaded, skipped = found
        assert loaded is not None
        assert loaded.progress == TrainingProgress(3, 0.5, 3, 2)
        assert loaded.tensors["model.weight"].tolist() == list(range(60))
        assert loaded.settings == {"model": {"name": "compact"}}
        assert all(len(line) < 400 for line in skipped)

    return Attempt(lambda: read_newest_state(folder), judge)


class Runs:
    """Pickled, it asks the reader to call a function."""

    def __init__(self, rng: Random, folder: Path) -> None:
        touch = f"touch {folder / SENTINEL}"
        self.call = rng.choice(
            (
                (os.system, (touch,)),
                (builtins.exec, (f"open({str(folder / SENTINEL)!r}, 'w')",)),
                (os.mkdir, (str(folder / SENTINEL),)),
            )
        )

    def __reduce__(self) -> Any:
        return self.call


def tensors(rng: Random) -> dict[str, torch.Tensor]:
    """Return a few named tensors of various types and shapes."""
    kinds = (torch.float32, torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8)
    found = {}
    for k in range(rng.randrange(1, 5)):
        shape = [rng.randrange(4) for _ in range(rng.randrange(4))]
        name = f"{rng.choice(('', 'module.', '_orig_mod.'))}layer{k}.{rng.choice(('weight', 'bias'))}"
        found[name] = torch.arange(int(np.prod(shape))).reshape(shape).to(rng.choice(kinds))
    return found


def torch_file(rng: Random, folder: Path, table: dict[str, torch.Tensor]) -> tuple[bytes, bool]:
    """Return a file of `torch.save`, and whether it is whole; empties the table if other tensors may be in the file."""
    buffer, content = io.BytesIO(), table
    hostile = rng.random() < 0.3
    if hostile:
        odd: Any = rng.choice((Runs(rng, folder), [table], {"state": table}, 5, {1: 2}, {"a": {"b": torch.ones(1)}}))
        content = odd if rng.random() < 0.5 else {**table, "x": odd}
    torch.save(
        content, buffer, _use_new_zipfile_serialization=rng.random() < 0.7, pickle_protocol=rng.choice((2, 3, 4))
    )
    data = buffer.getvalue()
    if hostile or rng.random() < 0.2:
        return data, not hostile
    if data.startswith(b"PK") and rng.random() < 0.5:
        table.clear()
        return damaged_zip(data, rng), False
    return damaged(data, rng, [data]), False


def damaged_zip(data: bytes, rng: Random) -> bytes:
    """Return a zip archive with damaged, missing, renamed, doubled or packed members, whose checksums are right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            body, name = old.read(info), info.filename
            match rng.randrange(12):
                case 0:
                    continue
                case 1 | 2:
                    body = damaged(body, rng)
                case 3 if "data.pkl" not in name:
                    name = rng.choice(("../../x", "/x", "archive/data/0", "x" * 300, "archive/data.pkl"))
                case 4:
                    body += bytes(rng.choice((1, 64, 10**6)))
            packing = zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED
            new.writestr(zipfile.ZipInfo(name), body, packing)
    return out.getvalue()


INSTRUCTIONS = (
    b"N", b"]", b"}", b"(", b"t", b"l", b"d", b"R", b"b", b"s", b"u", b"a", b"e", b"0", b"2", b"Q", b"\x81", b"\x93",
    b"\x85", b"K\5", b"j\xff\xff\xff\x7f", b"X\3\0\0\0abc", b"X\xff\xff\xff\x7f", b"\x8a\x08" + b"\x7f" * 8, b"q\0",
    b"h\0", b"I9\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n", b"cos\nsystem\n",
    b"cbuiltins\neval\n", b"ctorch\nFloatStorage\n", b"ctorch\nload\n", b"ctorch.nn.parameter\nParameter\n",
    b"cnumpy\nndarray\n",
)  # fmt: skip


def pickled(rng: Random, folder: Path) -> bytes:
    """Return random instructions of a pickle."""
    words = [*INSTRUCTIONS, f"V{folder / SENTINEL}\n".encode()]
    body = b"\x80\2" + b"".join(rng.choices(words, k=rng.randrange(1, 40))) + b"."
    if rng.random() < 0.5:
        return body
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", body)
        archive.writestr("archive/version", "3\n")
    return out.getvalue()


def caffe_net(rng: Random) -> bytes:
    """Return a net in protobuf: whole, with extreme sizes, or nested."""
    numbers = np.random.default_rng(rng.getrandbits(32))
    layers: list[Layer] = [
        (
            f"conv{k}",
            "Convolution",
            [numbers.random((2, 1, rng.randrange(1, 4), 3)), numbers.random(2).astype(np.float32)],
        )
        for k in range(rng.randrange(1, 4))
    ]
    data = net(layers, v1=rng.random() < 0.5)
    match rng.randrange(6):
        case 0:
            huge = block(
                7,
                block(
                    1, b"".join(varint(rng.choice(EXTREMES) * rng.choice((1, 2**20))) for _ in range(rng.randrange(6)))
                ),
            )
            data += block(100, block(1, b"x") + block(7, huge + block(5, bytes(4 * rng.randrange(4)))))
        case 1:
            data += b"".join(
                number(rng.randrange(1, 120), rng.choice(EXTREMES)) for _ in range(rng.choice((1, 200_000)))
            )
        case 2:
            deep = b""
            for _ in range(rng.choice((10, 2000))):
                deep = block(rng.choice((7, 100)), deep)
            data += deep
        case 3:
            data += block(
                100, block(1, rng.choice((b"conv0", b"\xff", b"", b"x" * 5000))) + block(7, blob(numbers.random(3)))
            )
    return data


def foreign_case(rng: Random, folder: Path) -> Attempt:
    """Open a weight file of another project; what opens has the arrays that were saved."""
    table: dict[str, torch.Tensor] = {}
    is_good = False
    match rng.randrange(7):
        case 0 | 1:
            table = tensors(rng)
            data, is_good = torch_file(rng, folder, table)
            name = "x.pth"
        case 2:
            data, name = pickled(rng, folder), rng.choice(("x.pth", "x.bin", "x.safetensors"))
        case 3:
            table = tensors(rng)
            data, name = damaged_safetensors(safetensors.torch.save(table), rng), "x.safetensors"
            table = {}
        case 4:
            data, name = caffe_net(rng), "x.caffemodel"
            data = damaged(data, rng, [data]) if rng.random() < 0.6 else data
        case 5:
            # Most damage lies in the first tables: the model, its graph and its operators.
            data, name = quantized_deeplab(), "x.tflite"
            length = rng.choice((200, 16_000, len(data)))
            data = damaged(data[:length], rng, [data]) + data[length:]
        case _:
            heads = (
                b"\x89HDF\r\n\x1a\n",
                b"PK\3\4",
                b"\x1f\x8b\x08",
                b"name: 'x'",
                b"<html>",
                b"\x80\2",
                pickle.dumps({}),
                b"",
            )
            data, name = (
                rng.choice(heads) + rng.randbytes(rng.randrange(1, 99)),
                rng.choice(("x.pth", "x.caffemodel", "x.h5")),
            )
    path = folder / name
    path.write_bytes(data)

    def act() -> dict[str, Any]:
        if name == "x.tflite":
            return dict(import_model(path).report.dropped)
        if rng.random() < 0.1:
            import_model(path, "torchvision_lraspp_mobilenet_v3_large" if name != "x.caffemodel" else "fcn32s_alexnet")
        return {key: array.read() for key, array in read_weight_file(path).arrays.items()}

    def judge(found: dict[str, torch.Tensor]) -> None:
        assert not (folder / SENTINEL).exists()
        if table and (is_good or data.startswith(b"PK")):
            bare = {key.replace("_orig_mod.", "").removeprefix("module."): t for key, t in table.items()}
            for key, array in found.items():
                same = bare.get(key.removeprefix("module."))
                assert same is not None or not is_good, key
                assert same is None or torch.equal(array, same), key

    return Attempt(act, judge)
