"""Folders of images and data with odd names, links, pipes, lists and broken files, read and given to commands."""

from __future__ import annotations

import io
import os
import tempfile
import unicodedata
import zipfile
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fuzz.harness import MAX_LINE, Attempt
from fuzz.images import lossless, made_file
from fuzz.texts import labelmap, some_classes, yaml_bytes
from helpers.command_line import TAXONOMY, save_tiny
from pixelwise.cli import main
from pixelwise.data import open_dataset
from pixelwise.images import list_images, read_image

NAMES = (
    "a", "b", "a b", "é", "e\u0301", "-x", "--out", "..x", "x.", "con", "a\nb", "a\tb", "\x1b[2J", "\u202ex", "[bold]",
    "%s{0}", "*", "?", "x" * 240, "名" * 80, "\udcff", "A", ".hidden", "a;touch sentinel", "$HOME", "~", "'", '"',
    "a_overlay", "a_color", "0", "a.png",
)  # fmt: skip
ENDINGS = (".png", ".png", ".PNG", ".jpg", ".tif", ".bmp", ".webp", "", ".txt", ".png.png")
# What a command that reads a folder may take: Lightning and numba map large files when they are first imported.
COMMAND_MIB = 4096


class Streams(NamedTuple):
    """Exit code and both streams of a command."""

    code: int
    out: str
    err: str


def run_command(argv: list[str]) -> Streams:
    """Run a command in this process, and return what it has printed on the real streams."""
    start = os.lseek(1, 0, os.SEEK_END)
    before = os.dup(2)
    error_file = os.open("/dev/shm" if os.path.isdir("/dev/shm") else "/tmp", os.O_TMPFILE | os.O_RDWR)
    os.dup2(error_file, 2)
    try:
        code = main(argv)
    finally:
        os.dup2(before, 2)
        os.close(before)
    with os.fdopen(error_file, "rb") as file:
        file.seek(0)
        err = file.read().decode("utf-8", "surrogateescape")
    with open("/proc/self/fd/1", "rb") as file:
        file.seek(start)
        out = file.read().decode("utf-8", "surrogateescape")
    return Streams(code, out, err)


def judge_command(out: Path, done: Streams, *, existed: bool = False) -> None:
    """Assert what every command promises: an exit code, short printable lines, and nothing left by a refused one."""
    assert done.code in range(5), done
    assert "Traceback" not in done.out + done.err, done
    assert "pixelwise itself failed" not in done.err, done
    # No control characters, no marks that reorder or hide text.
    moving = {c for c in done.out + done.err if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert moving <= {"\n"}, (moving, done)
    errors = [line for line in done.err.split("\n") if line.startswith("error: ")]
    # A command over many files has a line for each that failed, and then exit code 1, or 2 if none was left.
    assert bool(errors) == (done.code > 0), done
    for line in errors:
        # The subject may be a path of several names of up to 255 bytes.
        assert len(line) < MAX_LINE + 700 or "write classes.yaml as" in line, (len(line), line)
        assert "; fix: " in line, line
    assert done.code < 2 or existed or not out.exists(), f"left {out}: {errors}"


@cache
def tiny_model() -> Path:
    """Return a checkpoint of the smallest network, in a folder that lasts as long as the process."""
    return save_tiny(Path(tempfile.mkdtemp(prefix="fuzz-model-", dir=os.getcwd())))


def add_file(rng: Random, path: Path) -> None:
    """Create something at a path: an image, whole or damaged, or what only has its name."""
    other = rng.choice(
        [*path.parent.iterdir(), Path("/dev/zero"), Path("nowhere"), path, path.parent, path.parent.parent]
    )
    match rng.randrange(14):
        case 0:
            path.symlink_to(other)
        case 1:
            os.mkfifo(path)
        case 2:
            path.mkdir()
        case 3 if other.is_file() and not other.is_symlink():
            os.link(other, path)
        case 4:
            path.write_bytes(b"")
        case 5:
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                archive.writestr("../../evil.png", b"x" * 999)
            path.write_bytes(buffer.getvalue())
        case 6 | 7 | 8:
            path.write_bytes(made_file(rng).data)
        case _:
            path.write_bytes(lossless(rng).data)


def fill(rng: Random, folder: Path, count: int) -> None:
    """Add files with odd names to a folder, some in folders of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(count):
        home = folder
        if rng.random() < 0.2:
            home = folder / rng.choice(NAMES)
            if not home.is_dir():
                if os.path.lexists(home):
                    continue
                home.mkdir()
        path = home / (rng.choice(NAMES) + rng.choice(ENDINGS))
        if not os.path.lexists(path) and len(os.fsencode(path.name)) < 256:
            add_file(rng, path)


def listing_case(rng: Random, folder: Path) -> Attempt:
    """List the images of a folder: regular files, each once, with the suffix of an image."""
    root = folder / "photos"
    fill(rng, root, rng.randrange(9))

    def judge(listing: Any) -> None:
        assert listing.images == sorted(set(listing.images))
        assert all(path.is_file() and not path.name.startswith(".") for path in listing.images)
        expected = {
            os.path.join(home, name)
            for home, folders, names in os.walk(root)
            for name in names
            if not any(part.startswith(".") for part in (*Path(home).relative_to(root).parts, name))
            and name.lower().endswith((".png", ".jpg", ".tif", ".bmp", ".webp"))
            and os.path.isfile(os.path.join(home, name))
        }
        assert expected <= set(map(str, listing.images))

    return Attempt(lambda: list_images(root), judge)


def predict_case(rng: Random, folder: Path) -> Attempt:
    """Label a folder: a mask of the right size for each image that can be read, and a line for each other one."""
    root, out = folder / "photos", folder / "out"
    fill(rng, root, rng.randrange(1, 5))
    existed = rng.random() < 0.2
    if existed:
        out.mkdir()
    extra = rng.choice(([], ["--overlay"], ["--color", "--probs"], ["--resume"], ["--overwrite"]))
    inputs = [str(root)] if rng.random() < 0.7 else [str(path) for path in root.iterdir()][:2]
    argv = ["predict", *inputs, "--out", str(out), "--model", str(tiny_model()), *extra]

    def judge(done: Streams) -> None:
        judge_command(out, done, existed=existed)
        if done.code > 1:
            return
        written = {path for path in out.rglob("*.png") if path.is_file()}
        colored = {path.with_name(f"{path.stem}_color.png") for path in written} if "--color" in extra else set()
        masks = written - colored
        sizes = []
        for path in masks:
            with Image.open(path) as mask:
                assert set(np.unique(np.asarray(mask))) <= {*TAXONOMY.values}, path
                sizes.append(mask.size)
        if inputs == [str(root)] and not any(link.is_symlink() for link in root.rglob("*")):
            readable = []
            for path in list_images(root).images:
                try:
                    readable.append(read_image(path).shape[1::-1])
                except Exception:  # noqa: BLE001, another kind of case looks at the errors
                    continue
            assert sorted(sizes) == sorted(readable), done

    return Attempt(partial(run_command, argv), judge, COMMAND_MIB)


def write_data(rng: Random, root: Path) -> None:
    """Write a dataset in the folder format, with what can be wrong in it."""
    for split in rng.choice((("train", "val"), ("train",), ("train", "val", "test"), ())):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for k in range(rng.randrange(1, 4)):
            name = rng.choice(NAMES)[:60] + str(k)
            size = rng.choice((1, 5, 40)), rng.choice((1, 6, 40))
            mask = (
                np.random.default_rng(rng.getrandbits(32)).integers(0, rng.choice((2, 3, 3, 4)), size).astype(np.uint8)
            )
            if rng.random() < 0.9:
                image = np.repeat(mask[..., None] * 60, 3, 2).astype(np.uint8)
                Image.fromarray(image).save(root / "images" / split / f"{name}.png")
            if rng.random() < 0.9:
                Image.fromarray(mask if rng.random() < 0.95 else mask.T).save(root / "masks" / split / f"{name}.png")
        if rng.random() < 0.2:
            fill(rng, root / rng.choice(("images", "masks")) / split, 2)
    for kind in ("images", "masks"):
        (root / kind).mkdir(exist_ok=True, parents=True)
    lines = (
        *NAMES,
        "images/a.png masks/a.png",
        "../x",
        "/etc/passwd",
        "/dev/zero",
        "a\tb\tc",
        "x" * 5000,
        "images/a.png",
        "\0",
    )
    for split in ("train", "val"):
        if rng.random() < 0.3:
            text = "\n".join(rng.choices(lines, k=rng.randrange(5)))
            (root / f"{split}.txt").write_bytes(text.encode("utf-8", "surrogateescape"))
    match rng.randrange(8):
        case 0:
            (root / "classes.yaml").write_bytes(yaml_bytes(rng, some_classes))
        case 1:
            (root / "labelmap.txt").write_text(labelmap(rng), encoding="utf-8")
        case 2:
            (root / "classes.txt").write_text("a\nb\nc\n")
        case 3:
            os.mkfifo(root / "classes.yaml")
        case _:
            (root / "classes.yaml").write_text("classes: [a, b, c]\n")


def dataset_case(rng: Random, folder: Path) -> Attempt:
    """Open a dataset and look at its files, or let `train --dry-run` do it."""
    root = folder / "data"
    root.mkdir()
    write_data(rng, root)
    if rng.random() < 0.85:

        def judge(dataset: Any) -> None:
            for split in dataset.splits.values():
                for item in split.items:
                    for path in (item.image, item.mask):
                        assert path is None or Path(os.path.normpath(path)).is_relative_to(root), path

        return Attempt(lambda: open_dataset(root), judge)
    argv = ["train", str(root), "--dry-run", "--model", "compact", "--model.options", "{channels: [8, 8, 8, 8]}"]
    return Attempt(partial(run_command, argv), partial(judge_command, folder / "out"), COMMAND_MIB)
