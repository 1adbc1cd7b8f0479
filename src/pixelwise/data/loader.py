"""From a split to batches. The image and the augmentation of the n-th draw are functions of (seed, n) alone.

So a run that is killed and resumed sees what it would have seen, with any number of workers; nothing of the loader's
state has to be saved.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from ..core import Batch, Sample
from ..errors import DatasetError, InputError, PixelwiseError
from .dataset import Split
from .mix import paste_classes
from .transforms import Place, Transform
from .windows import window_centers

Pair = tuple[NDArray[np.uint8], NDArray[Any]]
_ORDER, _AUGMENT = 0, 1
"""Streams of random numbers, so that the order of images and their augmentation never share draws."""


def draw_index(number: int, num_samples: int, seed: int, sampling: Literal["shuffle", "replacement"]) -> int:
    """Which sample the draw with that number shows: each once an epoch, or any each time (`replacement`)."""
    epoch, place = divmod(number, num_samples)
    if sampling == "replacement":
        return int(np.random.default_rng([seed, _ORDER, number]).integers(num_samples))
    return int(_order(num_samples, seed, epoch)[place])


@lru_cache(maxsize=2)
def _order(num_samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(num_samples)


@dataclass
class AugmentedDataset(Dataset[tuple[Sample, bool]]):
    """Draw number -> the augmented sample, and whether a bad image had to be replaced by the next one.

    classmix_prob is the probability that half of the classes of a second sample, drawn evenly, are pasted over the first.
    windows, (height, width), cuts each image into windows side by side, and a draw shows one of all windows.
    cache_bytes of decoded samples are kept in memory, those that come first.
    on_read_error "skip" replaces what cannot be read, "stop" raises its error.
    """

    split: Split
    transform: Transform
    seed: int
    sampling: Literal["shuffle", "replacement"] = "shuffle"
    on_read_error: Literal["stop", "skip"] = "stop"
    cache_bytes: int = 2**31
    classmix_prob: float = 0.0
    windows: tuple[int, int] | None = None
    _cached: dict[int, Sample] = field(default_factory=dict, repr=False)
    _bytes_left: int = field(default=0, init=False, repr=False)
    _places: list[tuple[int, Place | None]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        self._bytes_left = self.cache_bytes
        # What a draw can show: a sample and, of windows, the middle of one.
        for index in range(len(self.split)):
            centers = window_centers(self._size(index), self.windows) if self.windows else [None]
            self._places += [(index, center) for center in centers]

    def __getitem__(self, number: int) -> tuple[Sample, bool]:
        """Raises InputError naming the file that cannot be read, or DatasetError when no sample can."""
        rng = np.random.default_rng([self.seed, _AUGMENT, number])
        key, pair, replaced = self._augmented(draw_index(number, len(self._places), self.seed, self.sampling), rng)
        if rng.random() < self.classmix_prob:
            _, over, second_replaced = self._augmented(int(rng.integers(len(self._places))), rng)
            pair = paste_classes(pair, over, self.split.taxonomy.ignore_id, rng)
            replaced = replaced or second_replaced
        return Sample(key, *pair), replaced

    def _augmented(self, index: int, rng: np.random.Generator) -> tuple[str, Pair, bool]:
        """Key, transformed image and mask of a place or, where its sample is bad, of the next good one, and whether it was bad."""
        for step in range(len(self._places)):
            number, center = self._places[(index + step) % len(self._places)]
            try:
                sample = self._read(number)
            except InputError:
                if self.on_read_error == "stop":
                    raise
                continue
            assert sample.mask is not None, "a training split has masks"
            at = {} if center is None else {"center": center}
            return sample.key, self.transform(sample.image, sample.mask, rng, **at), step > 0
        fix = "run `pixelwise train DATA --dry-run`, which lists what is wrong"
        raise DatasetError(self.split.name, "no sample of the split can be read", fix)

    def _size(self, index: int) -> tuple[int, int]:
        """(height, width) of a sample; of one that cannot be read, and may be skipped, those of a window."""
        assert self.windows is not None, "only windows depend on sizes"
        try:
            mask = self.split.read_labels(self.split.items[index])
        except InputError:
            if self.on_read_error == "stop":
                raise
            return self.windows
        assert mask is not None, "a training split has masks"
        return mask.shape[0], mask.shape[1]

    def _read(self, index: int) -> Sample:
        if index in self._cached:
            return self._cached[index]
        sample = self.split[index]
        size = sample.image.nbytes + (0 if sample.mask is None else sample.mask.nbytes)
        if size <= self._bytes_left:
            self._cached[index] = sample
            self._bytes_left -= size
        return sample


class ResumableBatchSampler(Sampler[list[int]]):
    """Draw numbers of this rank, batch by batch, from batch `start` to batch `stop`; ranks take neighbouring batches."""

    def __init__(self, start: int, stop: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.batches = range(start, stop)
        self.batch_size = batch_size
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            first = (batch * self.world_size + self.rank) * self.batch_size
            yield list(range(first, first + self.batch_size))

    def __len__(self) -> int:
        return len(self.batches)


def collate(rows: Sequence[tuple[Sample, bool]]) -> tuple[Batch, int]:
    """Samples of equal size -> Batch, and how many of them stand in for a bad image."""
    samples = [sample for sample, _ in rows]
    images = torch.from_numpy(np.stack([s.image for s in samples]).transpose(0, 3, 1, 2).copy())
    masks = torch.from_numpy(np.stack([np.asarray(s.mask, np.int64) for s in samples]))
    return Batch(images, masks, tuple(s.key for s in samples)), sum(replaced for _, replaced in rows)


class TrainLoader:
    """Batches of `collate` in order. What a worker raises arrives here as it was raised: one line with the file's name.

    It draws nothing from torch's global generator. Whoever does not take all batches closes it: workers hear no signal, and
    an interpreter that ends waits for them.
    """

    def __init__(self, draws: AugmentedDataset, batches: ResumableBatchSampler, workers: int) -> None:
        self._running: Iterator[Any] | None = None
        self._batches: DataLoader[Any] = DataLoader(
            _ErrorsAsValues(draws),
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_collate_or_error,
            generator=torch.Generator().manual_seed(draws.seed),
            worker_init_fn=_Worker(os.getpid()) if workers else None,
            prefetch_factor=4 if workers else None,
        )

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple[Batch, int]]:
        """Raises the PixelwiseError of a sample when its batch's turn has come."""
        running = self._running = iter(self._batches)
        while self._running is running:
            handed = next(running, None)
            if isinstance(handed, PixelwiseError):
                raise handed
            if handed is None:
                return
            yield handed

    def close(self) -> None:
        """End the workers, though a traceback may still hold torch's iterator; one that is stuck in a read is killed."""
        running, self._running = self._running, None
        workers = getattr(running, "_workers", [])
        if workers:
            # torch has no public word for it; dropping the last reference would do the same.
            running._shutdown_workers()  # type: ignore[union-attr]
        for worker in workers:
            if worker.is_alive():
                worker.kill()


@dataclass
class _ErrorsAsValues(Dataset[Any]):
    """AugmentedDataset whose errors are handed over as values: torch rebuilds an exception from its text alone, and loses its class."""

    draws: AugmentedDataset

    def __getitem__(self, number: int) -> tuple[Sample, bool] | PixelwiseError:
        try:
            return self.draws[number]
        except PixelwiseError as error:
            return error


def _collate_or_error(rows: Sequence[tuple[Sample, bool] | PixelwiseError]) -> tuple[Batch, int] | PixelwiseError:
    good: list[tuple[Sample, bool]] = []
    for row in rows:
        if isinstance(row, PixelwiseError):
            return row
        good.append(row)
    return collate(good)


@dataclass(frozen=True)
class _Worker:
    """What a worker does first: one thread, and death with its parent, so that a killed run leaves nobody behind.

    A signal for the whole group of processes is the parent's to answer: it still needs the images of the step at hand.
    """

    parent: int

    def __call__(self, worker: int) -> None:
        import cv2

        cv2.setNumThreads(0)
        torch.set_num_threads(1)
        for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)
        _die_with_parent()
        # The parent may have died before the line above; where a fork server starts workers, that one dies with it.
        if multiprocessing.get_start_method() == "fork" and os.getppid() != self.parent:
            raise SystemExit("the training process is gone")


def _die_with_parent() -> None:
    """Ask Linux to end this process when its parent ends, by any signal; elsewhere torch's own watchdog has to do."""
    import ctypes
    import sys

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
