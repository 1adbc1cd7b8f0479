"""The state file under cuts, flipped bits, kills and full disks: the one before is read, with a warning."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from pixelwise.errors import CheckpointError, ResourceError
from pixelwise.files import write_bytes
from pixelwise.train.state import (
    PREVIOUS,
    STATE,
    TrainingProgress,
    TrainingState,
    optimizer_tensors,
    read_newest_state,
    read_state,
    restore_optimizer,
    save_state,
)

SETTINGS = {"model": {"name": "compact"}}


def tensors(step: int) -> dict[str, torch.Tensor]:
    weight = torch.arange(60.0).reshape(3, 4, 5) * (step + 1)
    count = torch.tensor(step)
    return {
        "model.weight": weight,
        "model.count": count,
        "optimizer.0.exp_avg": weight / 3,
        "ema.b": weight.bfloat16(),
    }


def save(folder: Path, step: int) -> None:
    save_state(folder, tensors(step), TrainingProgress(step, 0.5, step, 2), SETTINGS)


def loaded(folder: Path) -> tuple[TrainingState, list[str]]:
    state, skipped = read_newest_state(folder)
    assert state is not None
    expected = tensors(state.progress.step)
    assert state.tensors.keys() == expected.keys()
    assert all(torch.equal(state.tensors[name], tensor) for name, tensor in expected.items())
    return state, skipped


def test_round_trip(tmp_path: Path) -> None:
    assert read_newest_state(tmp_path) == (None, [])
    for step in range(1, 5):
        save(tmp_path, step)
        state, skipped = loaded(tmp_path)
        assert (state.progress, state.settings, skipped) == (TrainingProgress(step, 0.5, step, 2), SETTINGS, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([STATE, PREVIOUS])
    assert read_state(tmp_path / PREVIOUS).progress.step == 3


def test_a_damaged_state_gives_way_to_the_one_before(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    whole = (tmp_path / STATE).read_bytes()
    damages = [whole[: len(whole) * n // 30] for n in range(30)]
    chance = random.Random(0)
    for _ in range(60):
        place = chance.randrange(8, len(whole))
        damages.append(whole[:place] + bytes([whole[place] ^ 1 << chance.randrange(8)]) + whole[place + 1 :])
    damages += [b"version https://git-lfs.github.com/spec/v1\n", bytes(len(whole)), whole + b"x"]
    for damaged in damages:
        (tmp_path / STATE).write_bytes(damaged)
        state, skipped = read_newest_state(tmp_path)
        assert state is not None
        if state.progress.step == 2:
            # Padding inside the header is the one place where a flipped bit can say nothing else.
            assert all(torch.equal(state.tensors[name], tensor) for name, tensor in tensors(2).items())
            continue
        assert loaded(tmp_path)[0].progress.step == 1
        assert len(skipped) == 1
        assert skipped[0].startswith(f"{tmp_path / STATE}: ")
    (tmp_path / STATE).write_bytes(whole[:-5])
    (tmp_path / PREVIOUS).write_bytes(b"")
    with pytest.raises(CheckpointError, match="contains no intact training state"):
        read_newest_state(tmp_path)


def test_other_numbers_under_a_valid_header_are_noticed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with safetensors.safe_open(tmp_path / STATE, "pt") as file:
        metadata = file.metadata()
    changed = tensors(1)
    changed["model.weight"][0, 0, 0] += 1
    safetensors.torch.save_file(changed, tmp_path / STATE, metadata)
    with pytest.raises(CheckpointError, match="differs from what was written"):
        read_state(tmp_path / STATE)
    progress = json.dumps({**json.loads(metadata["progress"]), "step": 7})
    safetensors.torch.save_file(tensors(1), tmp_path / STATE, {**metadata, "progress": progress})
    with pytest.raises(CheckpointError, match="differs from what was written"):
        read_state(tmp_path / STATE)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def test_a_kill_between_any_two_renames_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, left = os.replace, 0

    def replace_or_die(source: Any, target: Any) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_or_die)
    for allowed in range(3):
        folder = tmp_path / str(allowed)
        folder.mkdir()
        left = 99
        save(folder, 1)
        save(folder, 2)
        left = allowed
        with pytest.raises(Killed):
            save(folder, 3)
        # The new file is durable from the first rename on.
        assert loaded(folder)[0].progress.step == (3 if allowed else 2)
        left = 99
        save(folder, 4)
        assert loaded(folder)[0].progress.step == 4


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="fork and SIGKILL")
def test_killed_in_the_middle_of_saving(tmp_path: Path) -> None:
    """A process saves without pause and is killed at random moments: the newest state that it reported is there."""
    chance, lost = random.Random(1), 0
    for start in range(0, 40 * 10**6, 10**6):
        child = os.fork()
        if child == 0:
            # Later than all of the one before: killed between its first save and its report, it has lost nothing.
            for step in range(start + 1, start + 10**6):
                save(tmp_path, step)
                (tmp_path / "reported").write_text(str(step))
        time.sleep(chance.uniform(0.01, 0.2))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        text = (tmp_path / "reported").read_text() if (tmp_path / "reported").exists() else ""
        lost += bool(text) and loaded(tmp_path)[0].progress.step < int(text)
    assert lost == 0


@pytest.mark.skipif(sys.platform == "win32", reason="limits as POSIX knows them")
def test_a_full_disk_leaves_the_old_state(tmp_path: Path) -> None:
    """In a child process that may not write files of more than 900 bytes."""
    import resource

    save(tmp_path, 1)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))
        message = "no error"
        try:
            save(tmp_path, 2)
        except ResourceError as error:
            message = str(error)
        finally:
            os.write(writing, message.encode())
            os._exit(0)
    os.waitpid(child, 0)
    assert "File too large" in os.read(reading, 1000).decode()
    os.close(reading)
    os.close(writing)
    assert loaded(tmp_path)[0].progress.step == 1
    assert [path.name for path in tmp_path.iterdir()] == [STATE], "a part of the new file was left"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(ResourceError, match="cannot be written"):
            save(folder, 1)


def test_a_file_that_does_not_read_back_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)
    monkeypatch.setattr("pixelwise.train.state.write_bytes", lambda path, data: write_bytes(path, data[:-1]))
    with pytest.raises(ResourceError, match="did not read back"):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert loaded(tmp_path)[0].progress.step == 1
    assert [path.name for path in tmp_path.iterdir()] == [STATE]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_an_optimizer_continues_in_the_same_bits_and_strides(name: str) -> None:
    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        net = nn.Conv2d(4, 5, 3)
        net.weight.data = net.weight.data.contiguous(memory_format=torch.channels_last)
        if name == "sgd":
            return net, torch.optim.SGD(net.parameters(), 0.1, 0.9)
        return net, torch.optim.AdamW(net.parameters(), 0.1)

    def step(net: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        optimizer.zero_grad()
        net(torch.randn(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)).square().sum().backward()
        optimizer.step()

    whole, whole_optimizer = made()
    first, first_optimizer = made()
    for seed in range(2):
        step(whole, whole_optimizer, seed)
        step(first, first_optimizer, seed)
    written = {key: tensor.contiguous() for key, tensor in optimizer_tensors(first_optimizer).items()}
    stored = safetensors.torch.load(safetensors.torch.save(written))
    second, second_optimizer = made()
    second.load_state_dict(first.state_dict())
    restore_optimizer(second_optimizer, stored)
    rows = zip(whole_optimizer.state.values(), second_optimizer.state.values(), strict=True)
    assert all(a[key].stride() == b[key].stride() for a, b in rows for key in a if a[key].ndim == 4)
    for seed in range(2, 4):
        step(whole, whole_optimizer, seed)
        step(second, second_optimizer, seed)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))
