"""The model card: a README.md that the model hub understands, rendered from a checkpoint's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

_HEADER = """---
library_name: pixelwise
pipeline_tag: image-segmentation
license: {license}
tags: [semantic-segmentation, pixelwise]
---

# {title}
"""

_USE = """
## Use

```python
import pixelwise

model = pixelwise.load("path/or/hub-id")
model("photo.jpg").overlay().save("overlay.png")
```
"""


def render_card(config: Mapping[str, Any], model: nn.Module) -> str:
    """Markdown. `config` is what config.json holds; of its card the known keys get a section each, in a fixed order."""
    card, spec = config["card"], config["model"]
    count = sum(p.numel() for p in model.parameters())
    title = card.get("title", f"{spec['name']}, {spec['num_classes']} classes")
    text = _HEADER.format(license=card.get("license", "other"), title=title)
    text += f"\n{card['summary']}\n" if "summary" in card else ""
    text += f"\n- network: `{spec['name']}`, options `{spec['options']}`, {count:,} parameters\n"
    text += f"- weights: {config['weights']['dtype']}, SHA-256 `{config['weights']['sha256']}`\n"
    text += f"- classes: {', '.join(row['name'] for row in config['taxonomy']['classes'])}\n"
    for key in ("data", "intended_use", "recipe", "command", "scores", "limits"):
        if key in card:
            text += f"\n## {key.replace('_', ' ').capitalize()}\n\n{_section(card[key])}\n"
    return text + _USE


def _section(value: Any) -> str:
    if isinstance(value, Mapping):
        rows = "\n".join(f"| {key} | {_cell(item)} |" for key, item in value.items())
        return f"| what | value |\n|---|---|\n{rows}"
    return str(value)


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
