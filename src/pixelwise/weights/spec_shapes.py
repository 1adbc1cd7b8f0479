"""The shapes of a network's tensors, from its specification alone: without memory, and in bounded time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from ..errors import shown
from ..models import ModelSpec

# Largest integer among a network's options, channels and sizes in pixels: builders make lists of such lengths.
_MAX_OPTION = 10**6


def shapes_of(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a network, without memory for the tensors. Raises the errors of building."""
    with torch.device("meta"), _WithoutValues():
        return {name: tuple(tensor.shape) for name, tensor in spec.build().state_dict().items()}


def bounded_shapes(spec: ModelSpec, stored: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return `shapes_of` an untrusted specification from a file, in bounded time.

    stored  the shapes in the weight file
    Raises the errors of building the network, and ValueError if it is far larger than the file.
    """
    longest = max((size for shape in stored.values() for size in shape), default=0)
    # Any, because a file may hold other values than integers.
    counts: dict[str, Any] = {"num_classes": spec.num_classes, "in_channels": spec.in_channels}
    for name, count in counts.items():
        if isinstance(count, int) and count > longest:
            raise ValueError(f"{name} is {shown(count)}, but no tensor is longer than {longest} along an axis")
    if any(abs(number) > _MAX_OPTION for number in _integers(spec.options)):
        raise ValueError(f"an option is a number beyond {_MAX_OPTION:,}")
    thread, num_left = threading.get_ident(), 2 * len(stored) + 500

    def count_down(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter) -> None:
        nonlocal num_left
        if threading.get_ident() == thread:
            num_left -= 1
            if num_left < 0:
                raise ValueError(f"the network has far more tensors than the {len(stored)} of the file")

    hook = register_module_parameter_registration_hook(count_down)
    try:
        return shapes_of(spec)
    finally:
        hook.remove()


def _integers(value: Any) -> Iterator[int]:
    """Yield all integers in nested options."""
    if isinstance(value, int):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _integers(item)


class _WithoutValues(TorchFunctionMode):
    """Skip functions that fill tensors (`normal_`, `copy_`), which take most of the time of building a network."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.__name__.endswith("_") and not func.__name__.endswith("__"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
