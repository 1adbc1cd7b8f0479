"""The command line: a table from commands to functions, and the one place where errors become a line and an exit code.

Exit codes: 0 done; 1 done, but some inputs failed; 2 bad input, config or usage; 3 environment; 4 interrupted, state saved.
Commands are imported when they are called, so that `pixelwise --help` needs no torch.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

from cyclopts import App, CycloptsError
from cyclopts.exceptions import UnusedCliTokensError

from .errors import Interrupted, PixelwiseError, ResourceError, UnknownNameError
from .registry import suggest

# Command -> its function and the line that `--help` shows, here so that help has to import nothing.
COMMANDS = {
    "train": ("train:train", "Train a network on a folder of images and masks."),
    "evaluate": ("evaluate:evaluate", "Score a model, or a folder of predicted masks, on a split with truth."),
    "predict": ("predict:predict", "Label images: masks, overlays, probabilities."),
    "compare": ("compare:compare", "Several models side by side on one image."),
    "explain": ("explain:explain", "Show why: heat maps, what each skip adds, activations, receptive field."),
    "crf-search": ("crf_search:crf_search", "Find the fully connected CRF's parameters for a model."),
    "profile": ("profile:profile", "Parameters, multiply-adds, receptive field, stride, speed of a network."),
    "import": ("import_:import_", "Turn published weights (Caffe, torchvision) into a checkpoint."),
    "report": ("report:report", "Write a run's report.html anew."),
    "demo": ("demo:demo", "Label a folder of photos and show them on one page."),
    "models": ("listings:models", "List the networks that can be trained, or tell about one."),
    "backbones": ("listings:backbones", "List the backbones that networks stand on."),
    "datasets": ("listings:datasets", "List the dataset formats that are recognised."),
    "recipes": ("listings:recipes", "List the recipes that `train` takes by name."),
}
ALIASES = {"evaluate": ("eval", "val", "test")}


def build_app() -> App:
    """The application; each command is a dotted path that is imported when it is called."""
    app = App(
        name="pixelwise",
        help="A label for every pixel: train, score, predict, compare and explain semantic segmentation.",
        help_epilogue="Add --debug to any command for the traceback of an error.",
        version_flags=["--version"],
        suppress_keyboard_interrupt=False,
    )
    for name, (target, summary) in COMMANDS.items():
        app.command(f"pixelwise.commands.{target}", name=name, alias=ALIASES.get(name), help=summary)
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code. Every failure is one line on standard error."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]
    try:
        _refuse_unknown(tokens)
        result = build_app()(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        if tokens[:1] == ["train"] and {"--help", "-h"} & set(tokens):
            from .commands.train import print_settings

            print_settings()
        if sys.stdout is not None:
            sys.stdout.flush()
    except (BrokenPipeError, SystemExit):
        # Whoever read our output has gone (`| head`); rich then asks for the end of the process.
        _close_stdout()
        return 0
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001, here every error becomes a line and a code
        if debug:
            traceback.print_exc()
        line, code = describe(error)
        print(f"error: {_printable(line)}", file=sys.stderr)
        _close_stdout_if_stuck()
        return code
    return result if isinstance(result, int) else 0


def _close_stdout() -> None:
    """Send the rest of the output nowhere, or Python would complain once more when it ends."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _close_stdout_if_stuck() -> None:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        _close_stdout()


def _printable(line: str) -> str:
    """The line without what would move the terminal's cursor: a file may be called anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in line)


def _refuse_unknown(tokens: Sequence[str]) -> None:
    """Name the nearest command; the library would import every command to find it."""
    known = [*COMMANDS, *(alias for names in ALIASES.values() for alias in names)]
    if tokens and not tokens[0].startswith("-") and tokens[0] not in known:
        raise UnknownNameError(tokens[0], "no such command", suggest(tokens[0], known))


def describe(error: BaseException) -> tuple[str, int]:
    """The line and the exit code of an error; an unforeseen one is ours, and says so."""
    if isinstance(error, PixelwiseError):
        return str(error), error.exit_code
    if isinstance(error, CycloptsError):
        return _usage(error), 2
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; what was finished is on disk", Interrupted.exit_code
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error):
        return "memory: not enough for this; fix: smaller images, batch size or network", ResourceError.exit_code
    if isinstance(error, OSError):
        what = os.strerror(error.errno) if error.errno else _one_line(error)
        code = ResourceError.exit_code if error.errno in _ENVIRONMENT else 2
        return f"{error.filename or 'system'}: {what}; fix: check the path, its rights and the free space", code
    return (
        f"pixelwise itself failed: {type(error).__name__}: {_one_line(error)}; fix: please report it with --debug's output",
        3,
    )


def _usage(error: CycloptsError) -> str:
    """The library's sentence in our form: the command, what is wrong with which option, where to read on."""
    command = " ".join(["pixelwise", *(error.command_chain or ())])
    if isinstance(error, UnusedCliTokensError):
        what = f"takes no further argument, got {' '.join(error.unused_tokens or ())}"
    else:
        what = re.sub(r'^Command "[^"]*" parameter ', "", _one_line(error)).rstrip(".")
        what = what if what[:2].isupper() else what[:1].lower() + what[1:]
    return f"{command}: {what}; fix: see `{command} --help`"


_ENVIRONMENT = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EIO,
    errno.EMFILE,
    errno.ENOMEM,
}


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def run() -> None:
    """The console script; what the terminal's encoding cannot show is written as its number."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(main())
