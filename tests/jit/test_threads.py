"""Work ahead in a thread: in order, with the errors of their own tasks, never more than asked for."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from pixelwise.jit.threads import ahead


def test_results_come_in_order_with_their_own_errors() -> None:
    def invert(task: int) -> float:
        return 1 / task

    futures = list(ahead(invert, [2, 0, 4]))
    assert (futures[0].result(), futures[2].result()) == (0.5, 0.25)
    with pytest.raises(ZeroDivisionError):
        futures[1].result()


def test_a_thread_works_while_the_caller_waits_and_stops_with_it() -> None:
    started: list[int] = []
    second_starts = threading.Event()

    def note(task: int) -> int:
        started.append(task)
        if task == 1:
            second_starts.set()
        return task

    tasks = ahead(note, range(1000), depth=2)
    first: Future[int] = next(tasks)
    assert first.result() == 0
    assert second_starts.wait(60), "the next task begins before it is asked for"
    tasks.close()  # type: ignore[attr-defined]
    assert len(started) <= 3
