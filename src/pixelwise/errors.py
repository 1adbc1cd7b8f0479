"""The errors that pixelwise raises on purpose, with the exit code of each, and the words that messages share.

    PixelwiseError
    ├── InputError           2   a file, folder, setting or argument is wrong
    │   ├── ImageError           an image cannot be read correctly
    │   ├── MaskError            a mask has unknown values or the wrong shape
    │   ├── DatasetError         the files of a dataset do not fit together
    │   ├── ConfigError          a setting is unknown, of the wrong type or out of range
    │   ├── UnknownNameError     no model, backbone, dataset format or recipe has that name
    │   └── CheckpointError      a checkpoint or weight file is damaged or does not fit the network
    ├── ResourceError        3   disk full, no permission, no memory, no such device, package not installed
    └── Interrupted          4   stopped by the user or by a signal; the state is saved

Every message is one printable line: `<subject>: <what is wrong: expected X, got Y>; fix: <how>`.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable
from itertools import accumulate
from pathlib import PurePath

# The longest text of one value in a message.
MAX_SHOWN = 100
# The longest text of a list of names, unless its first name is longer.
MAX_LISTED = 120


# Control characters, marks that reorder or hide text, and halves of surrogate pairs.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e0fff]"
)


class _Repr(reprlib.Repr):
    """Python's `repr` of any value in bounded time and length."""

    def repr_int(self, x: int, level: int) -> str:
        # Python writes no integer of more than 4300 digits.
        return repr(x) if x.bit_length() < 1000 else f"an integer of {x.bit_length()} bits"


_REPR = _Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother, _REPR.maxlong = 4, 4 * MAX_SHOWN, 4 * MAX_SHOWN, 4 * MAX_SHOWN
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = _REPR.maxset = _REPR.maxfrozenset = 12


def printable(text: object, *, keep: str = "") -> str:
    """Return the text with escapes such as `\\x1b` for the characters that would move a terminal's cursor or lie.

    A file, a class or a setting may have any name.

    keep  characters that stay as they are
    """
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), str(text))


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def cut(text: object) -> str:
    """Return the text on one printable line, with at most `MAX_SHOWN` characters; a longer one ends in "..."."""
    # Cut first: the text may have megabytes.
    line = printable(" ".join(str(text)[: 8 * MAX_SHOWN].split()))
    return line if len(line) <= MAX_SHOWN else line[: MAX_SHOWN - 3] + "..."


def shown(value: object) -> str:
    """Return a value as Python writes it, with at most `MAX_SHOWN` characters, however large and nested it is."""
    return cut(_REPR.repr(value))


def listed(names: Iterable[object], limit: int = 5) -> str:
    """Return "a, b, c": the first `limit` names or 120 characters, and the total number if some are left out."""
    words = [cut(name) for name in names]
    lengths = accumulate(len(word) + 2 for word in words[:limit])
    num = max(1, sum(length <= MAX_LISTED for length in lengths))
    return ", ".join(words[:num]) + (f", ... ({len(words)} in total)" if len(words) > num else "")


def size_text(size: Iterable[int]) -> str:
    """Return a size or shape as text: (480, 640) -> "480x640", height before width."""
    return "x".join(map(str, size))


def error_lines(errors: Iterable[PixelwiseError], limit: int = 50) -> list[str]:
    """Return a line per kind of error: the first of the kind, then how many more there are, and the names of files.

    Errors of one kind differ in their subject and their numbers only. At most `limit` kinds have a line.
    """
    kinds: dict[str, list[PixelwiseError]] = {}
    for error in errors:
        kinds.setdefault(re.sub(r"\d+", "0", f"{error.what};{error.fix}"), []).append(error)
    lines = [
        str(first)
        + (f" (and {len(others)} more: {listed(PurePath(e.subject).name for e in others)})" if others else "")
        for first, *others in kinds.values()
    ]
    return lines[:limit] + ([f"... and {len(lines) - limit} more kinds of errors"] if len(lines) > limit else [])


def os_reason(error: Exception) -> str:
    """Return the operating system's reason without number and path, such as "No space left on device".

    For any other error, return its text on one line, cut.
    """
    return (error.strerror if isinstance(error, OSError) else None) or cut(error)


class PixelwiseError(Exception):
    """Base of all errors: `str(error)` is one line, `exit_code` is the exit status of the command.

    subject   the file, option or argument at fault
    what      what is wrong with it
    fix       how to fix it
    """

    exit_code = 2

    def __init__(self, subject: object, what: str, fix: str) -> None:
        self.subject = str(subject)
        self.what = what
        self.fix = fix
        super().__init__(str(self))

    def __str__(self) -> str:
        line = f": {self.what}; fix: {self.fix}"
        return printable(self.subject) + printable(" ".join(line.split()))

    def __reduce__(self) -> tuple[type[PixelwiseError], tuple[str, str, str]]:
        """Keep the three parts when the error is pickled on its way out of a DataLoader worker."""
        return type(self), (self.subject, self.what, self.fix)


class InputError(PixelwiseError):
    """A file, folder, setting or argument is wrong."""


class ImageError(InputError):
    """An image cannot be read, or would be read with other pixels than its author meant."""


class MaskError(InputError):
    """A mask has values that the taxonomy does not know, or the wrong shape."""


class DatasetError(InputError):
    """The files of a dataset do not fit together: missing pairs, unequal sizes, an empty split."""


class ConfigError(InputError):
    """A setting is unknown, of the wrong type, or out of range."""


class UnknownNameError(InputError):
    """No entry of a registry has that name; the message lists the nearest ones."""


class CheckpointError(InputError):
    """A checkpoint or a weight file of another library is damaged, or does not fit the network."""


class ResourceError(PixelwiseError):
    """The machine lacks something: disk space, permission, memory, a device, an optional package."""

    exit_code = 3


class Interrupted(PixelwiseError):
    """The user or a signal stopped the work; everything finished so far is saved."""

    exit_code = 4
