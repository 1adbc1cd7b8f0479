"""Render HTML pages. A page is one file that loads no other: it contains its styles, and its images as data URIs."""

from __future__ import annotations

import base64
from typing import Any

import jinja2


def render_page(template: str, context: dict[str, Any]) -> str:
    """Return a page from a file of `templates/`. Every value is escaped, and an unknown name is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pixelwise.visualization"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, grouped=grouped, data_uri=data_uri)
    return environment.get_template(template).render(context)


def percent(share: float | None) -> str:
    """Format a share 0..1 in percent with one decimal; None, an undefined number, as a dash."""
    return "\N{EN DASH}" if share is None else f"{100 * share:.1f}"


def grouped(count: int) -> str:
    """Format a count with a narrow space between groups of three digits."""
    return f"{count:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def data_uri(data: bytes) -> str:
    """Return the bytes of a PNG or JPEG file as the address of an image inside the page."""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
