"""The command line: a table from commands to functions, and the one place where errors become a line and an exit code.

Exit codes: 0 done; 1 done, but some inputs failed; 2 bad input, config or usage; 3 environment; 4 interrupted, state saved.
Commands are imported when they are called, so that `pixelwise --help` needs no torch.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from .errors import EnvironmentFault, Interrupted, PixelwiseError, UnknownNameError
from .registry import suggest

# Command -> its function and the line that `--help` shows, here so that help has to import nothing.
COMMANDS = {
    "train": ("train:train", "Train a network on a folder of images and masks."),
    "evaluate": ("evaluate:evaluate", "Score a model, or a folder of predicted masks, on a split with truth."),
    "predict": ("predict:predict", "Label pictures: masks, overlays, probabilities."),
    "compare": ("compare:compare", "Several models side by side on one picture."),
    "explain": ("explain:explain", "Show why: heat maps, what each skip adds, activations, receptive field."),
    "profile": ("profile:profile", "Parameters, multiply-adds, receptive field, stride, speed of a network."),
    "import": ("import_:import_", "Turn published weights (Caffe, torchvision) into a checkpoint."),
    "report": ("report:report", "Write a run's report.html anew."),
    "demo": ("demo:demo", "Label a folder of photos and show them on one page."),
    "models": ("listings:models", "List the networks that can be trained."),
    "backbones": ("listings:backbones", "List the trunks that networks stand on."),
    "datasets": ("listings:datasets", "List the dataset layouts that are recognised."),
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
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`); Python would complain again while closing it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        line, code = describe(error)
        print(f"error: {line}", file=sys.stderr)
        return code
    return result if isinstance(result, int) else 0


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
        return f"{_one_line(error)}; fix: see `pixelwise --help`", 2
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; what was finished is on disk", Interrupted.exit_code
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error):
        return "memory: not enough for this; fix: smaller pictures, batch size or network", EnvironmentFault.exit_code
    if isinstance(error, OSError):
        what = os.strerror(error.errno) if error.errno else _one_line(error)
        code = EnvironmentFault.exit_code if error.errno in _ENVIRONMENT else 2
        return f"{error.filename or 'system'}: {what}", code
    return f"pixelwise itself failed: {type(error).__name__}: {_one_line(error)}; fix: please report it with --debug's output", 3


_ENVIRONMENT = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENOMEM}


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def run() -> None:
    """The console script."""
    sys.exit(main())
