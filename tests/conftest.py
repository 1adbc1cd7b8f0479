"""What holds for every test: one thread a worker, no way to the hub, and property tests that repeat their examples."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# Set before torch is imported: the workers share the machine's cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

# The same examples on every run, so that a red test is the change's doing; no deadline, since the cores are shared.
settings.register_profile("pixelwise", max_examples=60, deadline=None, derandomize=True, print_blob=True)
settings.load_profile("pixelwise")

# A shell starts background jobs with Ctrl-C ignored; tests send it, and their child processes inherit what is set here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
