"""From a split to batches. The image and the augmentation of draw number n are functions of (seed, n) alone.

So a resumed run sees what it would have seen without the interruption, with any number of workers, and no state of the
loader has to be saved.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from functools import lru_cache, partial
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from ..core import Batch, Sample
from ..errors import DatasetError, InputError, PixelwiseError, ResourceError, os_reason
from ..files import process_activity
from .border_weights import border_weights, label_instances
from .dataset import Split
from .mix import Pair, paste_classes
from .transforms import XY, Transform
from .windows import window_centers
from .workers import WorkerInit, shorten_socket_folder, worker_killed

SECONDS_STOPPED = 30
"""A worker that a signal has stopped for so long ends the run; other silence is worth a warning."""
SECONDS_IDLE = 600
"""Workers that used no CPU time for so long, although a batch is due, wait for something that does not come."""
_SECONDS_PER_LOOK = 5
# torch waits up to 10 seconds for each worker, of which several may be stuck.
_SECONDS_TO_CLOSE = 15
# Streams of random numbers, so that the order of images and their augmentation never share draws.
_ORDER, _AUGMENT = 0, 1


class TrainingSample(NamedTuple):
    """One augmented image, as a worker makes it.

    key            of the image that it was made from
    image          (H + 2 * context_px, W + 2 * context_px, C) uint8
    mask           (H, W) class ids, or (K, H, W) for several labels per pixel
    pixel_weights  (H, W) float32, U-Net's border weights, or None if they are not asked for
    after_skip     whether an image that could not be read was skipped, and this one taken in its place
    """

    key: str
    image: NDArray[Any]
    mask: NDArray[Any]
    pixel_weights: NDArray[np.float32] | None = None
    after_skip: bool = False


def draw_index(number: int, num_samples: int, seed: int, sampling: Literal["shuffle", "replacement"]) -> int:
    """Return the index of the sample of draw `number`: each sample once per epoch, or any at random ("replacement")."""
    epoch, position = divmod(number, num_samples)
    if sampling == "replacement":
        return int(np.random.default_rng([seed, _ORDER, number]).integers(num_samples))
    return int(_permutation(num_samples, seed, epoch)[position])


@lru_cache(maxsize=2)
def _permutation(num_samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(num_samples)


@dataclass
class AugmentedDataset(Dataset[TrainingSample]):
    """An endless dataset: item n is the augmented sample of draw number n.

    split          its samples have masks
    transform      see `Transform`
    seed           of all randomness, together with the number of the draw
    sampling       see `draw_index`
    on_read_error  "skip" takes the next image in place of one that cannot be read, "stop" raises its error
    cache_bytes    bytes of decoded samples to keep in memory; those read first are kept
    classmix_prob  probability of pasting half of the classes of a second sample over the first
    tile_size      (height, width) of tiled crops: a draw shows one tile of all images; None draws crops anywhere
    mask_sizes     (height, width) of each mask, None for one that cannot be read; read from the files if not given
    border_weight  U-Net's w0, and border_sigma its sigma, for the pixel weights; 0 gives none
    """

    split: Split
    transform: Transform
    _: KW_ONLY
    seed: int
    sampling: Literal["shuffle", "replacement"] = "shuffle"
    on_read_error: Literal["stop", "skip"] = "stop"
    cache_bytes: int = 2**31
    classmix_prob: float = 0.0
    tile_size: tuple[int, int] | None = None
    mask_sizes: Sequence[tuple[int, int] | None] | None = None
    border_weight: float = 0.0
    border_sigma: float = 5.0
    _cached: dict[int, Sample] = field(default_factory=dict, init=False, repr=False)
    _bytes_left: int = field(default=0, init=False, repr=False)
    _crops: list[tuple[int, XY | None]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        self._bytes_left = self.cache_bytes
        # All that a draw can show: an image and, for tiled crops, the center of a tile.
        for index in range(len(self.split)):
            centers = window_centers(self._mask_size(index), self.tile_size) if self.tile_size else [None]
            self._crops += [(index, center) for center in centers]

    def _mask_size(self, index: int) -> tuple[int, int]:
        """Return (height, width) of a sample, or that of a tile for one that cannot be read and will be skipped."""
        assert self.tile_size is not None, "only tiled crops depend on sizes"
        if self.mask_sizes is not None:
            return self.mask_sizes[index] or self.tile_size
        try:
            mask = self.split.read_labels(self.split.items[index])
        except InputError:
            if self.on_read_error == "stop":
                raise
            return self.tile_size
        assert mask is not None, "a training split has masks"
        return mask.shape[-2], mask.shape[-1]

    def __getitem__(self, number: int) -> TrainingSample:
        """Make the sample of a draw. Raises InputError naming the unreadable file, DatasetError if none is readable."""
        rng = np.random.default_rng([self.seed, _AUGMENT, number])
        ignore_id = self.split.ignore_id
        index = draw_index(number, len(self._crops), self.seed, self.sampling)
        key, pair, after_skip = self._augment(index, rng)
        if rng.random() < self.classmix_prob:
            _, source, second_after_skip = self._augment(int(rng.integers(len(self._crops))), rng)
            pair = paste_classes(pair, source, ignore_id, rng)
            after_skip = after_skip or second_after_skip
        image, mask = pair
        weights = None
        if self.border_weight:
            weights = border_weights(label_instances(mask, ignore_id), self.border_weight, self.border_sigma)
        return TrainingSample(key, image, mask, weights, after_skip)

    def _augment(self, index: int, rng: np.random.Generator) -> tuple[str, Pair, bool]:
        """Return key, augmented pair and False; or those of the next readable sample and True."""
        for step in range(len(self._crops)):
            sample_index, center = self._crops[(index + step) % len(self._crops)]
            try:
                sample = self._read(sample_index)
            except InputError:
                if self.on_read_error == "stop":
                    raise
                continue
            assert sample.mask is not None, "a training split has masks"
            return sample.key, self.transform(sample.image, sample.mask, rng, center), step > 0
        fix = "run `pixelwise train DATA --dry-run`, which lists what is wrong"
        raise DatasetError(self.split.name, "no sample of the split can be read", fix)

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
    """Numbers of one rank's draws, batch by batch, from batch `start` up to `stop`; ranks take neighboring batches."""

    def __init__(self, start: int, stop: int, *, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.batches = range(start, stop)
        self.batch_size = batch_size
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            first = (batch * self.world_size + self.rank) * self.batch_size
            yield list(range(first, first + self.batch_size))

    def __len__(self) -> int:
        return len(self.batches)


def collate(samples: Sequence[TrainingSample]) -> Batch:
    """Stack samples of equal size."""
    weights = [s.pixel_weights for s in samples if s.pixel_weights is not None]
    masks = np.stack([s.mask for s in samples])
    return Batch(
        # A view: channels stay innermost, as convolutions take them.
        images=torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2),
        # Bytes stay bytes: int64 would be eight times as large. torch computes little with uint16.
        masks=torch.from_numpy(masks if masks.dtype == np.uint8 else masks.astype(np.int64)),
        keys=tuple(s.key for s in samples),
        pixel_weights=torch.from_numpy(np.stack(weights)) if weights else None,
        num_skipped=sum(s.after_skip for s in samples),
    )


class TrainLoader:
    """Batches in order. An error in a worker is raised here with its own class and message.

    The first of `grad_accum_steps` batches tells the labels of all of them, by whose number each one's loss is divided.

    It draws nothing from torch's global generator. Call `close()` if you stop early: workers ignore signals and would
    block the exit of the interpreter.
    """

    def __init__(
        self, dataset: AugmentedDataset, batches: ResumableBatchSampler, workers: int, *, grad_accum_steps: int = 1
    ) -> None:
        self.grad_accum_steps = grad_accum_steps
        self._running: Iterator[Any] | None = None
        self._waits, self._stalled, self._closed = False, "", threading.Event()
        if workers:
            shorten_socket_folder()
        self._batches: DataLoader[Any] = DataLoader(
            _ErrorsAsValues(dataset),
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_collate_or_error,
            generator=torch.Generator().manual_seed(dataset.seed),
            worker_init_fn=WorkerInit(os.getpid()) if workers else None,
            prefetch_factor=4 if workers else None,
        )

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches; raise the PixelwiseError of a sample when it is the turn of its optimizer step."""
        running = self._running = self._started()
        workers = list(getattr(running, "_workers", []))
        self._closed = threading.Event()
        if workers:
            threading.Thread(target=self._watch_workers, args=(workers, self._closed), daemon=True).start()
        try:
            while self._running is running:
                step: list[Batch] = []
                for batch in islice(iter(partial(self._next, running), None), self.grad_accum_steps):
                    if isinstance(batch, PixelwiseError):
                        raise batch
                    step.append(batch)
                if not step:
                    return
                if self.grad_accum_steps > 1:
                    step[0] = step[0]._replace(step_labels=tuple((batch.masks, batch.pixel_weights) for batch in step))
                yield from step
        finally:
            # Workers ignore SIGTERM. If a traceback held them until Python ends, it would wait for them for ever.
            if self._running is running:
                self.close()

    def _started(self) -> Iterator[Any]:
        """Start the workers. Raises ResourceError if the system has too few open files or processes for them."""
        before = multiprocessing.active_children()
        workers = self._batches.num_workers
        opened: list[int] = []
        try:
            # torch leaves a half-made iterator, of which Python prints a traceback, if they run out while it starts.
            while len(opened) < 4 * workers + 4 * (workers > 0):
                opened += os.pipe()
            for number in opened:
                os.close(number)
            opened = []
            return iter(self._batches)
        except OSError as error:
            # Those that have started ignore SIGTERM, so that Python would wait for them for ever when it ends.
            for worker in multiprocessing.active_children():
                if worker not in before:
                    worker.kill()
            what = f"{workers} worker processes cannot be started: {os_reason(error)}"
            raise ResourceError(
                "--data.workers", what, "ask for fewer, or raise the limits (`ulimit -n`, `-u`)"
            ) from error
        finally:
            for number in opened:
                os.close(number)

    def _next(self, running: Iterator[Any]) -> Any:
        """Return the next batch, None after the last. Raises ResourceError if a worker was stopped for too long."""
        self._waits = True
        try:
            return next(running, None)
        except (RuntimeError, EOFError, OSError) as error:
            if self._stalled:
                fix = "check the disk of the data; go on with --resume"
                raise ResourceError("training", f"a DataLoader worker {self._stalled}, and was killed", fix) from error
            # torch meets the end of a worker that was killed while it sends a batch: an EOFError in its queue, a
            # ConnectionError where the batch's memory is passed over.
            if isinstance(error, (EOFError, ConnectionError)):
                raise worker_killed() from error
            raise
        finally:
            self._waits = False

    def _watch_workers(self, workers: Sequence[Any], closed: threading.Event) -> None:
        """Kill a worker that stays stopped, or that does nothing for long, while a batch is waited for.

        Slow workers are waited for, with a warning. This is the body of a thread: the main thread may be blocked in a
        read from the worker, which ends when the worker does.
        """
        waited, stopped, idle, last_ticks = 0, 0, 0, -1
        while not closed.wait(_SECONDS_PER_LOOK):
            found = {worker.pid: process_activity(worker.pid) for worker in workers}
            ticks = sum(activity[1] for activity in found.values() if activity is not None)
            waited = waited + 1 if self._waits else 0
            stopped = (
                stopped + 1 if waited and any(activity and activity[0] == "T" for activity in found.values()) else 0
            )
            idle = idle + 1 if waited and all(found.values()) and ticks == last_ticks else 0
            last_ticks = ticks
            if waited * _SECONDS_PER_LOOK == SECONDS_STOPPED and not stopped:
                what = f"the DataLoader workers have sent no batch for {SECONDS_STOPPED} seconds; waiting"
                print(f"warning: training: {what}", file=sys.stderr, flush=True)
            if stopped * _SECONDS_PER_LOOK >= SECONDS_STOPPED:
                self._stalled = f"was stopped for {SECONDS_STOPPED} seconds"
            elif idle * _SECONDS_PER_LOOK >= SECONDS_IDLE:
                self._stalled = f"did nothing for {SECONDS_IDLE // 60} minutes"
            if self._stalled:
                for worker in workers:
                    worker.kill()
                return

    def close(self) -> None:
        """End the workers, even if a traceback still holds torch's iterator; kill a worker that is stuck in a read."""
        running, self._running = self._running, None
        self._closed.set()
        workers = getattr(running, "_workers", [])
        if not workers:
            return
        for worker in workers:
            # A stopped worker may hold the lock of the event that tells workers to end.
            if worker.is_alive() and hasattr(signal, "SIGCONT"):
                os.kill(worker.pid, signal.SIGCONT)
        # torch has no public method for it; dropping the last reference would do the same. A worker that was killed
        # may hold the lock for ever, so the method gets a thread and a limit.
        closing = threading.Thread(target=running._shutdown_workers, daemon=True)  # type: ignore[union-attr]
        closing.start()
        closing.join(_SECONDS_TO_CLOSE)
        for worker in workers:
            # torch raises a RuntimeError in this thread for a worker that ends so before the method has returned.
            with suppress(RuntimeError):
                worker.kill()
                worker.join()


@dataclass
class _ErrorsAsValues(Dataset[Any]):
    """Returns errors instead of raising them: torch rebuilds a worker's exception from its text and loses its class."""

    dataset: AugmentedDataset

    def __getitem__(self, number: int) -> TrainingSample | PixelwiseError:
        try:
            return self.dataset[number]
        except PixelwiseError as error:
            return error


def _collate_or_error(rows: Sequence[TrainingSample | PixelwiseError]) -> Batch | PixelwiseError:
    samples: list[TrainingSample] = []
    for row in rows:
        if isinstance(row, PixelwiseError):
            return row
        samples.append(row)
    return collate(samples)
