"""The command line: help for all, one readable line for every slip, and nothing that a shell does to us shows."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from helpers.command_line import call, files_below, refused, save_tiny
from helpers.papers import number
from helpers.tiny_data import tiny_config, write_dataset
from pixelwise.analysis.model_table import read_table
from pixelwise.cli import ALIASES, COMMANDS, describe, main
from pixelwise.config import Config
from pixelwise.errors import ImageError, Interrupted, PixelwiseError
from pixelwise.train.callbacks import silence_lightning
from pixelwise.train.run import train

DATA = Path(__file__).parents[1] / "samples"


def run(program: str, *arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter."""
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env=env, check=False)


@pytest.mark.parametrize("command", [*COMMANDS, *ALIASES["evaluate"]])
def test_every_command_has_help_with_a_sentence_for_each_option(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    result = call(capsys, command, "--help")
    assert result.code == 0
    assert result.err == []
    assert f"Usage: pixelwise {command}" in result.out
    for line in result.out.splitlines():
        option = re.match(r"│ \*? *(--[a-z-]+(?: [A-Z]+)?)(.*)│", line)
        if option and command != "train":
            assert re.search(r"[a-z]{2,}.*\.", option.group(2)), f"{option.group(1)} has no sentence"


def test_train_help_lists_every_setting(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    lines = call(capsys, "train", "--help").out.splitlines()
    for section, option, _ in Config().items():
        name, sentence = f"{section}.{option.name}", option.metadata["doc"]
        assert sentence.endswith("."), f"{name} has no sentence"
        assert any(line.startswith(f"--{name} ") and sentence in line for line in lines), name


def test_a_network_tells_of_its_paper_and_of_options_as_they_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    from pixelwise.models import MODELS

    for name in MODELS:
        page = call(capsys, "models", name).out
        assert MODELS[name].paper in page, name
        assert "Deviations:" in page, name
        rows = dict(
            line.split(maxsplit=1) for line in page.partition("\noption ")[2].partition("\n\n")[0].splitlines()[1:]
        )
        defaults = {option: parameter.default for option, parameter in MODELS[name].options.items()}
        for option in defaults.keys() - {"num_classes", "in_channels"}:
            default = defaults[option]
            assert yaml.safe_load(rows[option]) == (list(default) if isinstance(default, tuple) else default), (
                name,
                option,
            )


def test_a_network_tells_the_receptive_fields_of_its_paper(capsys: pytest.CaptureFixture[str]) -> None:
    """Table 1 of FCN has that of one position of fc7; a label is interpolated between several."""
    page = call(capsys, "models", "fcn8s_vgg16").out
    fc7 = number("VGG16 fc7", "receptive field")
    assert f"receptive field of a label: 468 px (one position of fc7 {fc7} px, pool4 100 px, pool3 44 px)" in page
    assert "one logit per 8 px; output stride 32" in page


def test_summaries_of_the_table_open_the_docstrings() -> None:
    import importlib

    for name, (target, summary) in COMMANDS.items():
        module, _, function = target.partition(":")
        docstring = getattr(importlib.import_module(f"pixelwise.commands.{module}"), function).__doc__
        assert docstring.strip()[0].isupper(), name
        assert summary.endswith("."), name


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["predcit"], ["predcit", "no such command", "did you mean predict"]),
        (["Train"], ["Train", "did you mean train"]),
        (["predict"], ["pixelwise predict: --out is missing; fix: add --out PATH", "pixelwise predict --help"]),
        (["predict", "--out", "x"], ["predict: no input"]),
        (["predict", "a", "--ou", "x"], ["unknown option: --ou", "Did you mean --out?"]),
        (["predict", "a", "--out"], ["--out: expected a value; fix: add --out PATH"]),
        (["predict", "a", "--out", "x", "--opacity"], ["--opacity: expected a value; fix: add --opacity VALUE"]),
        (["train", "--out", "x"], ["pixelwise train: SOURCE is missing; fix: add SOURCE"]),
        (["predict", DATA / "camvid", "--out", "x", "--model", "unet"], ["unet: is the name of a network"]),
        (["train", "nosuch"], ["no such recipe, file or folder; fix: see `pixelwise recipes`"]),
        (["models", "qqq"], ["qqq: no such model; fix: see `pixelwise models`"]),
        (["predict", "a", "--out", "x", "--opacity", "abc"], ["--opacity", '"abc"']),
        (["predict", "a", "--out", "x", "--opacity", "nan"], ["--opacity: must be between 0 and 1, got nan"]),
        (["predict", "a", "--out", "x", "--opacity", "-0.1"], ["--opacity"]),
        (["predict", "a", "--out", "x", "--opacity", "inf"], ["--opacity"]),
        (["predict", "a", "--out", "x", "--opacity", "1e999"], ["--opacity"]),
        (["predict", "a", "--out", "x", "--precision", "float8"], ["--precision", '"float8"', "bfloat16"]),
        (["predict", "a", "--out", "x", "--overlay=maybe"], ["--overlay", "maybe"]),
        (["predict", "gone\u2603.png", "--out", "x"], ["gone\u2603.png: does not exist"]),
        (["predict", "n" * 300, "--out", "x"], ["n" * 300]),
        (["models", "fcn8s_vg16"], ["fcn8s_vg16: no such model", "did you mean fcn8s_vgg16"]),
        (["models", "unet", "extra"], ["pixelwise models: unexpected argument extra"]),
        (["predict", DATA / "camvid", "--out", "x", "--options", "{a"], ["--options: invalid YAML: expected"]),
        (["predict", DATA / "camvid", "--out", "x", "--options", "8"], ["--options: expected a YAML mapping, got '8'"]),
        (
            ["evaluate", "--data", DATA / "camvid", "--options", "{atrous_rate: 8}"],
            ["compact", "'atrous_rate'", "mean atrous_rates"],
        ),
        (
            ["evaluate", "--data", DATA / "camvid", "--predictions", "x", "--options", "{a: 8}"],
            ["evaluate --options: --predictions are finished labels"],
        ),
        (["train"], ["SOURCE is missing"]),
        (["train", ""], ["SOURCE is empty"]),
        (["train", "compact_camvit"], ["compact_camvit", "did you mean compact_camvid"]),
        (["train", "gone.yaml"], ["gone.yaml: no such file"]),
        (["train", __file__], ["test_cli.py", "neither a folder nor a .yaml file"]),
        (["train", "compact_camvid", "--resum"], ["--resum", "did you mean --resume"]),
        (["train", "compact_camvid"], ["--data.path", "is not set"]),
        (["train", "compact_camvid", "--data.path", "gone", "--dry-run"], ["gone"]),
        (["train", DATA / "camvid"], ["--out: is not set"]),
        (["train", DATA / "camvid", "extra"], ["extra"]),
        (["recipes", "9" * 5000], ["unexpected argument 999", "9...; fix: see `pixelwise recipes --help`"]),
        (["predict", "a.jpg", "--out", "x", "--jobs" + "s" * 5000, "1"], ["sss...", "fix: "]),
        (
            ["train", DATA / "camvid", "--train.stps", "3"],
            ["--train.stps: unknown setting; fix: did you mean --train.steps"],
        ),
        (
            ["train", DATA / "camvid", "--tran.steps", "3"],
            ["--tran.steps: unknown setting; fix: did you mean --train.steps?"],
        ),
        (["train", DATA / "camvid", "--lr", "1"], ["--lr: unknown option", "fix: did you mean --optimizer.lr?"]),
        (["train", DATA / "camvid", "--output", "x"], ["--output: unknown option", "fix: did you mean --out?"]),
        (["train", "gone", "--epochs", "5"], ["--epochs: unknown option", "counted in steps, --train.steps"]),
        (["train", DATA / "camvid", "--train.steps"], ["--train.steps: expected a value"]),
        (["val", DATA / "camvid"], ["val: no such command; fix: type `pixelwise evaluate --data DATA --split val`"]),
        (["test", "--data", "x"], ["test: no such command; fix: type `pixelwise evaluate --data DATA --split test`"]),
        (["train", DATA / "camvid", "--train.steps", "many"], ["--train.steps: expected an integer, got 'many'"]),
        (["train", DATA / "camvid", "--train.steps", "[1"], ["--train.steps: invalid YAML: expected"]),
        (["train", DATA / "camvid", "--model", "fcn8s_vg16", "--out", "x"], ["fcn8s_vg16", "did you mean fcn8s_vgg16"]),
        (["train", DATA / "camvid", "--data.val_split", "vla", "--dry-run"], ["vla", "did you mean val"]),
        (
            ["train", DATA / "camvid", "--model.options", "{atrous_rate: 3}", "--model", "compact", "--dry-run"],
            ["'atrous_rate'", "atrous_rates"],
        ),
    ],
    ids=lambda value: " ".join(map(str, value))[-60:] if isinstance(value, list) else None,
)
def test_a_slip_is_one_line_that_names_it(
    argv: list[object],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, *argv)
    for word in words:
        assert word in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "per_step", "steps"),
    [([], 8, 3), (["--data.batch_size", "5"], 5, 4), (["--optimizer.grad_accum_steps=10"], 80, 1)],
)
def test_epochs_are_named_in_steps_of_this_data(
    options: list[str], per_step: int, steps: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(tmp_path / "data", num_train=20)
    line = refused(capsys, "train", data, "--epochs", "50", *options)
    assert f"20 images in steps of {per_step}: one epoch is {steps} step" in line
    assert f"so write --train.steps {steps} times the epochs" in line


@pytest.mark.parametrize("bad", ["-1", ".nan", "1e400", "☃", "[]"])
def test_every_option_takes_a_value_or_refuses_it_in_one_line(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0, or exit 2 and one line that names the option; text options take every value as typed."""
    for section, option, default in Config().items():
        name = f"{section}.{option.name}"
        result = call(capsys, "train", DATA / "camvid", "--model.name", "compact", "--print-config", f"--{name}", bad)
        if result.code == 0:
            assert not isinstance(default, float | int) or bad == "-1", f"--{name} {bad} was taken"
            assert not isinstance(default, str) or yaml.safe_load(result.out)[section][option.name] == bad
        else:
            assert result.code == 2
            assert result.err[-1].startswith(f"error: --{name}: "), result.err


def test_printed_configuration_fed_back_is_the_same_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = (
        "--train.steps",
        "7",
        "--augment.crop",
        "[64, 96]",
        "--model.options",
        "{width_mult: 0.5, a: [1, {b: 'x: # y'}]}",
    )
    named = ("--model", "compact", "--loss.class_weights", "[1, 2.5]")
    printed = call(capsys, "train", DATA / "camvid", "--print-config", *changes, *named).out
    (tmp_path / "c.yaml").write_text(printed, encoding="utf-8")
    assert call(capsys, "train", tmp_path / "c.yaml", "--print-config").out == printed
    config = Config.from_yaml(tmp_path / "c.yaml")
    assert config.train.steps == 7
    assert config.augment.crop == [64, 96]
    assert config.model.options == {"width_mult": 0.5, "a": [1, {"b": "x: # y"}]}
    assert config.to_yaml() == printed


def test_recipe_yaml_and_overrides_stack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("train: {steps: 5}\nmodel: {name: compact}\n")
    printed = yaml.safe_load(call(capsys, "train", tmp_path / "mine.yaml", "--print-config", "--train.seed=9").out)
    assert (printed["train"]["steps"], printed["train"]["seed"], printed["model"]["name"]) == (5, 9, "compact")
    recipe = yaml.safe_load(call(capsys, "train", "compact_camvid", "--print-config", "--model", "fcn32s_vgg16").out)
    assert recipe["optimizer"]["name"] == "adamw"
    assert recipe["model"]["name"] == "fcn32s_vgg16"


def two_class_set(folder: Path, values: str) -> Path:
    """Images with 0/255 masks, whose classes.yaml gives the second class `values`."""
    for part in ("train", "val"):
        for kind in ("images", "masks"):
            (folder / kind / part).mkdir(parents=True)
        for n in range(2):
            mask = np.zeros((32, 48), np.uint8)
            mask[8:20, 10:30] = 255
            # No two images are alike.
            image = np.random.default_rng([n, len(part)]).integers(0, 256, (32, 48, 3), np.uint8)
            Image.fromarray(image).save(folder / f"images/{part}/{part}{n}.png")
            Image.fromarray(mask).save(folder / f"masks/{part}/{part}{n}.png")
    (folder / "classes.yaml").write_text(values)
    return folder


@pytest.mark.parametrize("start", [["--dry-run"], ["--out", "run"]])
def test_0_255_masks_with_255_ignored_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], start: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = two_class_set(tmp_path / "data", "classes: [good, defect]\n")
    line = refused(
        capsys, "train", data, "--model", "compact", *start, names="did you mean class 'defect'? set `value: 255`"
    )
    assert f"{2 * 12 * 20} pixels are 255, which is ignored" in line
    assert not (tmp_path / "run").exists()


def test_0_255_masks_that_say_so_are_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = two_class_set(tmp_path / "data", "classes: [good, {name: defect, value: 255}]\n")
    result = call(capsys, "train", data, "--model", "compact", "--dry-run")
    assert result.code == 0
    assert result.err == []
    assert "ready to train" in result.out


def test_a_dry_run_that_skips_a_file_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_dataset(tmp_path / "data")
    (data / "images" / "train" / "p1.png").write_bytes(b"no image")
    options = "--model", "compact", "--train.on_read_error", "skip", "--dry-run"
    result = call(capsys, "train", data, *options)
    assert result.code == 0
    assert "skipped: p1" in result.err[0]
    assert "all images can be read" not in result.out
    assert "ready to train" in result.out


@pytest.mark.parametrize("end", [["--dry-run"], ["--out", "run", "--train.steps", "1"]])
def test_unreadable_test_images_are_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], end: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_dataset(tmp_path / "data")
    for kind in ("images", "masks"):
        shutil.copytree(data / kind / "val", data / kind / "test")
        for path in (data / kind / "test").iterdir():
            path.rename(path.with_stem(f"t{path.stem}"))
    for path in (data / "images" / "test").iterdir():
        Image.effect_noise((48, 32), len(path.stem) + ord(path.stem[-1])).convert("RGB").save(path)
    for k in (0, 2):
        (data / "images" / "test" / f"tp{k}.png").write_bytes(b"no image")
    (tmp_path / "tiny.yaml").write_text(tiny_config(data).to_yaml())
    result = call(capsys, "train", "tiny.yaml", *end)
    assert result.code == 0
    lines = [line for line in result.err if line.startswith("warning")]
    assert len(lines) == 1
    assert lines[0].startswith("warning: split test: 2 of 3 images cannot be read: tp0, tp2; the first: ")


def test_scores_come_with_the_warnings_about_their_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One mask of four in 0/255, where the others are in 0/1 and 255 is ignored: what training warns of, too."""
    data = two_class_set(tmp_path / "data", "classes: [good, defect]\n")
    for path in (data / "masks").rglob("*.png"):
        if path.stem != "val1":
            Image.fromarray(np.array(Image.open(path)) // 255).save(path)
    shutil.copytree(data / "masks" / "val", tmp_path / "predictions")
    Image.fromarray(np.zeros((32, 48), np.uint8)).save(tmp_path / "predictions" / "val1.png")
    scored = call(capsys, "evaluate", "--data", data, "--split", "val", "--predictions", tmp_path / "predictions")
    assert scored.code == 0
    warned = [line for line in scored.err if line.startswith("warning: split val: 1 of 2 masks contain 255")]
    assert len(warned) == 1
    assert "val1.png" in warned[0]
    trained = call(capsys, "train", data, "--model", "compact", "--dry-run")
    assert warned[0] in trained.err


def test_a_class_that_no_mask_holds_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = two_class_set(tmp_path / "data", "classes: [good, {name: defect, value: 255}, {name: crack, value: 9}]\n")
    result = call(capsys, "train", data, "--model", "compact", "--dry-run")
    assert result.code == 0
    assert result.err == ["warning: split train: no mask contains class 'crack'; it cannot be learned"]
    silence_lightning()
    train(tiny_config(data, train={"steps": 1}), tmp_path / "run")
    assert capsys.readouterr().err.splitlines() == result.err, "training from Python warns as well"


@pytest.mark.parametrize("end", [["--dry-run"], ["--out", "run"]])
def test_what_validation_needs_is_known_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], end: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_dataset(tmp_path / "data")
    (tmp_path / "run.yaml").write_text(tiny_config(data).to_yaml())
    shutil.copy(data / "images/train/p2.png", data / "images/val/p1.png")
    call_line = ["train", "run.yaml", "--train.steps", "1", *end]
    assert main(call_line) == 0
    err = capsys.readouterr().err
    assert "warning: splits train and val: 1 images have equal pixels in both: p2.png = p1.png;" in err
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    for path in (data / "masks/val").iterdir():
        Image.fromarray(np.full((32, 48), 255, np.uint8)).save(path)
    assert main(call_line) == 2
    assert "split val: every pixel of every mask is ignored" in capsys.readouterr().err
    (data / "masks/val/p0.png").write_bytes(b"")
    assert main(call_line) == 2
    assert "masks/val/p0.png" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("end", [["--dry-run"], ["--out", "run"]])
def test_a_torchvision_of_another_build_is_named(tmp_path: Path, end: list[str]) -> None:
    """As torchvision's own import does where its compiled part cannot be loaded, called by Lightning's."""
    (tmp_path / "lightning").mkdir()
    broken = 'raise RuntimeError("operator torchvision::nms does not exist")'
    (tmp_path / "lightning" / "__init__.py").write_text(broken)
    data = write_dataset(tmp_path / "data")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    words = [sys.executable, "-c", SHELL, "train", str(data), "--model", "compact", *end]
    result = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 3
    assert result.stderr.startswith("error: torchvision: was built for another torch")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="its sockets have no path")
def test_a_long_folder_for_temporary_files_is_no_obstacle(tmp_path: Path) -> None:
    config = tiny_config(write_dataset(tmp_path / "data"), data={"workers": 1}, train={"steps": 1})
    (tmp_path / "run.yaml").write_text(config.to_yaml())
    long = tmp_path / ("x" * 100) / ("y" * 60)
    long.mkdir(parents=True)
    words = [sys.executable, "-c", SHELL, "train", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run")]
    environment = {**os.environ, "TMPDIR": str(long)}
    result = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_dry_run_lists_every_file_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = two_class_set(tmp_path / "data", "classes: [good, {name: defect, value: 255}]\n")
    (data / "images/train/train0.png").write_bytes(b"")
    (data / "masks/val/val0.png").write_bytes(b"text, no mask")
    Image.fromarray(np.full((32, 48), 7, np.uint8)).save(data / "masks/val/val1.png")
    before = files_below(tmp_path)
    assert main(["train", str(data), "--dry-run", "--out", str(tmp_path / "run")]) == 2
    lines = capsys.readouterr().err.splitlines()
    for line, word in zip(lines, ("images/train/train0.png", "masks/val/val0.png", "masks/val/val1.png"), strict=False):
        assert line.startswith("error: ")
        assert word in line
    assert lines[3].startswith(f"error: {data}: 3 images or masks cannot be used")
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ImageError("a.png", "is cut", "copy it"), 2, "a.png: is cut; fix: copy it"),
        (Interrupted("run", "stopped", "go on"), 4, "run: stopped; fix: go on"),
        (PixelwiseError("x", "two\nlines", "\033[2Jone"), 2, "x: two lines; fix: \\x1b[2Jone"),
        (KeyboardInterrupt(), 4, "interrupted"),
        (MemoryError(), 3, "memory: "),
        (RuntimeError("could not create a primitive"), 3, "memory: "),
        (RuntimeError("operator torchvision::nms does not exist"), 3, "torchvision: was built for another torch"),
        (ValueError("embedded null byte"), 2, "path: contains a null character"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 3, "memory: "),
        (PermissionError(13, "no", "a.png"), 3, "a.png: Permission denied; fix: "),
        (OSError(28, "full", "a.png"), 3, "a.png: No space left"),
        (OSError(errno.ENAMETOOLONG, "long", "9" * 5000), 2, "9" * 97 + "...: File name too long; fix: check the path"),
        (FileNotFoundError(2, "no", "a.png"), 2, "a.png: No such file"),
        (OSError(24, "many"), 3, "open files: the limit of the system is reached; fix: raise it (`ulimit -n"),
        (RuntimeError("Too many open files. Communication with the"), 3, "open files: the limit"),
        (ZeroDivisionError("by\nzero"), 3, "pixelwise itself failed: ZeroDivisionError: by zero"),
        (ZeroDivisionError("x" * 10**6), 3, "pixelwise itself failed: ZeroDivisionError: xxxx"),
    ],
)
def test_errors_become_a_line_and_a_code(error: BaseException, code: int, words: str) -> None:
    line, got = describe(error)
    assert got == code
    assert line.startswith(words)
    assert "\n" not in line
    assert len(line) < 250


def test_names_cannot_move_the_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "predict", tmp_path / "a\x1b[2J\x07.png", "--out", tmp_path / "out")
    assert "\x1b" not in line
    assert r"a\x1b[2J\x07.png" in line


def test_names_of_files_in_a_table_cannot_move_the_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "in" / "a\x1b[2J.png")
    (tmp_path / "in" / "b\u202e.png").write_bytes(b"x")
    os.mkfifo(tmp_path / "in" / "c\x07.png")
    model = save_tiny(tmp_path / "model")
    result = call(capsys, "predict", tmp_path / "in", "--out", tmp_path / "out", "--model", model)
    text = result.out + "\n".join(result.err)
    assert all(c.isprintable() for line in text.split("\n") for c in line)
    assert all(name in text for name in (r"a\x1b[2J", r"b\u202e.png", r"c\x07.png: a named pipe"))
    assert (tmp_path / "out" / "a\x1b[2J.png").is_file()


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "gone.png", "--out", "x", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


SHELL = "from pixelwise.cli import run; run()"


@pytest.fixture(scope="module")
def labeled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shell")
    save_tiny(folder / "model")
    (folder / "in").mkdir()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(os.fsencode(folder / "in") + b"/\xff\xe2\x98\x83.png")
    return folder


def test_any_surroundings_will_do(labeled: Path, tmp_path: Path) -> None:
    """No home, no folder for temporary files, a narrow terminal that knows ASCII alone, a name that is no UTF-8."""
    poor = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "COLUMNS": "20", "TMPDIR": "/nowhere", "TERM": "dumb"}
    environment = {name: value for name, value in {**os.environ, **poor}.items() if name != "HOME"}
    result = run(
        SHELL, "predict", labeled / "in", "--out", tmp_path / "out", "--model", labeled / "model", env=environment
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert len(files_below(tmp_path / "out")) == 1
    assert "1 labeled" in " ".join(result.stdout.split())


# Each child writes to a pipe that nobody reads, and ends as the console script does; the parent prints its exit code.
READER_LEAVES = """
import os, sys
from pixelwise.cli import run
for command in sys.argv[1:]:
    pid = os.fork()
    if pid == 0:
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)
        sys.argv = ["pixelwise", *command.split()]
        run()
    print(command, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def test_a_reader_who_leaves_is_no_error() -> None:
    commands = ["--help", "recipes", "train --help", "train compact_camvid --print-config"]
    result = run(READER_LEAVES, *commands)
    assert result.stdout.splitlines() == [f"{command} 0" for command in commands]
    assert result.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_exit_3() -> None:
    arguments = [sys.executable, "-c", SHELL, "recipes"]
    with open("/dev/full", "w") as full:
        result = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True, timeout=100)
    assert result.returncode == 3
    assert re.fullmatch(r"error: .*No space left.*; fix: .*\n", result.stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("where", ["pipe", "full disk", "both streams"])
def test_a_training_goes_on_when_its_output_is_lost(tmp_path: Path, where: str) -> None:
    config = tiny_config(write_dataset(tmp_path / "data"))
    (tmp_path / "run.yaml").write_text(config.to_yaml())
    words = [sys.executable, "-c", SHELL, "train", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run")]
    reader, writer = os.pipe()
    os.close(reader)
    with open("/dev/full", "w") as full, os.fdopen(writer, "w") as broken:
        out = full if where == "full disk" else broken
        err = broken if where == "both streams" else subprocess.PIPE
        result = subprocess.run(words, stdout=out, stderr=err, text=True, timeout=300, check=False)
    assert result.returncode == 0
    # After six steps, the network may predict one class alone.
    assert [line for line in (result.stderr or "").splitlines() if not line.startswith("warning: after step")] == []
    assert (tmp_path / "run" / "report.html").exists()
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 1 + 6 + 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, file names are Unicode")
def test_names_that_are_not_utf8_train_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = os.fsdecode(b"caf\xe9")
    data = write_dataset(tmp_path / folder)
    for kind in ("images", "masks"):
        for part in ("train", "val"):
            (data / kind / part / "p0.png").rename(data / kind / part / os.fsdecode(b"p\xff.png"))
    names = '["\\ud800", disc, bar]'
    (data / "classes.yaml").write_text(f"classes: {names}\n")
    config = tiny_config(data)
    (tmp_path / "run.yaml").write_text(config.to_yaml())
    assert Config.from_yaml(tmp_path / "run.yaml") == config
    out = tmp_path / "run"
    assert main(["train", "run.yaml", "--out", f"{out}{folder}"]) == 2
    assert main(["train", "run.yaml", "--out", f"{out}\0"]) == 2
    assert main(["train", "run.yaml", "--out", str(out)]) == 0
    assert Config.from_yaml(out / "config.yaml") == config
    assert os.fsdecode(b"p\xff") in {image["key"] for image in json.loads((out / "scores.json").read_text())["images"]}
    assert main(["evaluate", "--data", str(data), "--model", str(out), "--split", "val", "--out", "scores.json"]) == 0


def test_closed_standard_streams_are_no_error(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(tiny_config(write_dataset(tmp_path / "data")).to_yaml())
    line = f'{sys.executable} -c "{SHELL}" train {tmp_path}/run.yaml --out {tmp_path}/run <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", line], timeout=300, check=False).returncode == 0
    assert (tmp_path / "run" / "report.html").exists()


def test_no_standard_output_at_all() -> None:
    result = subprocess.run(
        ["sh", "-c", f'{sys.executable} -c "{SHELL}" recipes >&-'], capture_output=True, text=True, timeout=100
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("columns", ["0", "1", "-5", "abc", ""])
def test_a_terminal_of_odd_width_gets_the_whole_text(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert "evaluate" in call(capsys, "--help").out
    assert "--overlay" in call(capsys, "predict", "--help").out
    assert "camvid" in call(capsys, "datasets").out


@pytest.mark.parametrize("name", sorted(read_table()))
def test_every_network_can_be_described(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "models", name)
    assert result.code == 0
    assert result.out.startswith(f"{name}: ")
