"""Signs of life between the ranks of a run: a rank that has ended or is frozen ends the others, a slow one does not.

A collective operation waits for a rank that never comes, and a limit on its time would end runs in which one rank
validates or saves longer than another. So every rank sends rank 0 a line each half second, from a thread of its own,
and rank 0 answers. The line says what the rank does:

    running       it trains, or prepares to
    ready START   it waits for the others, to go on after the step, and with the data, that START names
    go            rank 0 alone: all are ready
    finished      its training has ended
    failed WHY    an error has ended it
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from ..config import TrainConfig
from ..errors import Interrupted, ResourceError
from ..files import process_activity
from .ranks import LAUNCH_VARIABLES, LAUNCHER, process_rank, started_by_launcher, started_by_torchrun

SECONDS_TO_JOIN = 45
"""A rank on the same node that has sent nothing so long after this one started does not exist."""
SECONDS_TO_JOIN_NODES = 600
"""The same for several nodes, which may start minutes apart."""
SECONDS_SILENT = 30
"""A rank that has sent nothing for so long is frozen; its thread needs milliseconds of a CPU to send."""
_SECONDS_BETWEEN_LINES = 0.5
# Time for the main thread to end by itself with an error, before the process is ended.
_SECONDS_TO_LEAVE = 10
_SECONDS_TO_LEAVE_LAUNCHER = 30
_RESUME = "go on with --resume"


@dataclass
class _Peer:
    """Another rank: its connection, what it last said, the seconds since, and those that a signal has stopped it."""

    rank: int
    connection: socket.socket | None = None
    place: str = ""
    pid: int = 0
    status: str = ""
    silent: float = 0.0
    stopped: float = 0.0
    unread: bytes = b""
    closed: bool = False

    def introduce(self, connection: socket.socket, pid: str, host: str) -> None:
        """Note who it is; `pid` stays 0 for a rank on another node."""
        connection.settimeout(0)
        self.place, self.silent = f" (process {pid} on {host})", 0.0
        self.pid = int(pid) if host == socket.gethostname() else 0
        self.connection = connection

    @property
    def has_ended(self) -> bool:
        return self.closed or self.status.startswith(("finished", "failed"))


class RankWatch:
    """A context manager around the whole work of one rank.

    failure  the error of another rank that ends this one; None while all is well. A thread sets it. Then the main
             thread has 10 seconds to end with an error of its own, such as a closed connection; after that, the
             process ends with exit code 3 wherever it is, except in a save
    """

    def __init__(self, settings: TrainConfig) -> None:
        self.failure: ResourceError | None = None
        self.rank, self.world_size = process_rank(), settings.devices * settings.nodes
        self._devices = settings.devices
        self._seconds_to_join = SECONDS_TO_JOIN if settings.nodes == 1 else SECONDS_TO_JOIN_NODES
        # Rank 0 hears all others, the others hear rank 0 alone.
        self._peers = [_Peer(rank) for rank in (range(1, self.world_size) if self.rank == 0 else [0])]
        self._status, self._said_last = "running", False
        self._go, self._left, self._may_exit = threading.Event(), threading.Event(), threading.Event()
        self._may_exit.set()
        self._thread = threading.Thread(target=self._run, daemon=True, name="rank-watch")
        self._listener: socket.socket | None = None
        self._store: TCPStore | None = None
        self._token = ""
        self._parent = os.getppid() if started_by_launcher() else 0
        if self.rank > 0 and not started_by_torchrun():
            self._peers[0].pid = self._parent

    def __enter__(self) -> Self:
        if self.world_size > 1 and started_by_launcher():
            self._start(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._status != "finished":
            self._status = f"failed rank {self.rank} has ended"
        self._left.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def finished(self) -> None:
        """Note that the training of this rank has ended as it should."""
        self._status = "finished"

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Let a save inside the block come to its end, whatever becomes of the other ranks."""
        self._may_exit.clear()
        try:
            yield
        finally:
            self._may_exit.set()

    def meet(self, start: str) -> None:
        """Wait until all ranks are ready and have said the same `start`. Raises ResourceError if they have not."""
        if self.world_size == 1:
            return
        self._status = f"ready {start}"
        try:
            while not self._go.wait(0.1) and self.failure is None:
                pass
        except Interrupted:
            # torchrun ends the ranks that are left by SIGTERM; what ended the first one is the error.
            if self.failure is None:
                raise
        if self.failure is not None:
            raise self.failure
        if self.rank > 0:
            # Rank 0 goes on saying "go".
            self._status = "running"

    def explain(self) -> None:
        """Wait until `failure` is known, which takes a moment after a connection has closed."""
        end = time.monotonic() + 4 * _SECONDS_BETWEEN_LINES
        while self.failure is None and self._thread.is_alive() and time.monotonic() < end:
            time.sleep(0.05)

    @contextmanager
    def others_started(self) -> Iterator[None]:
        """Start the other ranks of this node as processes of this command; after the block, end those that are left.

        Ranks that torchrun, or this function in another process, has started are left alone.
        """
        if self.world_size == 1 or started_by_launcher():
            yield
            return
        before = {name: os.environ.get(name) for name in (LAUNCHER, *LAUNCH_VARIABLES, "MASTER_ADDR", "MASTER_PORT")}
        others = []
        try:
            port = self._start("127.0.0.1", 0)
            common = {"WORLD_SIZE": str(self.world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            # With LOCAL_RANK, Lightning starts no processes. Its own launcher would kill this one with them.
            os.environ.update(common, LOCAL_RANK="0")
            main = sys.modules["__main__"].__spec__
            command = [sys.executable, *(["-m", main.name] if main else [os.path.abspath(sys.argv[0])]), *sys.argv[1:]]
            for rank in range(1, self._devices):
                own = {**os.environ, LAUNCHER: str(os.getpid()), "RANK": str(rank), "LOCAL_RANK": str(rank)}
                others.append(subprocess.Popen(command, env=own))
                self._peers[rank - 1].pid = others[-1].pid
            yield
        except BaseException:
            self._status = f"failed rank {self.rank} has ended"
            raise
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
            self._left.set()
            end = time.monotonic() + 2 * _SECONDS_TO_LEAVE
            for process in others:
                activity = process_activity(process.pid)
                if activity is not None and activity[0] == "T":
                    process.kill()
                try:
                    process.wait(max(end - time.monotonic(), 0))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _start(self, host: str, port: int) -> int:
        """Start the thread; rank 0 publishes its own port in the store of the launch, or in a new one. Return its port.

        torchrun's agent keeps the store, or rank 0 does; Lightning finds the same one and shares it.
        """
        if self.rank == 0:
            inside = "127.0.0.1" if self._seconds_to_join == SECONDS_TO_JOIN else ""
            self._listener = socket.create_server((inside, 0))
            self._listener.settimeout(0)
            self._token = secrets.token_hex(8)
            self._store = self._open_store(host, port)
            self._store.set(
                _key(), f"{self._listener.getsockname()[1]} {self._token} {os.getpid()} {socket.gethostname()}"
            )
            port = self._store.port
        self._thread.start()
        return port

    def _open_store(self, host: str, port: int) -> TCPStore:
        keeps_it = self.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        limit = timedelta(seconds=self._seconds_to_join)
        return TCPStore(host, port, is_master=keeps_it, multi_tenant=True, wait_for_workers=False, timeout=limit)

    def _run(self) -> None:
        """Exchange lines until the main thread has left and the others know it; the body of the thread."""
        connecting = threading.Thread(target=self._connect, daemon=True, name="rank-watch-connect")
        if self.rank > 0:
            # It may block for longer than its limit if the process that keeps the store is frozen.
            connecting.start()
        last = time.monotonic()
        while not self._left.wait(_SECONDS_BETWEEN_LINES):
            now = time.monotonic()
            # Time in which this process itself was frozen does not count.
            self._exchange(min(now - last, 4 * _SECONDS_BETWEEN_LINES))
            last = now
            self._judge()
            if self.failure is not None:
                self._end()
            if self._parent and os.getppid() != self._parent and started_by_torchrun():
                self._stop_without_launcher()
        self._say_last()
        end = time.monotonic() + 3
        while time.monotonic() < end and not all(peer.has_ended or peer.connection is None for peer in self._peers):
            time.sleep(0.05)
            self._exchange(0.0)
        for peer in self._peers:
            if peer.connection is not None:
                peer.connection.close()

    def _connect(self) -> None:
        """Connect this rank to rank 0, and introduce it."""
        with suppress(OSError, RuntimeError, ValueError):
            host = os.environ["MASTER_ADDR"]
            store = self._open_store(host, int(os.environ["MASTER_PORT"]))
            port, token, pid, place = store.get(_key()).decode().split()
            connection = socket.create_connection((host, int(port)), timeout=self._seconds_to_join)
            connection.sendall(f"{token} {self.rank} {os.getpid()} {socket.gethostname()}\n".encode())
            self._peers[0].introduce(connection, pid, place)

    def _exchange(self, passed: float) -> None:
        """Send this rank's line, and note what has come from the others in the last `passed` seconds."""
        if self._listener is not None:
            self._accept(self._listener)
        for peer in self._peers:
            peer.silent += passed
            if not peer.pid and peer.connection is None and started_by_torchrun():
                peer.pid = _find_sibling(peer.rank)
            activity = process_activity(peer.pid) if peer.pid else None
            peer.stopped = peer.stopped + passed if activity is not None and activity[0] == "T" else 0.0
            if peer.connection is None or peer.closed:
                continue
            try:
                if not self._said_last:
                    peer.connection.send(f"{self._status}\n".encode())
                while data := peer.connection.recv(4096):
                    peer.unread, peer.silent = peer.unread + data, 0.0
                peer.closed = True
            except BlockingIOError:
                pass
            except OSError:
                peer.closed = True
            *lines, peer.unread = peer.unread.split(b"\n")
            peer.status = lines[-1].decode("utf-8", "replace") if lines else peer.status

    def _accept(self, listener: socket.socket) -> None:
        """Take the ranks that have called since; whoever does not know the token is turned away."""
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with suppress(OSError, ValueError, IndexError):
                    connection.settimeout(2)
                    token, rank, pid, host = connection.makefile("r", encoding="utf-8").readline(300).split()
                    peer = self._peers[int(rank) - 1]
                    if secrets.compare_digest(token, self._token) and peer.connection is None:
                        peer.introduce(connection, pid, host)
                        continue
                connection.close()

    def _judge(self) -> None:
        """Set `failure` if another rank has failed, gone or fallen silent; let all go on once they are ready."""
        for peer in self._peers:
            name = f"rank {peer.rank}{peer.place}"
            if peer.status.startswith("failed "):
                self.failure = ResourceError(
                    "training", peer.status.removeprefix("failed "), f"see its error message; {_RESUME}"
                )
            elif peer.status == "finished":
                continue
            elif peer.closed:
                self.failure = ResourceError(
                    "training",
                    f"{name} was killed, or has crashed",
                    f"if memory was short, lower --data.batch_size; {_RESUME}",
                )
            elif peer.silent > SECONDS_SILENT and (peer.connection is not None or peer.stopped > SECONDS_SILENT):
                what = (
                    f"{name} has shown no sign of life for {SECONDS_SILENT} seconds: it is stopped, or its machine is"
                )
                self.failure = ResourceError("training", what, _RESUME)
                if peer.stopped:
                    # Stopped as it is, it would hold the run's folder. Its end also closes the connections on which
                    # the main thread waits.
                    with suppress(OSError):
                        os.kill(peer.pid, signal.SIGKILL)
            elif peer.connection is None and peer.silent > self._seconds_to_join:
                what = f"{name} did not start within {self._seconds_to_join} seconds"
                fix = "start all ranks at once, with torchrun or --train.devices alone"
                self.failure = ResourceError("training", what, fix)
        if self.rank > 0 and self._peers[0].status == "go":
            self._go.set()
        if self.rank == 0 and self._status.startswith("ready") and not self._go.is_set():
            others = {peer.status for peer in self._peers}
            if others == {self._status}:
                self._status = "go"
                self._exchange(0.0)
                self._go.set()
            elif all(status.startswith("ready") for status in others):
                starts = " and ".join(sorted(status.removeprefix("ready ") for status in {*others, self._status}))
                what = f"the ranks see another state or other data (step and hash of the data: {starts})"
                fix = "put --out and the data on a file system that all nodes share"
                self.failure = ResourceError("training", what, fix)

    def _say_last(self) -> None:
        """Send the last line, once: no rank closes a connection with lines unread, which would lose its own."""
        if not self._said_last:
            self._exchange(0.0)
            self._said_last = True

    def _end(self) -> None:
        """Tell the others, and give the main thread time to leave; then end the process."""
        assert self.failure is not None
        self._status = f"failed {self.failure.what}"
        self._say_last()
        self._exit_unless_left(_SECONDS_TO_LEAVE, str(self.failure), self.failure.exit_code)

    def _stop_without_launcher(self) -> None:
        """Stop after the current step, as after SIGTERM: nobody would end these ranks any more."""
        error = ResourceError("training", "the launcher has ended", _RESUME)
        print(f"warning: {error}", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        self._exit_unless_left(_SECONDS_TO_LEAVE_LAUNCHER, str(error), error.exit_code)

    def _exit_unless_left(self, seconds: float, line: str, code: int) -> None:
        if self._left.wait(seconds):
            return
        self._may_exit.wait()
        # The save may have been the last thing to do.
        if not self._left.wait(1):
            print(f"error: {line}", file=sys.stderr, flush=True)
            os._exit(code)


def _find_sibling(rank: int) -> int:
    """Return the id of the process that the same torchrun has started as a rank, 0 if there is none on this node."""
    names = ("MASTER_PORT", "TORCHELASTIC_RUN_ID")
    wanted = {f"RANK={rank}", *(f"{name}={os.environ.get(name)}" for name in names)}
    for file in Path(f"/proc/{os.getppid()}/task").glob("*/children"):
        with suppress(OSError):
            for pid in file.read_text().split():
                variables = Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "replace").split("\0")
                if wanted <= set(variables):
                    return int(pid)
    return 0


def _key() -> str:
    """Return the name in the store; torchrun counts its restarts."""
    return f"pixelwise/watch/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
