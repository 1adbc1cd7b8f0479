"""Every error that pixelwise raises on purpose, and the exit code of each.

    PixelwiseError
    ├── InputError           2   a file, a folder, a config, an argument is wrong
    │   ├── ImageError           an image cannot be read or would be read wrongly
    │   ├── MaskError            a mask holds what the taxonomy does not know
    │   ├── DatasetError         a dataset's files do not fit together
    │   ├── ConfigError          a setting is unknown or out of range
    │   ├── UnknownNameError     a model, backbone, dataset or recipe of that name is not registered
    │   └── CheckpointError      a checkpoint or a foreign weight file does not fit
    ├── ResourceError     3   disk, rights, memory, device, a missing optional package
    └── Interrupted          4   stopped by the user or by a signal; state saved

A message has one form, `<subject>: <what, got, allowed>; fix: <how>`, so that one line is enough to act on.
"""

from __future__ import annotations


class PixelwiseError(Exception):
    """The base: `str(error)` is one line without a traceback, `exit_code` what the command ends with."""

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
        """Keep the three parts when the error travels out of a loader's worker process."""
        return type(self), (self.subject, self.what, self.fix)


class InputError(PixelwiseError):
    """What the user handed over is wrong."""


class ImageError(InputError):
    """An image cannot be read, or reading it would give other pixels than its author meant."""


class MaskError(InputError):
    """A mask holds values that the taxonomy does not know, or has the wrong shape."""


class DatasetError(InputError):
    """The files of a dataset do not fit together: missing pairs, unequal sizes, an empty split."""


class ConfigError(InputError):
    """A setting is unknown, of the wrong type, or out of range."""


class UnknownNameError(InputError):
    """No such name in a registry; the message lists the nearest ones."""


class CheckpointError(InputError):
    """A checkpoint or a foreign weight file is damaged, or does not fit the network."""


class ResourceError(PixelwiseError):
    """The machine cannot do it: disk full, no rights, no memory, no such device, package not installed."""

    exit_code = 3


class Interrupted(PixelwiseError):
    """The user or a signal stopped the work; what was done so far is saved."""

    exit_code = 4
