"""No name moves the cursor of a terminal, whichever command prints it: files, classes, settings, checkpoints."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.command_line import save_tiny
from helpers.terminal import run_on_terminal
from helpers.tiny_data import TINY_COMPACT
from pixelwise.cli import main
from pixelwise.core import Taxonomy
from pixelwise.errors import InputError, printable

# Colors, title and bell of a terminal; return and line feed; a C1 control; a bidirectional override; half a surrogate.
EVIL = "a\x1b[31m\x1b]0;t\x07\r\nb\x9b2J\u202ec\u2066\u200bd"
NO_UTF8 = os.fsdecode(b"\xff\xfe")
CLASSES = Taxonomy((f"ground{EVIL}", f"disc{EVIL}", "bar\ud800"), ((0, 0, 0), (200, 0, 0), (0, 0, 255)))


def moving(text: str) -> set[str]:
    """Return the characters that a terminal obeys or hides, by their category in Unicode; line breaks are ours."""
    return {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, a dataset and an image whose names, and those of their classes, are hostile."""
    folder = tmp_path_factory.mktemp("printed")
    save_tiny(folder / f"model{EVIL}", CLASSES)
    rng = np.random.default_rng(0)
    name = f"{EVIL}{NO_UTF8}.png"
    for split in ("train", "val", f"test{EVIL}"):
        for kind in ("images", "masks"):
            (folder / "data" / kind / split).mkdir(parents=True)
        for number in range(2):
            image = Image.fromarray(rng.integers(0, 256, (32, 48, 3), np.uint8))
            image.save(folder / "data/images" / split / f"{number}{name}")
            mask = Image.fromarray(rng.integers(0, 2, (32, 48), np.uint8))
            mask.save(folder / "data/masks" / split / f"{number}{name}")
    rows = {"classes": [*CLASSES.names[:2], "bar"]}
    (folder / "data/classes.yaml").write_text(json.dumps(rows))
    (folder / f"photo{name}").write_bytes((folder / f"data/images/val/0{name}").read_bytes())
    (folder / "bad").mkdir()
    for number in range(3):
        (folder / f"bad/{number}{name}").write_bytes(b"no image")
    (folder / f"bad/{EVIL}.txt").write_text("no image")
    (folder / "bad/good.png").write_bytes((folder / f"photo{name}").read_bytes())
    return folder


COMMANDS = {
    "check": ["check", "{data}", "--out", "{out}.html", "--fix", "{out}"],
    "predict": ["predict", "{photo}", "{bad}", "--out", "{out}", "--model", "{model}", "--overlay"],
    "demo": ["demo", "{bad}", "--out", "{out}", "--model", "{model}"],
    "evaluate": ["evaluate", "--data", "{data}", "--split", f"test{EVIL}", "--model", "{model}", "--out", "{out}.json"],
    "evaluate another split": ["evaluate", "--data", "{data}", "--split", f"tset{EVIL}", "--model", "{model}"],
    "compare": ["compare", "{photo}", "--model", "{model}", "--out", "{out}.png"],
    "explain": ["explain", "{photo}", "--model", "{model}", "--out", "{out}"],
    "explain a class": ["explain", "{photo}", "--model", "{model}", "--out", "{out}", "--class", f"dics{EVIL}"],
    "explain a layer": ["explain", "{photo}", "--model", "{model}", "--out", "{out}", "--layer", EVIL],
    "profile": ["profile", "{model}/none"],
    "import": ["import", "{photo}", "--as", "fcn8s_vgg16", "--out", "{out}"],
    "report": ["report", "{model}"],
    "models": ["models", EVIL],
    "a command": [EVIL],
    "an option": ["predict", "{photo}", f"--out{EVIL}", "x"],
    "a recipe": ["train", EVIL],
    "a setting": ["train", "{data}", f"--train.steps{EVIL}", "3"],
    "a value": ["train", "{data}", "--optimizer.name", EVIL],
    "print-config": ["train", "{data}", "--print-config", "--data.train_split", EVIL],
    "train": [
        "train", "{data}", "--out", "{out}", "--model", "compact", "--model.options", json.dumps(TINY_COMPACT),
        "--train.steps", "1", "--augment.crop", "[32, 48]", "--data.batch_size", "2", "--data.workers", "0",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_prints_a_character_that_a_terminal_obeys(
    name: str, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    places = {
        "{photo}": folder / f"photo{EVIL}{NO_UTF8}.png",
        "{bad}": folder / "bad",
        "{data}": folder / "data",
        "{model}": folder / f"model{EVIL}",
        "{out}": tmp_path / f"out{EVIL}",
    }
    words = COMMANDS[name]
    for place, path in places.items():
        words = [word.replace(place, str(path)) for word in words]
    assert main(words) in range(5)
    out, err = capfd.readouterr()
    assert not moving(out + err), out + err
    assert "itself failed" not in err
    # The second one is how YAML writes it.
    assert r"\x1b" in out + err or r"\e" in out + err, "the test shows nothing: no hostile name was printed"


def test_a_terminal_gets_no_sequence_from_a_name(folder: Path, tmp_path: Path) -> None:
    """On a terminal, rich writes sequences of its own: colors and cursor of the bar, but no title, bell or C1."""
    argv = ["predict", str(folder / "bad"), "--out", str(tmp_path / "out"), "--model", str(folder / f"model{EVIL}")]
    program = f"import sys; from pixelwise.cli import main; sys.exit(main({argv!r}))"
    code, text = run_on_terminal([sys.executable, "-c", program])
    assert code == 1
    assert b"1 labeled into" in text
    for sequence in (b"\x1b]0;", b"\x1b[31m", b"\x07", "\x9b".encode(), "\u202e".encode()):
        assert sequence not in text
    assert rb"\x1b]0;t\x07\r\nb\x9b2J\u202ec\u2066\u200bd" in text.replace(b"\r\n", b"")


def test_an_error_is_printable_wherever_it_is_printed() -> None:
    assert str(InputError(EVIL, EVIL, EVIL)).isprintable()
    assert str(InputError("a\nb", "c", "d")) == r"a\nb: c; fix: d"
    assert printable("é 漢 👍\u0301 \xa0\t\n", keep="\t") == "é 漢 👍\u0301 \xa0\t\\n"
