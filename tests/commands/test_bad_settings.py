"""Bad settings, classes and lists on the command line: one short line that names the place and says how to fix it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from helpers.command_line import refused
from helpers.tiny_data import write_dataset

# Each with what its line must hold; the line of the file where the fault can be located.
RUNS = {
    "[1]": "expected a mapping, got list",
    "hello": "expected a mapping, got str",
    "train: 3": "train: expected a mapping of options, got 3",
    "train:\n": "train: expected a mapping of options, got None",
    "train: {steps: 0}": "train.steps: must be >= 1 and < 2147483648, got 0",
    "train: {steps: 1.5}": "train.steps: expected an integer, got 1.5",
    "train: {steps: null}": "train.steps: expected an integer, got None",
    "train: {steps: 010}": "train.steps: expected an integer, got '010'",
    "train: {steps: 2001-99-99}": "train.steps: expected an integer, got '2001-99-99'",
    "train: {compile: yes}": "train.compile: expected true or false, got 'yes'",
    "train: {loggers: [3]}": "train.loggers: expected a list of strings, got [3]",
    "train: {null: 3}": "train.None: unknown setting",
    'train: {"\\e[2J": 1}': "train.\\x1b[2J: unknown setting",
    "train: {steps: 1, steps: 2}": "repeated key 'steps'",
    "train: {seed: 1}\ntrain: {steps: 2}": ":2: invalid YAML: repeated key 'train'",
    "a: 1\ntrain: {steps: !!int abc}": ":2: invalid YAML: tags such as !!int",
    "optimizer: {lr: .nan}": "optimizer.lr: must be finite, got nan",
    "optimizer: {lr: 1e-3x}": "optimizer.lr: expected a number, got '1e-3x'",
    "augment: {crop: [1, 2, 3]}": "augment.crop: expected 2 numbers, got [1, 2, 3]",
    "augment: {crop: abc}": "augment.crop: expected a list of integers, got 'abc'",
    "augment: {scale: [2, 1]}": "augment.scale: must be [low, high] with low <= high",
    "model: {options: 3}": "model.options: expected a mapping like {name: value}, got 3",
    "model: {name: 3}": "model.name: expected a string, got 3",
    "loss: {class_weights: [a]}": "loss.class_weights: expected one of none, log, inverse or a list of numbers",
    "a: &x [1]\nb: *x": ":2: invalid YAML: aliases are not allowed",
    "train: {steps: " + "9" * 5000 + "}\n": ":1: invalid YAML: '99999",
    "train: {steps: '" + "x" * 10**5 + "'}": "train.steps: expected an integer, got 'xxxxx",
    "a: " + "[" * 4000: "invalid YAML: nested too deeply",
    "a: b: c": "invalid YAML: mapping values are not allowed here",
    "a: 1\n\tb: 2": ":2: invalid YAML: found character '\\t'",
    "a: \0": "invalid YAML: the character '\\x00' is not allowed",
}
CLASSES = {
    "null": "has no list `classes`",
    "[a, b]": "expected a mapping, got list",
    "classes: 3": "has no list `classes`",
    "classes: [[a], b]": "class 0: expected a name, got ['a']",
    "classes: [1, 2]": "class 0: expected a name, got 1",
    "classes: ['', b]": "class 0 has the name ''",
    "classes: [a, {value: 3}]": "class 1: expected a name, got {'value': 3}",
    "classes: [{name: a, valeu: 3}]": "class 0: expected a name, got",
    "classes: [a, a]": "repeated name: a",
    "classes: [{name: a, value: 1}, b]": "repeated value: 1",
    "classes: [{name: a, value: -1}, b]": "values must be in 0..65535, the range of a 16-bit mask file, got -1",
    "classes: [a, b]\nignore: [70000]": "values must be in 0..65535, the range of a 16-bit mask file, got 70000",
    "classes: [{name: a, value: 010}, b]": "class 0: expected a color [r, g, b] of 0..255 and an integer value",
    "classes: [{name: a, color: [.inf, 0, 0]}, b]": "class 0: expected a color [r, g, b] of 0..255",
    "classes: [a, b]\nignore: [void]": "`ignore` must be integers, got ['void']",
    "classes: [a, b]\nignore: [1]": "value 1 is both a class and ignored",
    "classes: [a, b]\nignored: [3]": "unknown key 'ignored'",
    "classes: [a, b]\nignore_colors: [[1, 2, 3]]": "has ignore_colors, but its masks contain numbers",
    "masks: color\nclasses: [a, b]\nignore_colors: [[.inf, 0, 0]]": "expected ignore_colors as a list of [r, g, b]",
    "masks: [color]\nclasses: [a, b]": "expected masks: `value` or `color`, got ['color']",
    "classes: [a, b]\nclasses: [b, a]": ":2: invalid YAML: repeated key 'classes'",
    "classes: !!set {a, b}": "invalid YAML: tags such as !!set are not allowed",
    "classes: [{<<: {name: a}}, b]": "class 0: expected a name, got {'<<': {'name': 'a'}}",
    "a: 1\n---\nclasses: [a, b]": "invalid YAML: but found another document",
}


def assert_short(line: str, words: str) -> None:
    assert words in line
    assert re.fullmatch(r"error: [^;]+: .+; fix: .+", line), line
    assert len(line) < 400


@pytest.mark.parametrize("text", RUNS, ids=lambda text: text[:40])
def test_settings(text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    line = refused(capsys, "train", tmp_path / "run.yaml", "--print-config", names=tmp_path / "run.yaml")
    assert_short(line, RUNS[text])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("text", CLASSES, ids=lambda text: text[:40])
def test_classes(text: str, capsys: pytest.CaptureFixture[str], dataset: Path) -> None:
    (dataset / "classes.yaml").write_text(text)
    line = refused(capsys, "train", dataset, "--dry-run", names=dataset / "classes.yaml")
    assert_short(line, CLASSES[text])


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (b"train/p0\n\xff\n", "is not UTF-8 text (byte 9)"),
        (b"a b c\n", "expected `image mask`, got line 'a b c'"),
        (b"../../secret\n", "which is outside of the dataset"),
        (b"/etc/passwd\n", "which is outside of the dataset"),
        (b"gone\n", "gone"),
        (b"p0\x1b[2J\n", "p0\\x1b[2J"),
        (b"\n", "train"),
    ],
)
def test_lists(lines: bytes, words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    for kind in ("images", "masks"):
        for split in ("train", "val"):
            for file in sorted((root / kind / split).iterdir()):
                file.rename(root / kind / f"{split}_{file.name}")
            (root / kind / split).rmdir()
    (root / "val.txt").write_bytes("\ufeffval_p0\r\nval_p1 \r\n\r\n".encode())
    (root / "train.txt").write_bytes(lines)
    line = refused(capsys, "train", root, "--dry-run")
    assert_short(line, words)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes as POSIX knows them")
def test_texts_that_are_not_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A pipe that nobody writes to, an endless device and a link to nothing are named, neither read nor passed over."""
    root = write_dataset(tmp_path / "data")
    classes, names, run = root / "classes.yaml", root / "classes.txt", tmp_path / "run.yaml"
    classes.unlink()
    os.mkfifo(classes)
    assert f"{classes}: cannot be read: is not a regular file" in refused(capsys, "train", root, "--dry-run")
    classes.unlink()
    classes.symlink_to("gone.yaml")
    assert f"{classes}: cannot be read: No such file" in refused(capsys, "train", root, "--dry-run")
    classes.unlink()
    names.symlink_to("/dev/zero")
    assert f"{names}: cannot be read: is not a regular file" in refused(capsys, "train", root, "--dry-run")
    os.mkfifo(run)
    assert f"{run}: no such file" in refused(capsys, "train", run, "--print-config")
