"""Files: whole or absent under kill -9, on a full disk, without rights and from several threads; and strict YAML."""

from __future__ import annotations

import os
import random
import re
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.errors import ConfigError, InputError, ResourceError
from pixelwise.files import (
    atomic_write,
    check_outputs,
    make_folder,
    new_folder,
    read_json,
    read_regular,
    sweep_temporaries,
    write_bytes,
    write_text,
)
from pixelwise.strict_yaml import parse_yaml, read_yaml, to_yaml

SIZE = 1_000_000
NOBODY = 65534

WRITE_FOR_EVER = f"""
import sys
from pixelwise.files import atomic_write
version = 0
while True:
    version = version % 250 + 1
    with atomic_write(sys.argv[1]) as file:
        for _ in range(10):
            file.write(bytes([version]) * {SIZE // 10})
    print(version, flush=True)
"""

WRITE_ON_A_FULL_DISK = f"""
import resource, sys
from pixelwise.errors import ResourceError
from pixelwise.files import write_bytes
write_bytes(sys.argv[1], b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, ({SIZE // 2}, {SIZE // 2}))
try:
    write_bytes(sys.argv[1], b"n" * {SIZE})
except ResourceError as error:
    print(error)
"""

WRITE_AS_NOBODY = f"""
import os, sys
from pixelwise.errors import ResourceError
from pixelwise.files import make_folder, write_bytes
if os.getuid() == 0:
    os.setuid({NOBODY})
for task in (lambda: write_bytes(sys.argv[1], b"new"), lambda: make_folder(os.path.dirname(sys.argv[1]))):
    try:
        task()
        print("done")
    except ResourceError as error:
        print(error)
"""

posix_only = pytest.mark.skipif(os.name == "nt", reason="limits and user ids are POSIX")


def run_python(program: str, path: Path) -> list[str]:
    child = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    return child.stdout.splitlines()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user can reach; pytest's own ones are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        yield Path(name)


def test_kill_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    path, dice = tmp_path / "weights.bin", random.Random(0)
    num_left = 0
    for _ in range(20):
        child = subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, str(path)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(dice.uniform(0, 0.02))
        child.kill()
        child.wait()
        child.stdout.close()
        data = path.read_bytes()
        assert len(data) == SIZE
        assert data == data[:1] * SIZE, "the file mixes two versions"
        num_left += len(list(tmp_path.iterdir())) - 1
        sweep_temporaries(tmp_path)
        assert list(tmp_path.iterdir()) == [path]
    assert num_left, "no kill hit a write: the test has not tested anything"


def test_an_error_in_the_block_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old ü")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write(b"new" + bytes([1 // 0]))
    assert path.read_text(encoding="utf-8") == "old ü"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_at_another_file_keeps_its_own_name(tmp_path: Path) -> None:
    path, other = tmp_path / "a.txt", tmp_path / "missing.txt"
    with pytest.raises(FileNotFoundError, match=r"missing\.txt"), atomic_write(path) as file:
        file.write(other.read_bytes())
    assert list(tmp_path.iterdir()) == []


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to("folder/b.txt")
    (tmp_path / "folder").mkdir()
    for text in ("new", "newer"):
        write_text(tmp_path / "a.txt", text)
        assert (tmp_path / "folder/b.txt").read_text() == text
    assert (tmp_path / "a.txt").readlink() == Path("folder/b.txt")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ResourceError, match="loop of links"):
        write_text(tmp_path / "loop", "x")
    assert (tmp_path / "loop").readlink() == Path("loop")
    with pytest.raises(ResourceError, match="folder: cannot be written"):
        write_text(tmp_path / "folder", "x")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.txt", "b.txt", "folder", "loop"]


@posix_only
def test_a_pipe_gets_the_bytes_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ResourceError, match="a pipe that a process reads from"):
        write_text(pipe, "nobody reads")
    with open(tmp_path / "read", "wb") as read, subprocess.Popen(["cat", str(pipe)], stdout=read):
        handle = os.open(pipe, os.O_WRONLY)  # waits until the reader has opened it, too
        write_text(pipe, "x" * 200_000)
        os.close(handle)
    assert (tmp_path / "read").read_bytes() == b"x" * 200_000
    assert pipe.is_fifo()


@pytest.mark.skipif(os.name == "nt" or os.getuid() != 0, reason="only root makes device nodes")
def test_a_device_node_stays_one(tmp_path: Path) -> None:
    for minor, name in ((7, "full"), (3, "null")):
        os.mknod(tmp_path / name, 0o600 | stat.S_IFCHR, os.makedev(1, minor))
    os.mknod(tmp_path / "disk", 0o600 | stat.S_IFBLK, os.makedev(7, 250))
    write_text(tmp_path / "null", "x")
    for name, words in (("full", "No space left on device|not permitted"), ("disk", "is a disk")):
        with pytest.raises(ResourceError, match=words):
            write_text(tmp_path / name, "x")
    assert all((tmp_path / name).is_char_device() for name in ("full", "null"))
    assert (tmp_path / "disk").is_block_device()


@posix_only
def test_the_file_of_standard_output_keeps_what_was_printed(tmp_path: Path) -> None:
    program = "import sys\nfrom pixelwise.files import write_text\nprint('first', flush=True)\n"
    program += "write_text('/dev/stdout', 'second\\n')\nprint('third')"
    with open(tmp_path / "log", "wb") as log:
        subprocess.run([sys.executable, "-c", program], stdout=log, check=True)
    assert (tmp_path / "log").read_text() == "first\nsecond\nthird\n"
    piped = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True)
    assert piped.stdout == b"first\nsecond\nthird\n"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["itself", "link", "hard link", "folder link", "link inside"])
def test_no_name_of_an_input_is_an_output(tmp_path: Path, kind: str, overwrite: bool) -> None:
    (tmp_path / "data").mkdir()
    source, out = tmp_path / "data/a.png", tmp_path / "out.png"
    source.write_bytes(b"photo")
    if kind == "itself":
        out = source
    elif kind == "link":
        out.symlink_to(source)
    elif kind == "hard link":
        out.hardlink_to(source)
    elif kind == "folder link":
        (tmp_path / "alias").symlink_to(tmp_path / "data")
        out = tmp_path / "alias/../data/a.png"
    else:
        # The dataset holds a link to the file, and a loop of folders.
        out.write_bytes(b"photo")
        (tmp_path / "data/b.png").symlink_to(out)
        (tmp_path / "data/loop").symlink_to(tmp_path / "data")
    read = tmp_path / "data/b.png" if kind == "link inside" else source
    for inputs in ([tmp_path / "data"], [None, "no such file", read]):
        with pytest.raises(InputError, match="would be written over"):
            check_outputs([tmp_path / "new", out], inputs=inputs, overwrite=overwrite)
    check_outputs([tmp_path / "data/new.png"], inputs=[tmp_path / "data"])
    with pytest.raises(InputError, match="would be written"):
        check_outputs([out], data=tmp_path / "data", overwrite=overwrite)


def test_existing_files_folders_and_the_data_are_no_outputs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"a: exists already \(2 such files\); fix: .*--overwrite"):
        check_outputs([tmp_path / "new", tmp_path / "a", tmp_path / "b"])
    check_outputs([tmp_path / "a"], overwrite=True)
    with pytest.raises(InputError, match="is a folder"):
        check_outputs([tmp_path], overwrite=True)
    (tmp_path / "alias").symlink_to(tmp_path)
    with pytest.raises(InputError, match="written into the data folder"):
        check_outputs([tmp_path / "alias/deep/new"], data=tmp_path, overwrite=True)


def test_new_folders_go_with_an_error_and_old_ones_stay(tmp_path: Path) -> None:
    def fail(folder: Path, kept: bool) -> None:
        with new_folder(folder):
            if kept:
                (folder / "kept").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail(tmp_path / "a/b/c", kept=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    with pytest.raises(ZeroDivisionError):
        fail(tmp_path / "a/b", kept=False)
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]
    with pytest.raises(ZeroDivisionError):
        fail(tmp_path / "a/b", kept=True)
    assert (tmp_path / "a/b/kept").is_file()


@posix_only
def test_a_full_disk_leaves_the_old_file_and_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    (line,) = run_python(WRITE_ON_A_FULL_DISK, path)
    assert line == f"{path}: cannot be written: File too large; fix: free space, or choose a writable folder"
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@posix_only
def test_a_folder_without_rights_is_said_in_one_line(open_folder: Path) -> None:
    path = open_folder / "a.bin"
    assert run_python(WRITE_AS_NOBODY, path) == ["done", "done"]
    path.write_bytes(b"old")
    os.chmod(open_folder, 0o555)
    assert run_python(WRITE_AS_NOBODY, path) == [
        f"{path}: cannot be written: Permission denied; fix: free space, or choose a writable folder",
        f"{open_folder}: cannot be used as a folder: Permission denied; fix: choose a writable folder",
    ]
    assert path.read_bytes() == b"old"
    assert list(open_folder.iterdir()) == [path]


def test_a_missing_folder_and_a_file_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="No such file or directory") as caught:
        write_bytes(tmp_path / "none" / "a.bin", b"new")
    assert caught.value.exit_code == 3
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(ResourceError, match=r"Not a directory|No such file"):
        write_bytes(tmp_path / "file" / "a.bin", b"new")
    with pytest.raises(ResourceError, match="cannot be used as a folder"):
        make_folder(tmp_path / "file")


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 125 + ".png")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


def test_threads_that_write_one_path_do_not_mix(tmp_path: Path) -> None:
    path, failures, start = tmp_path / "a.bin", list[BaseException](), threading.Barrier(4)

    def write(version: int) -> None:
        start.wait()
        try:
            for _ in range(20):
                with atomic_write(path) as file:
                    for _ in range(10):
                        file.write(bytes([version]) * 1000)
                data = path.read_bytes()
                assert data == data[:1] * 10_000
        except (AssertionError, ResourceError) as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(version,)) for version in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(tmp_path.iterdir()) == [path]


def test_make_folder_makes_parents_and_leaves_nothing_in_them(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert make_folder(folder) == folder
    assert list(folder.iterdir()) == []


def temporary(folder: Path, monkeypatch: pytest.MonkeyPatch, *, host: str, pid: int) -> Path:
    """Leave the temporary file of a writer with that host and process id that was killed."""
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    monkeypatch.setattr(os, "getpid", lambda: pid)
    writing = atomic_write(folder / f"{host} {pid}.bin")
    writing.__enter__()
    (path,) = [path for path in folder.iterdir() if path.name.startswith(f".{host} {pid}")]
    copy = path.read_bytes()
    writing.__exit__(None, None, None)
    (folder / f"{host} {pid}.bin").unlink()
    path.write_bytes(copy)
    monkeypatch.undo()
    return path


def test_sweep_takes_only_what_the_dead_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    here = socket.gethostname()
    dead = temporary(tmp_path, monkeypatch, host=here, pid=child.pid)
    alive = temporary(tmp_path, monkeypatch, host=here, pid=os.getpid())
    others = [tmp_path / name for name in (f"a.tmp-0-{child.pid}", ".a.tmp-0-x", ".gitignore", "a.bin")]
    for path in others:
        path.touch()
    assert sweep_temporaries(tmp_path) == [dead]
    assert sorted(tmp_path.iterdir()) == sorted([alive, *others])


def test_sweep_spares_young_files_of_another_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines write into one shared folder; process ids of one mean nothing on the other."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    young = temporary(tmp_path, monkeypatch, host="pod-a.local", pid=child.pid)
    without_host = tmp_path / f".a.bin.tmp-0a1b2c3d-{child.pid}"
    without_host.touch()
    hours = {temporary(tmp_path, monkeypatch, host=f"pod-{n}", pid=os.getpid()): n for n in (1, 23, 25, 100)}
    for path, age in hours.items():
        os.utime(path, (time.time() - 3600 * age,) * 2)
    left_over = [path for path, age in hours.items() if age > 24]
    assert sorted(sweep_temporaries(tmp_path)) == sorted(left_over)
    assert sorted(tmp_path.iterdir()) == sorted({young, without_host, *hours} - set(left_over))


@posix_only
def test_pipes_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "zero", "folder"):
        with pytest.raises(OSError, match="is not a regular file"):
            read_regular(tmp_path / name)
        with pytest.raises(ConfigError, match=f"{name}: cannot be read: is not a regular file"):
            read_yaml(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none")


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(2**42)
    with pytest.raises(OSError, match="is larger than 1 MiB"):
        read_regular(tmp_path / "sparse", 2**20)
    with pytest.raises(ConfigError, match="cannot be read: is larger than 16 MiB"):
        read_yaml(tmp_path / "sparse")
    (tmp_path / "full").write_bytes(bytes(2**20))
    assert read_regular(tmp_path / "full", 2**20) == bytes(2**20)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff" * 2**21, "not UTF-8 text (byte 0)"),
        (b"[" * 2**20, "nested too deeply"),
        (b"{" * 2**20, "Expecting property name"),
        (b"9" * 10_000, "Exceeds the limit"),
        (b"{} x" + b"x" * 2**20, "Extra data: line 1 column 4"),
        (b"", "Expecting value"),
    ],
)
def test_damaged_json_is_one_short_line(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_json(tmp_path / "a.json")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # YAML 1.1 reads these as other things: false, 8, 31, 1000, 90 and a date.
        ("no", "no"),
        ("on", "on"),
        ("010", "010"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2024-01-31", "2024-01-31"),
        # And this as text.
        ("1e-3", 0.001),
        ("5", 5),
        ("-5", -5),
        (".5", 0.5),
        ("1.", 1.0),
        ("'5'", "5"),
        ("true", True),
        ("~", None),
        ("", None),
        ("[a, {b: 1}]", ["a", {"b": 1}]),
        ("0", 0),
    ],
)
def test_yaml_takes_only_plain_numbers_and_booleans(text: str, value: Any) -> None:
    parsed = parse_yaml(text, "x")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  steps: [1\n", "run.yaml:3: invalid YAML: expected ',' or ']'"),
        ("train: {steps: 1\nx: 2\n", "run.yaml:2: invalid YAML: "),
        ("a: b: c\n", "run.yaml:1: invalid YAML: mapping values are not allowed here"),
        ("train:\n\tsteps: 1\n", "run.yaml:2: invalid YAML: found character"),
        ("a: 1\nb: {c: 1,\n c: 2}\n", "run.yaml:3: invalid YAML: repeated key 'c'"),
        ("a: 1\n\nb: 2\na: 3\n", "run.yaml:4: invalid YAML: repeated key 'a'"),
        ("a: &x [1]\nb: [*x, *x]\n", "run.yaml:2: invalid YAML: aliases are not allowed"),
        ("a: &a\n  b: *a\n", "run.yaml:2: invalid YAML: aliases are not allowed"),
        ("? [1]\n: 2\n", "run.yaml:1: invalid YAML: lists and mappings cannot be keys"),
        ("a: !!python/object/apply:os.getcwd []\n", "run.yaml:1: invalid YAML: tags such as !!python/object/"),
        ("a: " + "[" * 5000, "run.yaml: invalid YAML: nested too deeply"),
        ("a: 1\nb: " + "9" * 5000 + "\n", "run.yaml:2: invalid YAML: '99999"),
        ("a: 1\nb: !!int abc\n", "run.yaml:2: invalid YAML: tags such as !!int are not allowed; fix: leave the tag"),
        ("a: 1\nb: !!bool x\n", "run.yaml:2: invalid YAML: tags such as !!bool"),
        ("a: 1\nb: !!timestamp x\n", "run.yaml:2: invalid YAML: tags such as !!timestamp"),
        ("a: 1\nb: !mine x\n", "run.yaml:2: invalid YAML: tags such as !mine"),
        ("a: 1\nb: ! x\n", "run.yaml:2: invalid YAML: tags such as !"),
        ("a: 1\nb: !!set {x, y}\n", "run.yaml:2: invalid YAML: tags such as !!set"),
        ("a: 1\nb: x\x07\n", "run.yaml:2: invalid YAML: the character '\\x07' is not allowed; fix: remove it"),
        ("%YAML 9.9\n---\na: 1\n", "run.yaml:1: invalid YAML: found incompatible YAML document"),
        ("a: 1\n---\nb: 2\n", "run.yaml:2: invalid YAML: but found another document"),
        ("[1]", "run.yaml: expected a mapping, got list; fix: write `key: value` lines"),
    ],
)
def test_yaml_that_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_yaml("run.yaml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert "; fix: " in str(caught.value)
    assert len(str(caught.value)) < 300


def test_files_without_a_mapping(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file or directory"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match=r"bytes\.yaml:1: invalid YAML: not UTF-8 text \(byte 3\); fix: save the"):
        read_yaml(tmp_path / "bytes.yaml")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "empty.yaml") == {}
    (tmp_path / "bom.yaml").write_text("a: 1\n", encoding="utf-8-sig")
    assert read_yaml(tmp_path / "bom.yaml") == {"a": 1}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_one_line_of_yaml_is_read_back_by_us_and_by_yaml_1_1(value: Any) -> None:
    text = to_yaml(value)
    assert "\n" not in text
    assert parse_yaml(text, "x") == value
    assert yaml.safe_load(text) == value
