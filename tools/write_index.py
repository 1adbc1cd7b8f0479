"""Write the indexes of networks and backbones, by which one name imports one file and a listing none.

    python tools/write_index.py

Run it after a network or backbone was added to a file, renamed, or given another option or default; the tests compare
the indexes with what the files register.
"""

from __future__ import annotations

from pathlib import Path

import pixelwise
from pixelwise.backbones import BACKBONES
from pixelwise.models import MODELS
from pixelwise.registry import INDEX

SOURCE = Path(pixelwise.__file__).parent

if __name__ == "__main__":
    for registry, folder in ((MODELS, "models"), (BACKBONES, "backbones")):
        (SOURCE / folder / INDEX).write_text(registry.index_text(), encoding="utf-8")
