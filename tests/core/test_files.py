"""Files appear whole or not at all: under kill -9, on a full disk, without rights, and from several threads."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pixelwise.errors import ResourceError
from pixelwise.files import atomic_write, make_folder, sweep_temporaries, write_bytes, write_text

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
    left_behind = 0
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
        left_behind += len(list(tmp_path.iterdir())) - 1
        sweep_temporaries(tmp_path)
        assert list(tmp_path.iterdir()) == [path]
    assert left_behind, "no kill hit a write: the test has not tested anything"


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


def test_sweep_takes_only_what_the_dead_left(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead, alive = tmp_path / f".a.tmp-0123-{child.pid}", tmp_path / f".a.tmp-0123-{os.getpid()}"
    others = [tmp_path / name for name in (f"a.tmp-0-{child.pid}", ".a.tmp-0-x", ".gitignore", "a.bin")]
    for path in (dead, alive, *others):
        path.touch()
    assert sweep_temporaries(tmp_path) == [dead]
    assert sorted(tmp_path.iterdir()) == sorted([alive, *others])
    assert sweep_temporaries(tmp_path, is_alive=lambda pid: False) == [alive]
