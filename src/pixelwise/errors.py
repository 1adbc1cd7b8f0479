"""The errors that pixelwise raises on purpose, with the exit code of each, and the words that messages share.

    PixelwiseError
    ├── InputError           2   a file, folder, setting or argument is wrong
    │   ├── ImageError           an image cannot be read, or would be read wrongly
    │   ├── MaskError            a mask has unknown values or the wrong shape
    │   ├── DatasetError         the files of a dataset do not fit together
    │   ├── ConfigError          a setting is unknown, of the wrong type or out of range
    │   ├── UnknownNameError     no model, backbone, dataset format or recipe has that name
    │   └── CheckpointError      a checkpoint or weight file is damaged or does not fit the network
    ├── ResourceError        3   disk full, no permission, no memory, no such device, package not installed
    └── Interrupted          4   stopped by the user or by a signal; the state is saved

Every message is one line: `<subject>: <what is wrong: expected X, got Y>; fix: <how>`.
"""

from __future__ import annotations

from collections.abc import Iterable


def listed(names: Iterable[object], limit: int = 5) -> str:
    """Return "a, b, c": the first `limit` names, and after them how many there are in total if some are left out."""
    words = [str(name) for name in names]
    return ", ".join(words[:limit]) + (f", ... ({len(words)} in total)" if len(words) > limit else "")


def os_reason(error: OSError) -> str:
    """Return the operating system's reason without number and path, such as "No space left on device"."""
    return error.strerror or str(error)


class PixelwiseError(Exception):
    """Base of all errors: `str(error)` is one line, `exit_code` is the exit status of the command.

    subject   the file, option or argument at fault
    what      what is wrong with it
    fix       how to fix it; may be empty
    """

    exit_code = 2

    def __init__(self, subject: object, what: str, fix: str = "") -> None:
        self.subject = str(subject)
        self.what = what
        self.fix = fix
        super().__init__(str(self))

    def __str__(self) -> str:
        line = f"{self.subject}: {self.what}" + (f"; fix: {self.fix}" if self.fix else "")
        return " ".join(line.split())

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
