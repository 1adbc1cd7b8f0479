"""Distributed helpers: rank of this process, launch checks, reductions."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from ..errors import ConfigError, ResourceError


def process_rank() -> int:
    """Return the rank that torchrun, or Lightning's launcher, set in the environment; 0 without a launcher."""
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0)


def check_launch(settings: TrainConfig, device: str) -> None:
    """Refuse a launch that differs from the settings: every process would train, and write, by itself.

    Raises ConfigError naming the option, ResourceError if there are fewer GPUs than `devices`.
    """
    world_size = settings.devices * settings.nodes
    if "TORCHELASTIC_RUN_ID" in os.environ:
        started, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        if (started, here) != (world_size, settings.devices):
            what = (
                f"expected {settings.devices} processes on each of {settings.nodes} nodes, "
                f"but torchrun started {here} on this node and {started} in total"
            )
            fix = f"add --train.devices {here} --train.nodes {max(started // here, 1)}"
            raise ConfigError("--train.devices", what, fix)
    elif settings.nodes > 1:
        fix = f"torchrun --nnodes {settings.nodes} --nproc_per_node {settings.devices} -m pixelwise train ..."
        raise ConfigError("--train.nodes", f"expected {settings.nodes} nodes, but no launcher started the others", fix)
    if device == "cuda" and settings.devices > torch.cuda.device_count():
        what = f"expected {settings.devices} GPUs, this node has {torch.cuda.device_count()}"
        raise ResourceError("--train.devices", what, "ask for fewer, or set --train.device cpu")


def is_distributed() -> bool:
    """Return whether several ranks are running together."""
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def mean_over_ranks(value: Tensor) -> Tensor:
    """Return the mean of a number over all ranks, the same on each."""
    if not is_distributed():
        return value
    total = value.detach().clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()


def max_over_ranks(value: int, device: torch.device) -> int:
    """Return the largest of an integer over all ranks, so that all ranks take the same decision in the same step."""
    if not is_distributed():
        return value
    largest = torch.tensor(value, device=device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return int(largest)


def copy_from_first(model: nn.Module) -> None:
    """Copy the first rank's tensors to all others: every rank collects batch-norm statistics of its own."""
    if is_distributed():
        for tensor in model.state_dict().values():
            # Broadcast needs contiguous memory, which channels_last weights are not.
            sent = tensor.contiguous()
            torch.distributed.broadcast(sent, 0)
            tensor.copy_(sent)
