"""Registries: names with their builders. An unknown name or option is an error that names the nearest ones.

Registering a network also tests it: the contract tests run over every entry, in its `tiny` size.

The builders of a package are imported when they are asked for. Importing all networks and torch takes seconds, so the
package may keep an index, `index.json`, which says what each of its modules registers: one name then imports one
module, and a listing imports none. The index is a cache. Modules that it does not know are imported to see what they
register, and an unknown name is looked for in all of them if any was changed after the index was written.
`python tools/write_index.py` writes it anew.
"""

from __future__ import annotations

import difflib
import inspect
import json
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import ConfigError, UnknownNameError, cut, listed, shown

T = TypeVar("T")
Builder = TypeVar("Builder", bound=Callable[..., Any])
# Names that fit into a message.
MAX_NAMES = 10
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
INDEX = "index.json"
# The files of an installation or a checkout are written within this time.
_SECONDS_TO_INSTALL = 60


@dataclass(frozen=True)
class Row:
    """What a listing shows of a builder, and an index keeps of it.

    module   the module of the package that defines the builder
    options  the default of each option that has one, as JSON holds it
    The other fields are those of `Entry`.
    """

    name: str
    module: str
    summary: str
    paper: str
    year: int
    scores: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One registered builder: a function, a class or a `functools.partial` of either.

    build     returns the object; its parameters are the options
    tiny      options of a size that is small enough for a test on every push
    summary   one line
    paper     address of the source
    year      year of publication of the source
    scores    published scores with their table or split, such as "VOC 2012 test 67.2 (table 3)"
    defaults  options whose default under this name is not the builder's own
    """

    name: str
    build: Callable[..., T]
    tiny: Mapping[str, Any]
    summary: str
    paper: str
    year: int
    scores: str
    defaults: Mapping[str, Any]

    @cached_property
    def options(self) -> Mapping[str, inspect.Parameter]:
        """Parameters of the builder by name, with resolved annotations, without those that a partial has bound."""
        bound = self.build.keywords if isinstance(self.build, partial) else {}
        parameters = inspect.signature(self.build, eval_str=True).parameters
        options = {name: parameter for name, parameter in parameters.items() if name not in bound}
        return options | {name: options[name].replace(default=value) for name, value in self.defaults.items()}

    @cached_property
    def product(self) -> Any:
        """Class of the objects that `build` returns; of a function, its annotated return type."""
        build = _unbound(self.build)
        return build if isinstance(build, type) else get_type_hints(build)["return"]

    @property
    def module(self) -> str:
        """Name of the module that defines the builder."""
        return _unbound(self.build).__module__

    @property
    def row(self) -> Row:
        """What a listing shows of the builder."""
        defaults = {name: p.default for name, p in self.options.items() if p.default is not p.empty}
        # Tuples become lists, and read-only mappings dicts, as in the index.
        options = json.loads(json.dumps(defaults, default=dict))
        module = self.module.rpartition(".")[2]
        return Row(self.name, module, self.summary, self.paper, self.year, self.scores, options)


class Registry(Generic[T]):
    """A table of builders of one kind.

    kind     the word used in messages
    listing  the command that lists the names, for messages
    package  the package whose modules register builders; they are imported when they are needed
    """

    def __init__(self, kind: str, listing: str = "", *, package: str = "") -> None:
        self.kind = kind
        self.listing = listing
        self.package = package
        self._entries: dict[str, Entry[T]] = {}

    def register(
        self,
        name: str,
        *,
        summary: str = "",
        tiny: Mapping[str, Any] = NO_OPTIONS,
        paper: str = "",
        year: int = 0,
        scores: str = "",
        defaults: Mapping[str, Any] = NO_OPTIONS,
    ) -> Callable[[Builder], Builder]:
        """Return a decorator that registers a builder as `name`; the fields are those of `Entry`.

        Without a summary, the first line of the builder's docstring is taken. `register(...)(partial(Net, depth=50))`
        registers one class under several names.
        """

        def decorate(build: Builder) -> Builder:
            assert name not in self._entries, f"{self.kind} {name} is registered twice"
            line = summary or (inspect.getdoc(_unbound(build)) or "").partition("\n")[0]
            entry: Entry[T] = Entry(name, build, tiny, line, paper, year, scores, defaults)
            unknown = set(tiny) - set(entry.options)
            assert not unknown, f"{name}: tiny options {sorted(unknown)} are not parameters of the builder"
            self._entries[name] = entry
            return build

        return decorate

    def __getitem__(self, name: str) -> Entry[T]:
        if name not in self._entries and name in self._indexed:
            import_module(f"{self.package}.{self._indexed[name].module}")
            if name not in self._entries:
                # The index is wrong: the builder has moved, or is gone.
                self._all_entries()
        if name not in self._entries and (name in self._indexed or name not in self):
            raise self._unknown(name)
        return self._entries[name]

    def check_name(self, name: str) -> None:
        """Raise UnknownNameError, with the nearest known names, for a name that is not registered."""
        if name not in self:
            raise self._unknown(name)

    def _unknown(self, name: str) -> UnknownNameError:
        known = {*self._entries, *self._indexed} - {name}
        return UnknownNameError(cut(name), f"no such {self.kind}", suggest(name, known, listing=self.listing))

    def __contains__(self, name: object) -> bool:
        known = name in self._entries or name in self._indexed
        return known or (not self._is_current() and name in self._all_entries())

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, sorted: the order of registration depends on what was imported first."""
        return iter(sorted(self._all_entries()))

    def rows(self) -> list[Row]:
        """Return a row per builder, sorted by name, without importing the modules that the index knows."""
        modules = self._modules()
        for module in modules:
            if module not in self._index:
                import_module(f"{self.package}.{module}")
        rows = {row.name: row for module in modules for row in self._index.get(module, ())}
        rows |= {name: entry.row for name, entry in self._entries.items()}
        return [rows[name] for name in sorted(rows)]

    def row(self, name: str) -> Row:
        """Return the row of a builder. Raises UnknownNameError."""
        return self._indexed[name] if name in self._indexed else self[name].row

    def index_text(self) -> str:
        """Return the content of the package's index: JSON, with the rows of each module, one per line."""
        lines: dict[str, list[str]] = {module: [] for module in self._modules()}
        for name in self:
            row = dict(vars(self[name].row))
            lines[row.pop("module")].append(f"\n    {json.dumps(row)}")
        return "{\n" + ",\n".join(f'  "{module}": [{",".join(rows)}]' for module, rows in lines.items()) + "\n}\n"

    @cached_property
    def _index(self) -> dict[str, list[Row]]:
        """The rows of each module that the index knows."""
        modules = set(self._modules())
        file = self._folder() / INDEX if modules else None
        if file is None or not file.is_file():
            return {}
        try:
            index = json.loads(file.read_text(encoding="utf-8"))
            return {m: [Row(module=m, **row) for row in rows] for m, rows in index.items() if m in modules}
        except (ValueError, TypeError, AttributeError):
            # It is a cache, and may be that of another version.
            return {}

    @cached_property
    def _indexed(self) -> dict[str, Row]:
        """The rows that the index knows, by name."""
        return {row.name: row for rows in self._index.values() for row in rows}

    def _is_current(self) -> bool:
        """Return whether the index knows every module, and none was changed after it was written."""
        modules = self._modules()
        if not modules:
            return True
        if not self._index.keys() >= set(modules):
            return False
        limit = (self._folder() / INDEX).stat().st_mtime + _SECONDS_TO_INSTALL
        return all((self._folder() / f"{module}.py").stat().st_mtime <= limit for module in modules)

    def _folder(self) -> Path:
        return Path(str(sys.modules[self.package].__file__)).parent

    def _modules(self) -> list[str]:
        """Return the names of the package's modules, none without a package."""
        return [module.name for module in pkgutil.iter_modules([str(self._folder())])] if self.package else []

    def _all_entries(self) -> dict[str, Entry[T]]:
        """Return the entries after importing every module of the package."""
        for module in self._modules():
            import_module(f"{self.package}.{module}")
        return self._entries

    def create(self, name: str, *, tiny: bool = False, **options: Any) -> T:
        """Build `name`; options override those of the tiny size, which override the builder's defaults.

        Raises UnknownNameError for the name, ConfigError for an unknown option or a value of the wrong type.
        """
        entry = self[name]
        for option, value in options.items():
            if option not in entry.options:
                raise ConfigError(
                    f"{self.kind} {name}", f"has no option {shown(option)}", suggest(option, entry.options)
                )
            parameter = entry.options[option]
            if not _fits(value, parameter.annotation):
                what = f"option {option}: expected {type_in_words(parameter.annotation)}, got {shown(value)}"
                required = parameter.default is parameter.empty
                fix = "give one" if required else f"leave it out: the default is {shown(parameter.default)}"
                raise ConfigError(f"{self.kind} {name}", what, fix)
        return entry.build(**{**entry.defaults, **(entry.tiny if tiny else {}), **options})


def _unbound(build: Callable[..., Any]) -> Callable[..., Any]:
    return build.func if isinstance(build, partial) else build


# The values that an annotation accepts, and its name in messages. The settings of a run have a check of their own in
# `setting_value.py`: they come from YAML and are converted (1 to 1.0), while options are Python values that pass
# unchanged (any Sequence, any Real).
SCALARS: dict[Any, tuple[type, str]] = {
    bool: (bool, "true or false"),
    int: (Integral, "an integer"),
    float: (Real, "a number"),
    str: (str, "a string"),
    type(None): (type(None), "null"),
}
_PLURALS = {int: "integers", float: "numbers", str: "strings"}


def _fits(value: Any, annotation: Any) -> bool:
    """Return whether a value fits its annotation: a scalar, a Literal, a Sequence of one type, or a union of these."""
    if annotation in SCALARS:
        # A bool is an int for Python, but not for a reader of settings.
        return isinstance(value, SCALARS[annotation][0]) and (annotation is bool or not isinstance(value, bool))
    arguments, origin = get_args(annotation), get_origin(annotation)
    if origin is Literal:
        return value in arguments
    if origin in (Union, UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is Sequence:
        return isinstance(value, Sequence) and not isinstance(value, str) and all(_fits(v, arguments[0]) for v in value)
    return not isinstance(origin, type) or isinstance(value, origin)


def type_in_words(annotation: Any) -> str:
    """Return a type as messages call it: "an integer", "a list of numbers or null". Settings share these words."""
    if annotation in SCALARS:
        return SCALARS[annotation][1]
    arguments, origin = get_args(annotation), get_origin(annotation)
    if origin is Literal:
        return "one of " + ", ".join(str(argument) for argument in arguments)
    if origin in (Union, UnionType):
        return " or ".join(type_in_words(argument) for argument in arguments)
    if origin in (Sequence, list) and arguments[0] in _PLURALS:
        return f"a list of {_PLURALS[arguments[0]]}"
    return "a mapping like {name: value}" if origin in (Mapping, dict) else str(annotation)


def suggest(name: str, known: Iterable[str], *, listing: str = "") -> str:
    """Return the fix for an unknown name: the nearest known ones, else all of them if they are few.

    listing  the command that lists the names; the fix points to it if there are more than `MAX_NAMES`
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(near) + "?"
    if listing and len(known) > MAX_NAMES:
        return f"see `{listing}`"
    return f"choose one of {listed(sorted(known), MAX_NAMES)}"
