"""The worker processes of the loader: where they meet their parent, and how they end with it."""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import tempfile
from dataclasses import dataclass

import torch

from ..errors import ResourceError, cut, os_reason


def shorten_socket_folder() -> None:
    """Let workers meet in /tmp if the folder for temporary files has a longer name than a socket's path may have.

    Workers pass their batches through sockets in that folder. Raises ResourceError if there is no shorter one.
    """
    # A socket's path has 103 bytes on macOS, 107 on Linux, of which Python's names below the folder take 32.
    longest = 70
    before = tempfile.tempdir
    if len(os.fsencode(tempfile.gettempdir())) > longest and os.name != "nt":
        tempfile.tempdir = "/tmp"
    try:
        # Made once per process and passed on to its children.
        folder = multiprocessing.util.get_temp_dir()
    except OSError as error:
        what = f"cannot be used: {os_reason(error)}"
        raise ResourceError(f"folder {tempfile.gettempdir()}", what, "set TMPDIR to a short writable path") from error
    finally:
        tempfile.tempdir = before
    if len(os.fsencode(folder)) > longest + 14 and os.name != "nt":
        what = f"its path is too long for the sockets of workers: {cut(folder)}"
        raise ResourceError("TMPDIR", what, "set it to a short path, or set --data.workers 0")


@dataclass(frozen=True)
class WorkerInit:
    """Set a worker up: one thread, and death with its parent, so that a killed run leaves no process.

    A worker ignores signals to the whole process group: the parent handles them, and still needs the images of the
    current step.
    """

    parent: int

    def __call__(self, worker: int) -> None:
        import cv2

        cv2.setNumThreads(0)
        torch.set_num_threads(1)
        # The parent is woken by a descriptor that a fork shares.
        signal.set_wakeup_fd(-1)
        for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)
        if sys.platform == "linux":
            import ctypes

            # PR_SET_PDEATHSIG: Linux kills this process when its parent ends. Elsewhere torch's own watchdog has to do.
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        # The parent may have died before the line above. A fork server, where one starts the workers, dies with the
        # parent.
        if multiprocessing.get_start_method() == "fork" and os.getppid() != self.parent:
            raise SystemExit("the training process is gone")


def worker_killed() -> ResourceError:
    """Return the error for a worker that something else than this program has ended."""
    what = "a DataLoader worker was killed, most likely out of memory or /dev/shm"
    return ResourceError("training", what, "lower --data.workers or --data.cache_mib; go on with --resume")
