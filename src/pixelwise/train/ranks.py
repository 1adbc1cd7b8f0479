"""Distributed helpers: rank of this process, launch checks, reductions."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from ..errors import ConfigError, ResourceError

# Set to the id of the process that starts the other ranks by itself, so that they know their launch from left-overs.
LAUNCHER = "PIXELWISE_LAUNCHER_PID"
# The variables of launchers such as torchrun, which some job systems set as well.
LAUNCH_VARIABLES = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE")


def process_rank() -> int:
    """Return the rank that the launcher set in the environment; 0 without a launcher.

    Raises ConfigError if a variable of a launcher is not a number; Lightning reads some of them when it is imported.
    """
    for name in (*LAUNCH_VARIABLES, "LOCAL_WORLD_SIZE", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        value = os.environ.get(name, "")
        if value and not value.isdecimal():
            raise ConfigError(name, f"expected the variable to be a number, got {value[:20]!r}", f"`unset {name}`")
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0)


def started_by_torchrun() -> bool:
    """Return whether torchrun started this process."""
    names = ("TORCHELASTIC_RUN_ID", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    return all(name in os.environ for name in names)


def started_by_launcher() -> bool:
    """Return whether another process, torchrun or the first rank, started this one as one of several ranks."""
    return started_by_torchrun() or os.environ.get(LAUNCHER) == str(os.getppid())


def check_launch(settings: TrainConfig, device: str) -> None:
    """Refuse a launch that differs from the settings: every process would train, and write, by itself.

    Raises ConfigError naming the option or the variable, ResourceError if there are fewer GPUs than `devices`.
    """
    world_size = settings.devices * settings.nodes
    if started_by_torchrun():
        started, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        if (started, here) != (world_size, settings.devices):
            what = (
                f"expected {settings.devices} processes on each of {settings.nodes} nodes, "
                f"but torchrun started {here} on this node and {started} in total"
            )
            fix = f"add --train.devices {here} --train.nodes {max(started // here, 1)}"
            raise ConfigError("--train.devices", what, fix)
    elif not started_by_launcher():
        torchrun = f"torchrun --nnodes {settings.nodes} --nproc_per_node {settings.devices} -m pixelwise train ..."
        if settings.nodes > 1:
            what = f"expected {settings.nodes} nodes, but no launcher started the others"
            raise ConfigError("--train.nodes", what, torchrun)
        # One process alone may carry variables that say the same; with several devices, Lightning would wait for ranks.
        alone = {"WORLD_SIZE": "1"} if world_size == 1 else {}
        for name in LAUNCH_VARIABLES:
            value = os.environ.get(name, "")
            if value and (world_size > 1 or value != alone.get(name, "0")):
                what = f"the variable is {value[:20]!r}, but torchrun did not start this process"
                raise ConfigError(name, what, f"`unset {' '.join(LAUNCH_VARIABLES)}`, or start with `{torchrun}`")
        tasks = os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SLURM_NTASKS") or "1"
        if world_size > 1 and "SLURM_PROCID" in os.environ and tasks != "1":
            what = f"expected one SLURM task, which starts the {world_size} ranks by itself, got {tasks[:20]}"
            raise ConfigError(
                "srun", what, f"`srun --ntasks 1 pixelwise train ...`, or `{torchrun}` in each node's task"
            )
    if device == "cuda" and settings.devices > torch.cuda.device_count():
        what = f"expected {settings.devices} GPUs, this node has {torch.cuda.device_count()}"
        raise ResourceError("--train.devices", what, "ask for fewer, or set --train.device cpu")


def is_distributed() -> bool:
    """Return whether several ranks are running together."""
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def is_rank_error(error: BaseException) -> bool:
    """Return whether an error of torch says that the connection to another rank has failed."""
    words = ("closed by peer", "reset by peer", "Broken pipe", "connectFullMesh", "gloo", "NCCL")
    return isinstance(error, torch.distributed.DistError) or any(word in str(error) for word in words)


def end_group() -> None:
    """Close the connections to the other ranks, so that their collective operations fail instead of waiting."""
    if is_distributed() and torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()


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
