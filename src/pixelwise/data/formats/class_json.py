"""Class names in JSON: classes.json, categories.json and labels.json in the forms that programs write.

["road", "car"]                                    names, numbered from 0
{"road": 0, "car": 1} or {"0": "road", "1": "car"} names with the values of mask files
[{"name": "road", "id": 7, "color": [r, g, b]}]    one object per class; `title` and `label`, `value`, "#RRGGBB" too
{"categories": [...]}                              COCO; likewise `classes` and `labels`
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...colors import is_background
from ...core import Taxonomy
from ...errors import ConfigError, os_reason, shown
from ...files import read_json

NAMES = ("classes.json", "categories.json", "labels.json")
_LISTS = ("categories", "classes", "labels")
_FIX = 'write ["name", ...] with the class of number 0 first, or a classes.yaml'


def read_class_json(path: Path) -> Taxonomy:
    """Return the classes of a JSON file. Raises ConfigError naming it."""
    try:
        data = read_json(path)
    except (OSError, ValueError) as error:
        raise ConfigError(path, f"cannot be read as JSON: {os_reason(error)}", _FIX) from None
    found = [name for name in _LISTS if isinstance(data, dict) and isinstance(data.get(name), list | dict)]
    if len(found) > 1:
        raise ConfigError(path, f"has {' and '.join(found)}, each of which may be the classes", "keep one of them")
    content = data[found[0]] if found else data
    if isinstance(content, Mapping):
        rows = [_pair(key, value, path) for key, value in content.items()]
    elif isinstance(content, list):
        rows = [
            {"name": row, "value": k} if isinstance(row, str) else _row(row, k, path) for k, row in enumerate(content)
        ]
    else:
        raise ConfigError(path, f"expected a list of classes, got {shown(data)}", _FIX)
    rows.sort(key=lambda row: row["value"])
    values = [row["value"] for row in rows]
    if rows and 0 not in values and 255 not in values and not any(is_background(row["name"]) for row in rows):
        # COCO numbers its categories from 1: 0 is what has no category.
        rows.insert(0, {"name": "background", "value": 0})
    return Taxonomy.from_dict({"classes": rows}, path)


def _pair(key: str, value: Any, path: Path) -> dict[str, Any]:
    """Return the class of `"road": 0`, `"0": "road"` or `"road": [r, g, b]`."""
    if key.isdecimal() and len(key) < 6 and isinstance(value, str):
        return {"name": value, "value": int(key)}
    if type(value) is int and 0 <= value <= 65535:
        return {"name": key, "value": value}
    raise ConfigError(path, f"expected a name and a number, got {shown(key)}: {shown(value)}", _FIX)


def _row(row: Any, k: int, path: Path) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise ConfigError(path, f"class {k}: expected a name or an object, got {shown(row)}", _FIX)
    name = next((row[key] for key in ("name", "title", "label", "class") if isinstance(row.get(key), str)), None)
    value = next((row[key] for key in ("value", "id", "index", "class_id") if key in row), k)
    if name is None or type(value) is not int or not 0 <= value <= 65535:
        what = f"class {k}: expected a name and a number of 0..65535, got {shown(dict(row))}"
        raise ConfigError(path, what, _FIX)
    color = row.get("color")
    if isinstance(color, str):
        try:
            color = list(bytes.fromhex(color.removeprefix("#")))[:3]
        except ValueError:
            raise ConfigError(path, f"class {k}: expected a color #RRGGBB, got {shown(color)}", _FIX) from None
    return {"name": name, "value": value} | ({} if color is None else {"color": color})
