"""`python -m pixelwise` is the command line, also under `torchrun --nproc_per_node 2 -m pixelwise train ...`."""

from __future__ import annotations

from .cli import run

if __name__ == "__main__":
    run()
