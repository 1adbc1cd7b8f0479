"""The processes of one run: which of them this is, whether the launch fits the settings, what they agree on."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from ..errors import ConfigError, ResourceError


def process_rank() -> int:
    """This process's rank as torchrun, or Lightning's own launcher, left it in the environment; 0 without a launcher."""
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0)


def check_launch(settings: TrainConfig, device: str) -> None:
    """Refuse a launch that the settings do not describe: every process would train, and write, for itself.

    Raises ConfigError naming the option, ResourceError when there are fewer GPUs than asked for.
    """
    wanted = settings.devices * settings.nodes
    if "TORCHELASTIC_RUN_ID" in os.environ:
        started, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        if (started, here) != (wanted, settings.devices):
            what = f"is {settings.devices} on {settings.nodes} nodes, but torchrun started {here} processes here, {started} in all"
            fix = f"add --train.devices {here} --train.nodes {max(started // here, 1)}"
            raise ConfigError("--train.devices", what, fix)
    elif settings.nodes > 1:
        fix = f"torchrun --nnodes {settings.nodes} --nproc_per_node {settings.devices} -m pixelwise train ..."
        raise ConfigError("--train.nodes", f"is {settings.nodes}, and nobody started the other nodes", fix)
    if device == "cuda" and settings.devices > torch.cuda.device_count():
        what = f"is {settings.devices}, this node has {torch.cuda.device_count()} GPUs"
        raise ResourceError("--train.devices", what, "ask for fewer, or --train.device cpu")


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a number over all ranks, on each of them; the number itself where there is one rank."""
    if not _many():
        return value
    total = value.detach().clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()


def largest_over_ranks(value: int, device: torch.device) -> int:
    """The largest of a whole number over all ranks, so that all take the same decision in the same step."""
    if not _many():
        return value
    largest = torch.tensor(value, device=device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return int(largest)


def copy_from_first(model: nn.Module) -> None:
    """Give every rank the first one's tensors: batch-norm statistics are gathered by each rank for itself."""
    if _many():
        for tensor in model.state_dict().values():
            # What is sent must lie in one piece; channels_last weights do not.
            sent = tensor.contiguous()
            torch.distributed.broadcast(sent, 0)
            tensor.copy_(sent)


def _many() -> bool:
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
