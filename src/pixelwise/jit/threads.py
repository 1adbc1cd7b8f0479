"""The threads of this process: how many it may use, a pool of them for compiled loops, and one that works ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def available_threads() -> int:
    """Return OMP_NUM_THREADS where it is set, as torch does; else the number of cores that this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers(AbstractContextManager["Workers"]):
    """The threads for one image. With one thread, everything runs in the caller's."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or available_threads()
        self._pool = ThreadPoolExecutor(self.threads) if self.threads > 1 else None

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def run(self, function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Call function(*task) for every task; return the results in the tasks' order, or raise the first error."""
        tasks = list(tasks)
        if self._pool is None or len(tasks) == 1:
            return [function(*task) for task in tasks]
        return list(self._pool.map(function, *zip(*tasks, strict=True)))


def ahead(function: Callable[[Task], Result], tasks: Iterable[Task], *, depth: int = 2) -> Iterator[Future[Result]]:
    """Yield function(task) of each task as a future, in order, while a thread computes the next `depth` of them.

    For reading images while the network computes. An error of a task is raised by its own `result()`. Nothing runs
    ahead any more when the caller stops early.
    """
    pool = ThreadPoolExecutor(1)
    waiting: deque[Future[Result]] = deque()
    is_stopped = True
    try:
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) > depth:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
        is_stopped = False
    finally:
        pool.shutdown(cancel_futures=is_stopped)
