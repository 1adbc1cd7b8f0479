"""The loader: what draw number n shows depends on seed and n alone, in whichever process it is made."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from helpers.tiny_data import NAMES, write_dataset
from pixelwise.config import AugmentConfig
from pixelwise.core import Batch, Sample, Taxonomy
from pixelwise.data import open_dataset
from pixelwise.data.border_weights import border_weights, label_instances
from pixelwise.data.dataset import Item, Split
from pixelwise.data.loader import (
    AugmentedDataset,
    ResumableBatchSampler,
    TrainingSample,
    TrainLoader,
    collate,
    draw_index,
)
from pixelwise.data.transforms import XY, Augment
from pixelwise.data.windows import window_centers, window_starts
from pixelwise.data.workers import WorkerInit
from pixelwise.errors import DatasetError, ImageError, InputError, ResourceError

STRONG = AugmentConfig(crop=[16, 20], rotate=20, brightness=0.3, hue=20, class_balanced_prob=0.5, context_px=6)


class Numbers(Split):
    """A split without files: image k is full of k; those in `broken` cannot be read."""

    def __init__(self, count: int, broken: Sequence[int] = ()) -> None:
        items = [Item(f"p{k}", Path(f"p{k}.png"), Path(f"m{k}.png")) for k in range(count)]
        super().__init__("train", items, Taxonomy(NAMES))
        self.broken = broken
        self.reads: Counter[int] = Counter()

    def __getitem__(self, index: Any) -> Any:
        self.reads[index] += 1
        if index in self.broken:
            raise ImageError(self.items[index].image, "is cut", "export it again")
        return Sample(self.items[index].key, np.full((4, 5, 3), index, np.uint8), np.zeros((4, 5), np.uint8))


def keep(
    image: NDArray[np.uint8], mask: NDArray[Any], rng: np.random.Generator, center: XY | None = None
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    return image, mask


def batches_of(split: Split, workers: int, seed: int = 3, stop: int = 6) -> list[Batch]:
    """Batches with everything that a worker makes: context, ClassMix and border weights."""
    dataset = AugmentedDataset(split, Augment(STRONG, 255), seed=seed, classmix_prob=0.5, border_weight=10.0)
    return list(TrainLoader(dataset, ResumableBatchSampler(0, stop, batch_size=2), workers))


def test_workers_change_nothing(tmp_path: Path) -> None:
    split = open_dataset(write_dataset(tmp_path, num_train=5)).split("train")
    runs = [batches_of(split, workers) for workers in (0, 1, 2)]
    assert [len(run) for run in runs] == [6, 6, 6]
    for one, *others in zip(*runs, strict=True):
        for other in others:
            assert one.keys == other.keys
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.masks, other.masks)
            assert one.pixel_weights is not None
            assert other.pixel_weights is not None
            assert torch.equal(one.pixel_weights, other.pixel_weights)
    batch = runs[0][0]
    assert (batch.images.dtype, batch.masks.dtype) == (torch.uint8, torch.uint8)
    assert batch.images.shape == (2, 3, 16 + 2 * 6, 20 + 2 * 6)
    assert batch.masks.shape == (2, 16, 20)


def test_border_weights_are_those_of_the_final_mask(tmp_path: Path) -> None:
    """After augmentation and ClassMix, and in memory that moves: OpenCV's own distances depend on the address."""
    split = open_dataset(write_dataset(tmp_path, num_train=5)).split("train")
    for batch in batches_of(split, 0):
        for mask, weights in zip(
            batch.masks, batch.pixel_weights if batch.pixel_weights is not None else (), strict=True
        ):
            instances = label_instances(mask.numpy(), 255)
            made = set()
            for offset in range(0, 64, 16):
                _ = bytearray(offset + 1)
                made.add(border_weights(instances.copy(), 10.0).tobytes())
            assert made == {weights.numpy().tobytes()}
    plain = AugmentedDataset(split, Augment(STRONG, 255), seed=3)
    assert collate([plain[0]]).pixel_weights is None


def test_the_global_generators_are_left_alone(tmp_path: Path) -> None:
    """The cause of resumed runs that differ: torch's loader moves the generator that dropout draws from."""
    split = open_dataset(write_dataset(tmp_path, num_train=3)).split("train")
    before = torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False)
    for workers in (0, 1):
        batches_of(split, workers, stop=2)
    after = torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False)
    assert torch.equal(before[0], after[0])
    assert before[1] == after[1]
    assert str(before[2]) == str(after[2])


@given(st.integers(1, 40), st.integers(0, 2**31 - 1), st.integers(0, 5))
def test_an_epoch_shows_each_image_once(count: int, seed: int, epoch: int) -> None:
    shown = [draw_index(number, count, seed, "shuffle") for number in range(epoch * count, (epoch + 1) * count)]
    assert sorted(shown) == list(range(count))


def test_epochs_and_seeds_differ() -> None:
    orders = {
        tuple(draw_index(n, 30, seed, "shuffle") for n in range(e * 30, e * 30 + 30))
        for seed in range(3)
        for e in range(3)
    }
    assert len(orders) == 9


def test_replacement_draws_any_image_each_time() -> None:
    shown = [draw_index(number, 10, 0, "replacement") for number in range(4000)]
    counts = Counter(shown)
    # 400 each on average; five standard deviations are 95.
    assert all(abs(counts[k] - 400) < 95 for k in range(10))
    assert any(len(set(shown[n : n + 10])) < 10 for n in range(0, 100, 10))
    repeats = sum(a == b for a, b in itertools.pairwise(shown))
    assert abs(repeats - 400) < 95


def test_no_two_draws_share_their_augmentation() -> None:
    seen = set()

    def note(
        image: NDArray[np.uint8], mask: NDArray[Any], rng: np.random.Generator, center: XY | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        seen.add(tuple(rng.random(4)))
        return image, mask

    dataset = AugmentedDataset(Numbers(4), note, seed=5)
    for number in range(40):
        _ = dataset[number]
    assert len(seen) == 40


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 9), st.integers(1, 6))
def test_ranks_share_out_the_draws(world: int, size: int, start: int, count: int) -> None:
    samplers = [
        ResumableBatchSampler(start, start + count, batch_size=size, rank=rank, world_size=world)
        for rank in range(world)
    ]
    ranks = [list(sampler) for sampler in samplers]
    together = [number for step in zip(*ranks, strict=True) for batch in step for number in batch]
    # The same images in the same step as one rank with the whole batch sees.
    whole = ResumableBatchSampler(start, start + count, batch_size=size * world)
    alone = [number for batch in whole for number in batch]
    assert together == alone
    assert len(set(together)) == len(together)
    assert all(len(sampler) == count for sampler in samplers)


def test_a_resumed_loader_goes_on_where_it_stopped() -> None:
    first, second, whole = (
        ResumableBatchSampler(start, stop, batch_size=4) for start, stop in ((0, 3), (3, 7), (0, 7))
    )
    assert [*first, *second] == list(whole)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_stops_with_its_name(workers: int) -> None:
    """torch would rebuild the error from its text, and lose class, file and fix."""
    dataset = AugmentedDataset(Numbers(3, broken=[1]), keep, seed=0)
    loader = TrainLoader(dataset, ResumableBatchSampler(0, 3, batch_size=1), workers)
    before = set(multiprocessing.active_children())
    with pytest.raises(ImageError, match=r"^p1\.png: is cut; fix: export it again$") as held:
        list(loader)
    assert held.tb, "a traceback keeps the workers' iterator"
    assert set(multiprocessing.active_children()) <= before, "Python waits for workers that are left when it ends"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_skipped_image_is_counted(workers: int) -> None:
    split = Numbers(5, broken=[2])
    sampler = ResumableBatchSampler(0, 5, batch_size=2)
    plain = [batch.keys for batch in TrainLoader(AugmentedDataset(Numbers(5), keep, seed=0), sampler, workers)]
    batches = list(TrainLoader(AugmentedDataset(split, keep, seed=0, on_read_error="skip"), sampler, workers))
    assert [batch.keys for batch in batches] == [tuple("p3" if key == "p2" else key for key in keys) for keys in plain]
    assert sum(batch.num_skipped for batch in batches) == 2


def test_nothing_left_to_skip_to() -> None:
    with pytest.raises(DatasetError, match="no sample of the split can be read"):
        _ = AugmentedDataset(Numbers(2, broken=[0, 1]), keep, seed=0, on_read_error="skip")[0]


@given(st.integers(1, 400), st.integers(1, 90))
def test_windows_lie_side_by_side(length: int, window: int) -> None:
    starts = window_starts(length, window)
    if length <= window:
        assert starts == [(length - window) // 2]
        return
    assert len(starts) == -(-length // window), "no more windows than it takes"
    assert [b - a for a, b in itertools.pairwise(starts[:-1])] == [window] * (len(starts) - 2)
    assert {p for start in starts for p in range(start, start + window)} == set(range(length))


def test_an_epoch_of_windows_shows_every_pixel_once(tmp_path: Path) -> None:
    split = open_dataset(write_dataset(tmp_path, num_train=3, size=(32, 48))).split("train")
    config = AugmentConfig(crop=[16, 16], scale=[1.0, 1.0], flip=0.0)
    draws = AugmentedDataset(split, Augment(config, 255), seed=5, tile_size=(16, 16))
    shown = [draws[number] for number in range(18)]
    wanted = [
        (
            sample.key,
            sample.image[top : top + 16, left : left + 16].tobytes(),
            sample.mask[top : top + 16, left : left + 16].tobytes(),
        )
        for sample in split
        for top in (0, 16)
        for left in (0, 16, 32)
        if sample.mask is not None
    ]
    assert sorted(wanted) == sorted((s.key, s.image.tobytes(), s.mask.tobytes()) for s in shown)
    assert window_centers((32, 48), (16, 16))[0] == (8, 8)
    assert [draws[number].key for number in range(18, 36)] != [s.key for s in shown], "each epoch has its own order"


@pytest.mark.parametrize("on_read_error", ["stop", "skip"])
def test_windows_of_a_mask_that_cannot_be_read(tmp_path: Path, on_read_error: Literal["stop", "skip"]) -> None:
    split = open_dataset(write_dataset(tmp_path, num_train=3)).split("train")
    bad = split.items[1].mask
    assert bad is not None
    bad.write_bytes(b"no image")
    config = AugmentConfig(crop=[16, 16], scale=[1.0, 1.0], flip=0.0)
    if on_read_error == "stop":
        with pytest.raises(InputError, match=bad.name):
            AugmentedDataset(split, Augment(config, 255), seed=5, tile_size=(16, 16))
        return
    draws = AugmentedDataset(split, Augment(config, 255), seed=5, on_read_error=on_read_error, tile_size=(16, 16))
    samples = [draws[number] for number in range(13)]
    assert sum(sample.after_skip for sample in samples) == 1
    assert {sample.key for sample in samples} == {"p0", "p2"}


def test_the_cache_reads_each_image_once() -> None:
    reads, sample = {}, Numbers(3)[0]
    assert sample.mask is not None
    size = sample.image.nbytes + sample.mask.nbytes
    for num_kept in (3, 2, 0):
        split = Numbers(3)
        # One byte less than the next sample would need.
        draws = AugmentedDataset(split, keep, seed=0, cache_bytes=(num_kept + 1) * size - 1)
        keys = [draws[number].key for number in range(9)]
        assert sorted(set(keys)) == ["p0", "p1", "p2"]
        reads[num_kept] = sum(split.reads.values())
    assert reads == {3: 3, 2: 5, 0: 9}


def test_collate_keeps_ids_beyond_255() -> None:
    batch = collate([TrainingSample("a", np.zeros((2, 2, 3), np.uint8), np.full((2, 2), 65535, np.uint16))])
    assert int(batch.masks.max()) == 65535
    assert batch.images.shape == (1, 3, 2, 2)
    assert batch.num_skipped == 0


def test_mixing_pastes_a_second_sample_and_leaves_the_first_draws_alone() -> None:
    plain, mixed = (AugmentedDataset(Numbers(6), keep, seed=3, classmix_prob=share) for share in (0.0, 1.0))
    pairs = [(plain[n], mixed[n]) for n in range(12)]
    assert all(one.key == two.key for one, two in pairs)
    assert any((one.image != two.image).any() for one, two in pairs)
    again = AugmentedDataset(Numbers(6), keep, seed=3, classmix_prob=1.0)
    assert all((again[n].image == two.image).all() for n, (_, two) in enumerate(pairs))


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX knows them")
def test_a_reader_leaves_the_groups_signals_to_its_parent() -> None:
    reading, writing = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        WorkerInit(parent)(0)
        os.write(writing, b"x")
        time.sleep(30)
        os._exit(0)
    os.read(reading, 1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        os.kill(child, number)
    time.sleep(0.2)
    assert os.waitpid(child, os.WNOHANG) == (0, 0), "it still reads"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)


LOAD_WITH_FEW_OPEN_FILES = """
import os, resource, sys
from pixelwise.data import open_dataset
from pixelwise.data.loader import AugmentedDataset, ResumableBatchSampler, TrainLoader
from pixelwise.errors import ResourceError

def keep(image, mask, rng, center=None):
    return image, mask

split = open_dataset(sys.argv[1]).split("train")
loader = TrainLoader(AugmentedDataset(split, keep, seed=0), ResumableBatchSampler(0, 4, batch_size=1), 2)
free = os.open(os.devnull, os.O_RDONLY)
resource.setrlimit(resource.RLIMIT_NOFILE, (free + int(sys.argv[2]), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
try:
    print(len(list(loader)))
except ResourceError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits as POSIX knows them")
@pytest.mark.parametrize("more", [3, 6, 9])
def test_too_few_open_files_for_the_workers(tmp_path: Path, more: int) -> None:
    """One line, no traceback, and no worker for which Python would wait when it ends."""
    command = [sys.executable, "-c", LOAD_WITH_FEW_OPEN_FILES, str(write_dataset(tmp_path)), str(more)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert ended.stderr == ""
    assert ended.stdout.startswith("--data.workers: 2 worker processes cannot be started: Too many open files; fix: ")


def first_batch(loader: TrainLoader) -> tuple[Iterator[Batch], list[Any]]:
    """The batches after the first one, and the workers; those of other loaders may still live."""
    before = multiprocessing.active_children()
    batches = iter(loader)
    next(batches)
    workers = [worker for worker in multiprocessing.active_children() if worker not in before]
    assert workers
    return batches, workers


class Stuck(Numbers):
    """A split whose second image is never read to its end."""

    def __getitem__(self, index: Any) -> Any:
        if self.reads:
            time.sleep(10**6)
        return super().__getitem__(index)


@pytest.mark.parametrize("error", [EOFError(), ConnectionResetError(104, "Connection reset by peer")])
def test_a_worker_that_ends_while_it_sends_is_explained(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """What multiprocessing raises depends on the moment of the kill, so that moment is simulated."""

    class Cut:
        def __iter__(self) -> Cut:
            return self

        def __next__(self) -> Batch:
            raise error

    dataset = AugmentedDataset(Numbers(4), keep, seed=1)
    loader = TrainLoader(dataset, ResumableBatchSampler(0, 1, batch_size=2), 0)
    monkeypatch.setattr(torch.utils.data.DataLoader, "__iter__", lambda _: Cut())
    with pytest.raises(ResourceError, match=r"a DataLoader worker was killed.*lower --data\.workers"):
        next(iter(loader))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX knows them")
def test_a_stuck_worker_is_killed() -> None:
    loader = TrainLoader(AugmentedDataset(Stuck(50), keep, seed=0), ResumableBatchSampler(0, 50, batch_size=1), 1)
    batches, workers = first_batch(loader)
    loader.close()
    for worker in workers:
        worker.join(10)
        assert worker.exitcode == -signal.SIGKILL
    assert next(batches, None) is None


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform == "win32", reason="stops as POSIX knows them")
def test_stopped_workers_never_keep_the_loader_from_closing() -> None:
    """Wherever they are stopped: a worker takes the lock of the event that ends it at every batch."""
    chance = random.Random(0)
    for _ in range(20):
        loader = TrainLoader(
            AugmentedDataset(Numbers(50), keep, seed=0), ResumableBatchSampler(0, 10**5, batch_size=1), 1
        )
        batches, workers = first_batch(loader)
        for _ in range(chance.randrange(30)):
            next(batches)
        for worker in workers:
            os.kill(worker.pid or 0, signal.SIGSTOP)
        started = time.monotonic()
        loader.close()
        assert time.monotonic() - started < 60
        assert not any(worker.is_alive() for worker in workers)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells that a process is stopped")
def test_a_worker_that_stays_stopped_ends_the_wait() -> None:
    loader = TrainLoader(AugmentedDataset(Numbers(50), keep, seed=0), ResumableBatchSampler(0, 10**5, batch_size=1), 1)
    batches, workers = first_batch(loader)
    for worker in workers:
        os.kill(worker.pid or 0, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(ResourceError, match="a DataLoader worker was stopped for 30 seconds"):
        list(batches)
    assert 25 < time.monotonic() - started < 60
    loader.close()
