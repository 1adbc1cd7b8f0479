"""Convert a value from YAML to the type of its setting, or raise an error that says how to write it.

The options of networks, which are Python values, are checked by `registry.py`, in the same words.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import operator
from contextlib import suppress
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import ConfigError, shown
from .registry import type_in_words

# Characters of a value in the fix of a message.
MAX_EXAMPLE = 100
BOUNDS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


@cache
def types_of(section: type) -> dict[str, Any]:
    """Return the types of a dataclass's fields by name."""
    return get_type_hints(section)


def alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the type itself."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def checked(value: Any, option: dataclasses.Field[Any], section: type, subject: str) -> Any:
    """Return `value` as the field's type. Raises ConfigError with `subject` for a wrong type or range."""
    hint = types_of(section)[option.name]
    kinds = alternatives(hint)
    for kind in kinds:
        with suppress(TypeError):
            converted = _convert(value, kind)
            break
    else:
        words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
        near = difflib.get_close_matches(str(value), words, n=1)
        fix = f"did you mean {near[0]}?" if near else "" if words else _example(value, option, kinds[0], subject)
        raise ConfigError(subject, f"expected {type_in_words(hint)}, got {shown(value)}", fix)
    numbers = [n for n in (converted if isinstance(converted, list) else [converted]) if isinstance(n, int | float)]
    bounds = option.metadata["bounds"]
    if not all(math.isfinite(number) for number in numbers):
        raise ConfigError(subject, f"must be finite, got {shown(value)}")
    if not all(BOUNDS[sign](number, bound) for number in numbers for sign, bound in bounds.items()):
        expected = " and ".join(f"{sign} {bound:.10g}" for sign, bound in bounds.items())
        raise ConfigError(subject, f"must be {expected}, got {shown(value)}")
    if isinstance(converted, list) and option.metadata["length"] not in (None, len(converted)):
        fix = _example(value, option, kinds[0], subject)
        raise ConfigError(subject, f"expected {option.metadata['length']} numbers, got {shown(value)}", fix)
    return converted


def _example(value: Any, option: dataclasses.Field[Any], kind: Any, subject: str) -> str:
    """Return the fix for a number or a list in a wrong form: how to write it, with the given number or the default."""
    item = get_args(kind)[0] if get_origin(kind) is list else None
    if item is None and kind not in (int, float):
        return ""
    example = option.default_factory() if callable(option.default_factory) else option.default
    with suppress(TypeError):
        # A number in place of a list: the list of that number.
        _convert(value, item)
        example = [value] * (option.metadata["length"] or 1)
    text = str(example).replace("'", "")
    if example == [] or len(text) > MAX_EXAMPLE:
        return ""
    if subject.startswith("--"):
        return f"write {subject} " + (f'"{text}"' if item else text)
    return f"write `{option.name}: {text}`"


def _convert(value: Any, kind: Any) -> Any:
    """Return `value` as `kind`, integers as floats where floats are expected. Raises TypeError."""
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
    elif get_origin(kind) is list and isinstance(value, list):
        return [_convert(item, get_args(kind)[0]) for item in value]
    elif kind is float and type(value) is int:
        return float(value) if abs(value) < 2**1000 else math.inf
    elif type(value) is (get_origin(kind) or kind):
        return value
    raise TypeError
