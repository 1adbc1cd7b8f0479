"""Names -> builders. An unknown name is an error that lists the nearest ones.

Registering a thing is what makes it tested: the contract tests run over every entry, in its `tiny` size.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Generic, TypeVar

from .errors import ConfigError, UnknownNameError

T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One registered thing: `build(**options)` makes it, `tiny` are the options of its test size.

    paper   address of its source
    year    when that appeared
    scores  where its published scores stand, such as "VOC 2012 test 67.2 (table 3)"
    """

    name: str
    build: Callable[..., T]
    tiny: dict[str, Any]
    summary: str
    paper: str
    year: int
    scores: str

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """The builder's parameters by name: the only options there are."""
        return dict(inspect.signature(self.build).parameters)


class Registry(Generic[T]):
    """A table of builders of one kind (`kind` is the word used in messages)."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[T]] = {}

    def register(
        self, name: str, *, tiny: dict[str, Any], paper: str = "", year: int = 0, scores: str = ""
    ) -> Callable[[Callable[..., T]], Callable[..., T]]:
        """Decorate a builder. `tiny` are options that make it small enough for a test on every push."""

        def decorate(build: Callable[..., T]) -> Callable[..., T]:
            assert name not in self._entries, f"{self.kind} {name} is registered twice"
            summary = (inspect.getdoc(build) or "").partition("\n")[0]
            entry = Entry(name, build, tiny, summary, paper, year, scores)
            unknown = set(tiny) - set(entry.options)
            assert not unknown, f"{name}: tiny options {sorted(unknown)} are not parameters of the builder"
            self._entries[name] = entry
            return build

        return decorate

    def __getitem__(self, name: str) -> Entry[T]:
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(name, f"no such {self.kind}", suggest(name, self._entries)) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def create(self, name: str, *, tiny: bool = False, **options: Any) -> T:
        """Build `name`; options override the builder's defaults, and those of the tiny size.

        Raises UnknownNameError for the name, ConfigError for an option that the builder does not have, or a number that is none.
        """
        entry = self[name]
        for option, value in options.items():
            if option not in entry.options:
                raise ConfigError(f"{self.kind} {name}", f"has no option {option!r}", suggest(option, entry.options))
            kind, article = NUMBERS.get(str(entry.options[option].annotation), (object, ""))
            if not isinstance(value, kind) or (kind is not object and isinstance(value, bool)):
                raise ConfigError(f"{self.kind} {name}", f"option {option} is {value!r}", f"write {article}")
        return entry.build(**{**(entry.tiny if tiny else {}), **options})


# What an option's annotation asks for, and how to say it.
NUMBERS: dict[str, tuple[type, str]] = {"int": (Integral, "a whole number"), "float": (Real, "a number")}


def suggest(name: str, known: Any) -> str:
    """The sentence that leads from a wrong name to a right one."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(near) + "?"
    return "known are " + ", ".join(sorted(known))
