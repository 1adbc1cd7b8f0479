"""Stop a run on Ctrl-C and other signals: an answer within a second, and the truth about what is saved."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from ..errors import Interrupted, printable
from .ranks import max_over_ranks, process_rank, started_by_torchrun
from .state import newest_step

if TYPE_CHECKING:
    from .module import TrainingModule
    from .run_folder import RunFolder

_SHOW_CURSOR = "\x1b[?25h"


class StopSignals(Callback):
    """Stop a run on SIGINT, SIGTERM or SIGUSR1, with its state saved.

    The first signal ends the run after the current step. A second Ctrl-C (SIGINT), or any signal while no step is
    running, ends it at once. In order:

    1. `caught` installs the handlers around the whole run, and a thread that answers: a step may take minutes in C++
       code, and until it returns, Python calls no handler. The thread is woken by the operating system.
    2. `on_train_start` installs them again, since Lightning sets its own.
    3. A signal sets `received`; the step goes on.
    4. After the step, `AfterStep` asks `any_rank_received`, saves, and sets `trainer.should_stop`.
    5. `train` raises Interrupted once Lightning's loop has ended.

    folder    of the run, which tells what is saved
    command   the command that resumes the run
    received  number of the last signal, 0 before the first
    """

    def __init__(self, folder: RunFolder, command: str) -> None:
        self.folder, self.command = folder, command
        self.received = 0
        self._module: TrainingModule | None = None  # while steps are running
        self._raised = False
        self._left = threading.Event()
        # Windows lacks SIGUSR1. Only the main thread may set handlers.
        names = ("SIGINT", "SIGTERM", "SIGUSR1") if threading.current_thread() is threading.main_thread() else ()
        self._numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handle the signals inside the block, and restore the former handlers after it.

        After an error in a rank of torchrun, SIGTERM stays ignored; torchrun kills what is left half a minute later.
        """
        if not self._numbers:
            yield
            return
        before = {number: signal.getsignal(number) for number in self._numbers}
        reader, writer = socket.socketpair()
        writer.settimeout(0)
        wakeup_before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._set_handlers()
        listener = threading.Thread(target=self._answer, args=(reader,), daemon=True)
        listener.start()
        try:
            yield
        except BaseException:
            # torchrun ends the ranks that are left by SIGTERM, which must not end this one before its error is printed.
            if started_by_torchrun():
                before[signal.SIGTERM] = signal.SIG_IGN
            raise
        finally:
            self._left.set()
            # A byte, since workers that were forked may still hold this end open.
            writer.send(b"\0")
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup_before)
            writer.close()
            listener.join()
            reader.close()

    def on_train_start(self, trainer: lightning.Trainer, module: TrainingModule) -> None:  # type: ignore[override]
        """Take the handlers back from Lightning, which would stop in the middle of a step."""
        self._set_handlers()
        self._module = module

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Note that no step is running any more."""
        self._module = None

    def any_rank_received(self, device: torch.device) -> bool:
        """Return whether any rank has received a signal; all ranks get the same answer."""
        self.received = max_over_ranks(self.received, device)
        return self.received != 0

    def _set_handlers(self) -> None:
        for number in self._numbers:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        second_interrupt = self.received == number == signal.SIGINT
        self.received = number
        if second_interrupt or self._module is None:
            self._raised = True
            raise self._stopped_at_once(number)

    def _stopped_at_once(self, number: int) -> Interrupted:
        """Return the error that says what of the run is on disk, what is lost, and how to go on."""
        saved, done = newest_step(self.folder.last), self._module.step if self._module else 0
        what = f"stopped at once by {signal.Signals(number).name}; "
        if saved is None:
            lost = f": the {done} step{'s' * (done > 1)} so far are lost" if done else ""
            return Interrupted(self.folder.path, f"{what}nothing was saved yet{lost}", "run the same command again")
        what += f"checkpoints/last is of step {saved}"
        what += f", {done - saved} later step{'s' * (done - saved > 1)} lost" if done > saved else ""
        return Interrupted(self.folder.path, what, f"go on with `{self.command}`")

    def _answer(self, reader: socket.socket) -> None:
        """Print what a signal does, as soon as it comes; end the process if a second Ctrl-C finds it in C++ code."""
        last = 0
        # One byte per signal, and 0 at the end.
        while (number := reader.recv(1)[0]) != 0:
            if number not in self._numbers:
                continue
            name, last_before, last = signal.Signals(number).name, last, number
            if last_before == number == signal.SIGINT:
                # The handler raises an error as soon as Python gets to it.
                if not self._left.wait(1) and not (self._raised and self._left.wait(10)):
                    self._end(number)
            elif self._module is not None:
                self._say(f"{name}: stopping after this step; Ctrl-C again ends at once")
            elif not self._left.wait(0.5):
                self._say(f"{name}: stopping; Ctrl-C again ends at once")

    def _end(self, number: int) -> None:
        with suppress(Exception):
            if sys.stderr.isatty():
                # The progress bar has hidden it.
                os.write(2, _SHOW_CURSOR.encode())
            self._say(f"error: {self._stopped_at_once(number)}")
            sys.stdout.flush()
        os._exit(Interrupted.exit_code)

    def _say(self, line: str) -> None:
        # Every rank receives a Ctrl-C; one of them answers. In the loop, Lightning may have started this process.
        if process_rank() == 0:
            with suppress(OSError, ValueError):
                print(printable(line), file=sys.stderr, flush=True)
