"""The repository's rules: sizes of functions, headers of networks, dangerous calls, and lists that are complete."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pixelwise.cli import COMMANDS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "pixelwise"
FILES = sorted(SOURCE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
NETWORKS = [file for file in FILES if re.search(r"\b(MODELS|BACKBONES)\.register\(", file.read_text(encoding="utf-8"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

MAX_LINES_OF_FILE = 400
MAX_LINES_OF_FUNCTION = 60
MAX_LINES_OF_FORWARD = 30

Function = ast.FunctionDef | ast.AsyncFunctionDef


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def functions_of(path: Path) -> list[Function]:
    return [node for node in ast.walk(tree_of(path)) if isinstance(node, Function)]


def lines_of(function: Function) -> int:
    """Count the lines from `def` to the end, without the docstring: that of a command is its help page."""
    length = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function) is None:
        return length
    docstring = function.body[0]
    return length - ((docstring.end_lineno or 0) - docstring.lineno + 1)


def test_files_and_functions_stay_short() -> None:
    offenders = []
    for file in FILES:
        name, num_lines = file.relative_to(ROOT).as_posix(), len(file.read_text(encoding="utf-8").splitlines())
        if num_lines > MAX_LINES_OF_FILE:
            offenders.append(f"{name}: {num_lines} lines")
        for function in functions_of(file):
            limit = MAX_LINES_OF_FORWARD if function.name.startswith("forward") else MAX_LINES_OF_FUNCTION
            if lines_of(function) > limit:
                offenders.append(f"{name}:{function.lineno}: {function.name} has {lines_of(function)} lines")
    assert not offenders, "\n".join(offenders)


@pytest.mark.parametrize("file", NETWORKS, ids=lambda file: file.name)
def test_a_network_opens_with_its_paper(file: Path) -> None:
    header = ast.get_docstring(tree_of(file)) or ""
    assert re.search(r"https?://", header), "link the paper"
    for word in ("Paper:", "Deviations:"):
        assert word in header, f"write a paragraph that starts with `{word}`"


def dangers(tree: ast.Module) -> Iterator[int]:
    """Yield the lines that could run foreign bytes, or assert what is always true, and that no rule of ruff reports."""
    always_true = ast.GeneratorExp | ast.ListComp | ast.SetComp | ast.DictComp | ast.Lambda | ast.JoinedStr
    unsafe_options = {("allow_pickle", True), ("trust_remote_code", True), ("verify", False)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and isinstance(node.test, always_true):
            yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module in ("pickle", "dill", "marshal", "yaml"):
            yield from (node.lineno for alias in node.names if alias.name.startswith("load"))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {(k.arg, k.value.value) for k in node.keywords if isinstance(k.value, ast.Constant)}
            unsafe_load = name == "torch.load" and ("weights_only", True) not in options
            if unsafe_load or options & unsafe_options or name in ("yaml.unsafe_load", "yaml.full_load"):
                yield node.lineno


def test_nothing_dangerous_is_called() -> None:
    """Ruff's S rules cover pickle, eval, exec, yaml.load, shells and extractall; this covers the rest."""
    files = [*FILES, *TESTS, *(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "tools").rglob("*.py"), ROOT / "dev.py"]
    found = [f"{file}:{line}" for file in files for line in dangers(tree_of(file))]
    assert not found, "\n".join(found)


def test_the_rule_finds_every_danger_and_nothing_else() -> None:
    dangerous = [
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "torch.load(f, weights_only=flag)",
        "np.load(p, allow_pickle=True)",
        "model(name, trust_remote_code=True)",
        "get(url, verify=False)",
        "yaml.unsafe_load(f)",
        "from pickle import loads",
        "assert [i >= j for i, j in pairs]",
        "assert (x > 0 for x in xs)",
    ]
    harmless = [
        "torch.load(f, weights_only=True)",
        "np.load(p, allow_pickle=False)",
        "yaml.safe_load(f)",
        "json.load(f)",
        "assert all(x > 0 for x in xs)",
        "assert a == [1]",
    ]
    found = sorted(dangers(ast.parse("\n".join(dangerous + harmless))))
    assert found == list(range(1, len(dangerous) + 1))


def test_ruff_refuses_dangerous_calls() -> None:
    """The rules that are switched on in pyproject.toml, tried on one example each."""
    examples = {
        "S301": "pickle.load(f)",
        "S506": "yaml.load(f)",
        "S307": "eval(text)",
        "S102": "exec(text)",
        "S602": "subprocess.run(line, shell=True)",
        "S605": "os.system(line)",
        "S202": "tarfile.open(p).extractall(q)",
        "F631": "assert (a == b, 'message')",
        "PLW0129": "assert 'text'",
    }
    code = "import os\nimport pickle\nimport subprocess\nimport tarfile\n\nimport yaml\n\n" + "\n".join(
        examples.values()
    )
    command = [sys.executable, "-m", "ruff", "check", "--output-format", "json", "--stdin-filename", "x.py", "-"]
    output = subprocess.run(command, cwd=ROOT, input=code, capture_output=True, text=True, check=False).stdout
    reported = {(violation["code"], violation["location"]["row"]) for violation in json.loads(output)}
    first = code.count("\n") - len(examples) + 2
    assert set(zip(examples, range(first, first + len(examples)), strict=True)) <= reported


def test_every_test_is_collected() -> None:
    """A file of tests under another name, or a second file of one name, would be left out without a word."""
    # The fuzz has its cases beside its test.
    helpers = {file for file in TESTS if file.parent.name == "fuzz" and file.name != "test_fuzz.py"}
    tests = [file for file in TESTS if file.parent.name != "helpers" and file.name != "conftest.py"]
    tests = [file for file in tests if file not in helpers]
    assert [file.name for file in tests if not file.name.startswith("test_")] == []
    assert len({file.name for file in tests}) == len(tests), "two test files have one name"
    for file in tests:
        assert any(function.name.startswith("test_") for function in functions_of(file)), f"{file} holds no test"
    misplaced = [file for file in TESTS if file not in tests for f in functions_of(file) if f.name.startswith("test_")]
    assert misplaced == [], "tests in a file that pytest does not read"
    duplicates = [
        f"{file.name}: {name}"
        for file in tests
        for names in [[node.name for node in tree_of(file).body if isinstance(node, Function)]]
        for name in set(names)
        if names.count(name) > 1
    ]
    assert duplicates == [], "the later function hides the earlier one"


def test_every_test_checks_something() -> None:
    """By an assert, a helper `assert_...`, an expected error, or a `suppress` that lets every other error through."""
    checks = ("pytest.raises", "pytest.warns", "assert_", "suppress")
    empty = [
        f"{file.name}: {function.name}"
        for file in TESTS
        for function in functions_of(file)
        if function.name.startswith("test_")
        and not any(isinstance(node, ast.Assert) for node in ast.walk(function))
        and not any(check in ast.unparse(function) for check in checks)
    ]
    assert empty == []


def test_importing_the_package_is_light() -> None:
    program = "import sys, pixelwise; print(sorted({'torch', 'lightning', 'cv2', 'matplotlib'} & set(sys.modules)))"
    child = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"


def test_console_scripts_and_commands_lead_to_functions() -> None:
    targets = [*PROJECT["project"]["scripts"].values()]
    targets += [f"pixelwise.commands.{target}" for target, _ in COMMANDS.values()]
    for target in targets:
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function)), target


def test_every_file_of_a_command_is_in_the_table() -> None:
    files = {file.stem for file in (SOURCE / "commands").glob("*.py") if not file.stem.startswith("_")}
    assert {target.partition(":")[0] for target, _ in COMMANDS.values()} == files


def test_every_requirement_is_pinned() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    requirements = [*PROJECT["project"]["dependencies"], *extras["test"], *extras["dev"]]
    needed = {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in requirements} - {"pixelwise"}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    # name==version without a marker: the pins hold on every platform.
    assert [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    pinned = {pin.partition("==")[0].lower().replace("_", "-") for pin in pins}
    assert needed - pinned == set()
    assert "torch==2.13.0" in pins
