"""The command line: the table of commands, and the one place where errors become one line and an exit code.

Exit codes: 0 done; 1 done, but some inputs failed; 2 wrong input, setting or usage; 3 the machine lacks something; 4
interrupted, state saved. Commands are imported when they are called, so that `pixelwise --help` needs no torch.
"""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, cast

from cyclopts import App, CycloptsError
from cyclopts.exceptions import MissingArgumentError, UnusedCliTokensError

from . import __version__
from .errors import Interrupted, PixelwiseError, ResourceError, UnknownNameError, cut, listed, printable
from .files import WRITTEN
from .registry import suggest

# Command -> its function, and the line of `pixelwise --help`, which therefore imports no command.
COMMANDS = {
    "train": ("train:train", "Train a network on a folder of images and masks."),
    "evaluate": ("evaluate:evaluate", "Score a model, or a folder of predicted masks, on a labeled split."),
    "check": ("check:check", "Find all that is wrong with a dataset, and write a fixed copy."),
    "predict": ("predict:predict", "Label images: write masks, overlays, probabilities."),
    "compare": ("compare:compare", "Draw several models side by side on one image."),
    "explain": ("explain:explain", "Explain a model: heat maps, skip contributions, activations, receptive field."),
    "crf-search": ("crf_search:crf_search", "Find the parameters of the fully connected CRF for a model."),
    "profile": ("profile:profile", "Measure a network: parameters, multiply-adds, receptive field, stride, speed."),
    "import": ("import_:import_", "Convert published weights (Caffe, torchvision) to a checkpoint."),
    "export": ("export:export", "Write a network as an ONNX, OpenVINO or torch file, and compare it with its source."),
    "convert": ("convert:convert", "Write a dataset in another format: COCO, LabelMe, CVAT, VOC and others."),
    "report": ("report:report", "Write the report.html of a run again."),
    "demo": ("demo:demo", "Label a folder of photos and show them on one HTML page."),
    "models": ("listings:models", "List the networks, or describe one."),
    "backbones": ("listings:backbones", "List the backbones."),
    "datasets": ("listings:datasets", "List the dataset formats."),
    "recipes": ("listings:recipes", "List the recipes that `train` takes by name."),
}
# Commands that print what they were asked for; the others write files, and what they print is a report of it.
PRINTING = ("check", "evaluate", "profile", "models", "backbones", "datasets", "recipes")
ALIASES = {"evaluate": ("eval",)}
# What is no command, but called so by other toolkits, and what to type here.
MEANT = {
    **{split: f"pixelwise evaluate --data DATA --split {split}" for split in ("val", "test")},
    **dict.fromkeys(("validate", "score"), "pixelwise evaluate --data DATA --split val"),
    **dict.fromkeys(("infer", "inference", "segment", "label"), "pixelwise predict"),
    "resume": "pixelwise train SOURCE --out RUN --resume",
    "fit": "pixelwise train",
}

# Error numbers of the operating system that say that the machine lacks something, not that the input is wrong.
_RESOURCE_ERRNOS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.EACCES,
    errno.EPERM,
    errno.ENOMEM,
}

# What the bars of tqdm write between two texts.
_CURSOR = re.compile(r"\r|(?:\n|\x1b\[A)+\Z")

_MIN_COLUMNS = 40
# A path that the system takes is shown whole, whatever its length; a longer one that it refuses is cut.
_MAX_PATH_SHOWN = 500
# How torch, oneDNN and CUDA say that memory is short.
_MEMORY_WORDS = ("can't allocate memory", "out of memory", "could not create a primitive", "could not create a memory")


def build_app() -> App:
    """Return the application; a command is imported when it is called."""
    app = App(
        name="pixelwise",
        help="Train, evaluate, apply, compare and explain semantic segmentation networks, FCN to DeepLab v3+.",
        help_epilogue="Add --debug to any command to see the traceback of an error.",
        # Only the docstrings of commands are Markdown: importing what reads it takes 0.05 cpu-s.
        help_format="plaintext",
        version=__version__,
        version_flags=["--version"],
        suppress_keyboard_interrupt=False,
    )
    for name, (target, summary) in COMMANDS.items():
        app.command(
            f"pixelwise.commands.{target}", name=name, alias=ALIASES.get(name), help=summary, help_format="markdown"
        )
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return the exit code. Every failure is one line on standard error."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]
    if os.environ.get("COLUMNS", "80").isdecimal() and int(os.environ.get("COLUMNS", "80")) < _MIN_COLUMNS:
        # Rich fails at 0, and writes a letter on each line at 1.
        os.environ["COLUMNS"] = str(_MIN_COLUMNS)
    before = sys.stdout, sys.stderr
    WRITTEN.clear()
    writes_files = bool(tokens) and _writes_files(tokens)
    try:
        # A command that writes files goes on when nobody reads its report any more, or the report's disk is full.
        if sys.stdout is not None:
            sys.stdout = cast(TextIO, _Printable(_Droppable(sys.stdout) if writes_files else sys.stdout))
        if sys.stderr is not None:
            sys.stderr = cast(TextIO, _Printable(_Droppable(sys.stderr)))
        with _interrupts():
            return _main(tokens, debug=debug, writes_files=writes_files)
    finally:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, _Printable) and isinstance(stream.rich_proxied_file, _Droppable):
                stream.flush()
        sys.stdout, sys.stderr = before


@contextmanager
def _interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first Ctrl-C; leave the second to the operating system, which ends the process."""

    def interrupt(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise KeyboardInterrupt

    # A shell that ignores the signal for its background jobs, or a caller with a handler, wants it so.
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if usual and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    else:
        yield


def _writes_files(tokens: Sequence[str]) -> bool:
    """Return whether a command line is asked for files: then what it prints is a report, which may get lost."""
    if {"--help", "-h", "--print-config", "--dry-run"} & set(tokens):
        return False
    printing = {*PRINTING, *(alias for name in PRINTING for alias in ALIASES.get(name, ()))}
    has_out = any(token == "--out" or token.startswith("--out=") for token in tokens)
    return not tokens[0].startswith("-") and (tokens[0] not in printing or has_out)


class _Droppable:
    """A stream whose first failed write discards the rest of the output, instead of ending the work that it reports."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or drop."""
        with self._dropping():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or drop."""
        with self._dropping():
            self._stream.flush()

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            # The descriptor now leads nowhere, so what is still buffered can be written, too.
            _close(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Printable:
    """A stream that writes every character that would move the terminal's cursor as an escape: names may hold any.

    rich_proxied_file   the stream below, on which rich draws its tables and bars; what it is given is printable
    """

    def __init__(self, stream: TextIO | _Droppable) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        """Write the text; the bars of other libraries may return to the start of their line, and to the line above."""
        cursor = _CURSOR.match(text)
        start = cursor.end() if cursor else 0
        self.rich_proxied_file.write(text[:start] + printable(text[start:], keep="\n\t"))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def _main(tokens: Sequence[str], *, debug: bool, writes_files: bool) -> int:
    """Run one command line, and turn its errors into a line and an exit code."""
    try:
        known = [*COMMANDS, *(alias for names in ALIASES.values() for alias in names)]
        if tokens and not tokens[0].startswith("-") and tokens[0] not in known:
            # Not left to cyclopts, which would import every command to find the nearest name.
            meant = MEANT.get(tokens[0])
            fix = f"type `{meant}`" if meant else suggest(tokens[0], known, listing="pixelwise --help")
            raise UnknownNameError(cut(tokens[0]), "no such command", fix)
        result = build_app()(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        if tokens[:1] == ["train"] and {"--help", "-h"} & set(tokens):
            from .commands.train import print_settings

            print_settings()
        if sys.stdout is not None:
            sys.stdout.flush()
    except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001, every error becomes a line and a code
        if isinstance(error, BrokenPipeError | SystemExit) and not writes_files:
            # The reader of a pipe has closed it (`| head`); rich then raises SystemExit.
            _close(sys.stdout)
            return 0
        if debug:
            traceback.print_exc()
        line, code = describe(error, tokens)
        print(f"error: {printable(line)}", file=sys.stderr)
        _close_stdout_if_stuck()
        return code
    return result if isinstance(result, int) else 0


def _close(stream: TextIO) -> None:
    """Discard the rest of the output, or Python would print a second error at exit."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _close_stdout_if_stuck() -> None:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        _close(sys.stdout)


def describe(error: BaseException, tokens: Sequence[str] = ()) -> tuple[str, int]:
    """Return the line and the exit code of an error; an unexpected one is reported as a bug of pixelwise.

    tokens  the command line, which tells a missing option from an option without a value
    """
    if isinstance(error, PixelwiseError):
        return str(error), error.exit_code
    if isinstance(error, CycloptsError):
        return _usage(error, tokens), 2
    if isinstance(error, KeyboardInterrupt):
        written = [path for path in dict.fromkeys(WRITTEN) if path.exists()]
        what = f"interrupted; written: {listed(written)}" if written else "interrupted; nothing was written"
        fix = "run the command again" + (", with --overwrite if it refuses to replace them" if written else "")
        return f"{what}; fix: {fix}", Interrupted.exit_code
    if isinstance(error, MemoryError) or any(words in str(error) for words in _MEMORY_WORDS):
        line = "memory: not enough; fix: use smaller images, a smaller batch or a smaller network"
        return line, ResourceError.exit_code
    if "Too many open files" in str(error) or (isinstance(error, OSError) and error.errno == errno.EMFILE):
        line = "open files: the limit of the system is reached"
        fix = "raise it (`ulimit -n 4096`), or use fewer workers"
        return f"{line}; fix: {fix}", ResourceError.exit_code
    if isinstance(error, OSError):
        what = os.strerror(error.errno) if error.errno else _one_line(error)
        code = ResourceError.exit_code if error.errno in _RESOURCE_ERRNOS else 2
        subject = str(error.filename or "system")
        if error.errno == errno.ENAMETOOLONG and len(subject) > _MAX_PATH_SHOWN:
            subject = cut(subject)
        return f"{subject}: {what}; fix: check the path, its permissions and the free space", code
    if "torchvision::" in str(error):
        # Lightning imports torchvision, whose operators fit one build of torch only.
        line = "torchvision: was built for another torch than the installed one"
        fix = (
            "install both from one index (`pip install --force-reinstall torch torchvision`), or uninstall torchvision"
        )
        return f"{line}; fix: {fix}", ResourceError.exit_code
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return "path: contains a null character; fix: give the path without it", 2
    what = f"{type(error).__name__}: {cut(error)}"
    return f"pixelwise itself failed: {what}; fix: please report it with the output of --debug", ResourceError.exit_code


def _usage(error: CycloptsError, tokens: Sequence[str]) -> str:
    """Return the sentence of cyclopts in our form: command, what is wrong with which option, fix."""
    command = " ".join(["pixelwise", *(error.command_chain or ())])
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        # cyclopts says "--out requires an argument" for both cases.
        name = error.argument.name
        added = f"{name} {'PATH' if error.argument.hint is Path else 'VALUE'}" if name.startswith("-") else name
        what = f"{name}: expected a value" if name in tokens else f"{name} is missing"
        return f"{command}: {what}; fix: add {added}, see `{command} --help`"
    if isinstance(error, UnusedCliTokensError):
        what = f"unexpected argument {cut(' '.join(error.unused_tokens or ()))}"
    else:
        what = re.sub(r'^Command "[^"]*" parameter ', "", _one_line(error)).rstrip(".")
        what = what if what[:2].isupper() else what[:1].lower() + what[1:]
        # It echoes what was typed.
        what = re.sub(r"\S{101,}", lambda found: cut(found[0]), what)
    return f"{command}: {what}; fix: see `{command} --help`"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def run() -> None:
    """Run the console script; characters that the terminal cannot show are written as escapes."""
    # Where a standard stream is closed, the next file that is opened would take its number, and what libraries print
    # would go into that file.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    # Python leaves None for a closed stream, and libraries that ask whether it is a terminal fail.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, for the whole process
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(main())
