"""Settings, recipes and classes in YAML, and the JSON of runs: by a grammar, damaged, and with bombs."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml

from fuzz.damage import damaged
from fuzz.harness import Attempt
from pixelwise.config import Config
from pixelwise.core import Taxonomy
from pixelwise.crf.features import Parameters
from pixelwise.data.dataset import Split
from pixelwise.data.formats.base import read_classes
from pixelwise.evaluation.evaluator import ScoreAccumulator
from pixelwise.evaluation.result import read_scores, write_scores
from pixelwise.inference.crf_settings import find_crf, write_crf
from pixelwise.recipes import recipe_files
from pixelwise.strict_yaml import parse_yaml, to_yaml
from pixelwise.visualization.report import write_report

# Words that one reader of YAML or JSON takes for a number, a date, a truth value or an object, and another does not.
SCALARS = (
    "no", "on", "y", "~", "null", "true", "010", "0o17", "0x1F", "1_000", "1:30", "1e3", "1e999", "-1e-999", ".inf",
    "-.inf", ".nan", "2024-01-31", "9" * 30, "9" * 5000, "-1", "0", "1", "2", "255", "256", "65535", "65536", "1.5",
    "-0", "+7", "1.", "''", '""', "'it''s'", '"\\u00e9"', '"\\ud800"', '"\\0"', '"\\x1b[2J"', "é", "\u202etxt", "名",
    "a b", "a\tb", "x" * 3000, "!!python/object/apply:os.system [touch sentinel]", "!!binary aGk=", "!!set {a}",
    "!!str 5", "!!int '5'", "!x y", "&a x", "*a", "[*a, *a]", "|\n  text\n  more", ">-\n  folded", "{", "}", "[", "]",
    ",", ":", "- - -", "? [a] : b", "%", "@", "`", "#", "<<", "{<<: {a: 1}}", "--- 1", "...", "\x00", "\x85",
    "\ufeff", "\u2028",
)  # fmt: skip
WORDS = (
    "road",
    "car",
    "void",
    "poly",
    "sgd",
    "value",
    "color",
    "mean",
    "none",
    "log",
    "compact",
    "shuffle",
    "train",
    "auto",
)
BOMBS: tuple[Callable[[Random], str], ...] = (
    lambda rng: "a: " + "[" * rng.choice((100, 3000, 100_000)),
    lambda rng: "a: " + "{b: " * rng.choice((100, 3000, 20_000)),
    lambda rng: "\n".join(" " * k + "a:" for k in range(rng.choice((50, 1500)))),
    lambda rng: "a0: &a0 [x, x]\n" + "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 40)),
    lambda rng: "- " * 5000,
    lambda rng: "? " * 3000,
    lambda rng: "a: " + "!!" * 5000,
    lambda rng: "a: |" + "\n " * 5000,
    lambda rng: "{" + ", ".join(f"k{k}: {k}" for k in range(3000)) + "}",
    lambda rng: "a: '" + "'" * 9999,
)


def value(rng: Random, depth: int = 0) -> str:
    """Return a value of YAML: a word, a number, or a list or mapping in flow style."""
    match rng.randrange(8 if depth < 4 else 5):
        case 0 | 1:
            return rng.choice(SCALARS)
        case 2:
            return rng.choice(WORDS)
        case 3:
            return str(rng.choice((rng.randrange(300), rng.random(), -rng.random())))
        case 4:
            return f"[{rng.randrange(256)}, {rng.randrange(256)}, {rng.randrange(256)}]"
        case 5:
            return "[" + ", ".join(value(rng, depth + 1) for _ in range(rng.randrange(4))) + "]"
        case _:
            keys = ("name", "color", "value", "a", rng.choice(SCALARS))
            pairs = (f"{rng.choice(keys)}: {value(rng, depth + 1)}" for _ in range(rng.randrange(4)))
            return "{" + ", ".join(pairs) + "}"


def some_settings(rng: Random) -> str:
    """Return settings: sections and options that exist or nearly, with values of any kind."""
    lines = []
    sections = {section for section, _, _ in Config().items()}
    for section in rng.sample(sorted(sections), rng.randrange(1, 4)):
        lines.append(f"{section if rng.random() < 0.95 else rng.choice(SCALARS)}:")
        options = [(option.name, default) for name, option, default in Config().items() if name == section]
        for name, default in rng.sample(options, min(len(options), rng.randrange(1, 5))):
            text = to_yaml(default) if rng.random() < 0.5 else value(rng)
            lines.append(f"  {name if rng.random() < 0.95 else name[:-1]}: {text}")
    return "\n".join(lines) + "\n"


def some_classes(rng: Random) -> str:
    """Return a classes.yaml: classes as words or mappings, with or without the other keys."""
    rows = []
    for k in range(rng.choice((0, 1, 2, 3, 5, 300))):
        word = f"{rng.choice(WORDS)}{k}" if rng.random() < 0.9 else value(rng)
        row = (
            f"{{name: {word}, color: [{k % 256}, {rng.randrange(256)}, 3], value: {k}}}" if rng.random() < 0.6 else word
        )
        rows.append(row if rng.random() < 0.97 else value(rng))
    lines = [f"classes: [{', '.join(rows)}]"]
    for key, usual in (("ignore", "[255]"), ("masks", "color"), ("ignore_colors", "[[0, 0, 0]]"), ("other", "1")):
        if rng.random() < 0.25:
            lines.append(f"{key}: {usual if rng.random() < 0.6 else value(rng)}")
    return "\n".join(lines) + "\n"


@cache
def whole_yaml() -> list[bytes]:
    """Return the shipped recipes and the settings of a run."""
    return [path.read_bytes() for path in recipe_files().values()] + [Config().to_yaml().encode()]


def yaml_bytes(rng: Random, make: Callable[[Random], str]) -> bytes:
    """Return a file of YAML, one in three damaged, some in another encoding or with another start."""
    text = rng.choice(BOMBS)(rng) if rng.random() < 0.03 else make(rng)
    if rng.random() < 0.1:
        text = rng.choice(("%YAML 1.1\n---\n", "---\n", "\ufeff", "# x\n", "...\n", "a: 1\n---\n")) + text
    data = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.2:
        data = rng.choice(whole_yaml())
    if rng.random() < 0.1:
        data = data.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-8-sig", "utf-32", "cp037")), "replace")
    if rng.random() < 0.1:
        data = data.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\t", b"\xc2\x85")))
    return damaged(data, rng, whole_yaml()) if rng.random() < 0.35 else data


def settings_case(rng: Random, folder: Path) -> Attempt:
    """Read settings: what is accepted is what a plain reader of YAML finds, and is read back from its own text."""
    path = folder / "x.yaml"
    path.write_bytes(yaml_bytes(rng, some_settings))

    def judge(config: Config) -> None:
        plain = unread(path) or {}
        for section, options in plain.items():
            for name, text in (options or {}).items():
                assert_same(getattr(getattr(config, section), name), text)
        copy = Config().updated(parse_yaml(config.to_yaml(), "copy"))
        assert copy == config

    return Attempt(lambda: Config.from_yaml(path), judge)


def unread(path: Path) -> Any:
    """Return a YAML file with all words as text, as a plain reader sees it."""
    return yaml.load(path.read_bytes().decode("utf-8-sig"), yaml.BaseLoader)


def assert_same(found: Any, text: Any) -> None:
    """Assert that a value is what the words of a YAML file say, which `text` holds unread."""
    if isinstance(text, list):
        assert isinstance(found, list)
        for item, word in zip(found, text, strict=True):
            assert_same(item, word)
    elif isinstance(text, dict):
        assert isinstance(found, dict)
        assert len(found) == len(text)
        for item, word in zip(found.values(), text.values(), strict=True):
            assert_same(item, word)
    elif isinstance(found, bool) or found is None:
        words = {True: ("true",), False: ("false",), None: ("null", "~", "")}
        assert text.lower() in words[found]
    elif isinstance(found, int | float):
        number = float(text.replace(".inf", "inf").replace(".nan", "nan").replace(".Inf", "inf"))
        assert found == number or math.isnan(found)
    else:
        assert found == text


def classes_case(rng: Random, folder: Path) -> Attempt:
    """Read classes in one of the forms; names, colors and values are those of the file."""
    name = rng.choice(("classes.yaml", "classes.yaml", "classes.yaml", "classes.txt", "labelmap.txt"))
    path = folder / name
    if name == "classes.yaml":
        path.write_bytes(yaml_bytes(rng, some_classes))
    elif name == "classes.txt":
        path.write_bytes(yaml_bytes(rng, lambda rng: "\n".join(rng.choices(WORDS + SCALARS, k=rng.randrange(1, 6)))))
    else:
        path.write_bytes(yaml_bytes(rng, labelmap))

    def judge(found: tuple[Taxonomy, Any]) -> None:
        taxonomy = found[0]
        assert Taxonomy.from_dict(json.loads(json.dumps(taxonomy.to_dict()))) == taxonomy
        assert len(set(taxonomy.values) | set(taxonomy.ignored)) == len(taxonomy.values) + len(set(taxonomy.ignored))
        raw = np.array([taxonomy.values], np.uint16)
        assert taxonomy.encode(raw).tolist() == [list(range(taxonomy.num_classes))]
        if name == "classes.yaml":
            plain = unread(path)
            assert list(taxonomy.names) == [row if isinstance(row, str) else row["name"] for row in plain["classes"]]

    return Attempt(lambda: read_classes(folder), judge)


def labelmap(rng: Random) -> str:
    """Return CVAT's list of labels and colors."""
    numbers = ("0", "255", "256", "-1", "1.5", "", "x", "9" * 5000, "٣")
    rows = ["# label:color_rgb:parts:actions"]
    for k in range(rng.randrange(5)):
        color = (
            f"{k},7,{rng.randrange(256)}" if rng.random() < 0.8 else ",".join(rng.choices(numbers, k=rng.randrange(5)))
        )
        rows.append(f"{rng.choice((f'class{k}', 'ignored', 'a:b', ''))}:{color}{rng.choice(('::', ':a:b', ''))}")
    return "\n".join(rows)


HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 255, 256, 10**6, 2**31, 2**63, 10**30, -(10**30), 10**5000, 0.5, -0.0, 1e308,
    float("nan"), float("inf"), "", "x", "x" * 5000, "\ud800", "\x1b[2J", "../../x", "/etc/passwd", "<b>&{{ 7 }}",
    "\u202e", "a\nb", [], {}, [[]], [1, 2], {"a": 1}, ["a", 5], [[0, 1], [1, 0]], [None], {"name": "x"},
)  # fmt: skip


def changed(tree: Any, rng: Random) -> Any:
    """Return a copy of a JSON tree with one value replaced, removed, doubled or added somewhere."""
    if isinstance(tree, dict) and tree and rng.random() < 0.85:
        key = rng.choice(list(tree))
        match rng.randrange(12):
            case 0:
                return {name: item for name, item in tree.items() if name != key}
            case 1:
                return tree | {rng.choice(("x", "", "name", "value", key + "s")): rng.choice(HOSTILE)}
            case _:
                return tree | {key: changed(tree[key], rng)}
    if isinstance(tree, list) and tree and rng.random() < 0.85:
        k = rng.randrange(len(tree))
        match rng.randrange(8):
            case 0:
                return tree[:k] + tree[k + 1 :]
            case 1:
                return [*tree[:k], tree[k], *tree[k:]]
            case _:
                return [*tree[:k], changed(tree[k], rng), *tree[k + 1 :]]
    return rng.choice(HOSTILE)


def json_bytes(tree: Any, rng: Random) -> bytes:
    """Return a JSON tree as bytes, with changes in the tree or in the bytes, or a bomb instead."""
    if rng.random() < 0.03:
        return rng.choice(
            (b"[" * 100_000, b'{"a":' * 20_000, b"9" * 100_000, b"", b"\xff\xfe{\0}\0", b'"' * 999, b"1e999")
        )
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        tree = changed(tree, rng)
    try:
        data = json.dumps(tree, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    except ValueError:
        # Python writes no integer of more than 4300 digits.
        data = b"9" * 5000
    return damaged(data, rng, [data]) if rng.random() < 0.2 else data


@cache
def whole_run() -> dict[str, bytes]:
    """Return the files of a small run that the report reads."""
    taxonomy = Taxonomy(("road", "car <b>", "sky"))
    counts = ScoreAccumulator(taxonomy, boundary=True)
    for k in range(3):
        truth = np.random.default_rng(k).integers(0, 3, (6, 7)).astype(np.uint8)
        counts.add(f"p{k}", truth, prediction=truth[::-1].copy(), source="p")
    with tempfile.TemporaryDirectory() as made:
        run = Path(made)
        write_scores(run / "scores.json", counts.finish("d", Split("val", [], taxonomy), groups=None, predicted_by="m"))
        write_crf(run, Parameters(), {"dataset": "d", "split": "val"})
        files = {path.name: path.read_bytes() for path in run.iterdir()}
    files["config.yaml"] = Config().to_yaml().encode()
    files["environment.json"] = json.dumps(
        {"torch": "2", "gpus": ["a"], "git": {"commit": "x", "dirty": False}}
    ).encode()
    files["metrics.csv"] = b"step,split,loss,mean_iou\n1,train,0.5,\n2,train,0.4,\n2,val,,0.25\n"
    score = {"key": "p0", "num_pixels": 42, "pixel_accuracy": 0.5, "mean_iou": 0.25, "worst": "road", "worst_iou": 0.1}
    sheet = {"legend": [["road", "#00ff00"]], "examples": [{"is_best": False, "score": score}]}
    files["samples/examples.json"] = json.dumps(sheet).encode()
    return files | {f"samples/00_{name}": b"thumbnail" for name in ("image.jpg", "truth.png", "prediction.png")}


def run_case(rng: Random, folder: Path) -> Attempt:
    """Write the report of a run with a damaged file, or read its scores or its CRF."""
    run = folder / "run"
    (run / "samples").mkdir(parents=True)
    for name, data in whole_run().items():
        (run / name).write_bytes(data)
    name = rng.choice([name for name in sorted(whole_run()) if not name.startswith("samples/00")])
    data = whole_run()[name]
    (run / name).write_bytes(
        json_bytes(json.loads(data), rng) if name.endswith(".json") else damaged(data, rng, [data])
    )
    match name:
        case "crf.json":
            return Attempt(lambda: find_crf("run", run), judge_crf)
        case "scores.json" if rng.random() < 0.5:
            return Attempt(lambda: read_scores(run / name), judge_scores)
    copy = folder / "out"

    def act() -> Path:
        shutil.copytree(run, copy)
        return write_report(copy)

    def judge(page: Path) -> None:
        text = page.read_text(encoding="utf-8")
        assert text.rstrip().endswith("</html>")
        assert "car <b>" not in text

    return Attempt(act, judge)


def judge_crf(parameters: Parameters) -> None:
    """Assert that all parameters are numbers in their range."""
    numbers = (parameters.w1, parameters.w2, parameters.theta_alpha, parameters.theta_beta, parameters.theta_gamma)
    assert all(math.isfinite(number) and number >= 0 for number in numbers)
    assert isinstance(parameters.iterations, int)


def judge_scores(evaluation: Any) -> None:
    """Assert that the scores can be printed and are shares of one."""
    assert evaluation.scores.summary()
    assert evaluation.protocol_lines()
    assert all(0 <= number <= 1 for number in evaluation.scores.means().values() if number is not None)
