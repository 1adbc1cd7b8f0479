"""`python -m pixelwise`: the command line, also as torchrun starts it (`torchrun --nproc_per_node 2 -m pixelwise train ...`)."""

from __future__ import annotations

from .cli import run

if __name__ == "__main__":
    run()
