"""The rules of the house as tests: sizes, headers, what no line may call, and lists that must equal what they list."""

from __future__ import annotations

import ast
import importlib
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
EVERY_FILE = sorted([*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py"), ROOT / "dev.py"])
NETWORKS = [file for file in FILES if re.search(r"\b(MODELS|BACKBONES)\.register\(", file.read_text(encoding="utf-8"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

MAX_LINES_OF_FILE = 400
MAX_LINES_OF_FUNCTION = 60
MAX_LINES_OF_FIGURE = 30


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def functions_of(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end; the docstring is not counted, as a command's is its help page."""
    first = function.body[0]
    docstring = first if ast.get_docstring(function) is not None else None
    length = (function.end_lineno or 0) - function.lineno + 1
    return length - ((docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_files_and_functions_stay_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= MAX_LINES_OF_FILE
    for function in functions_of(tree_of(file)):
        limit = MAX_LINES_OF_FIGURE if function.name in ("forward", "coarse") else MAX_LINES_OF_FUNCTION
        assert lines_of(function) <= limit, f"{function.name} has {lines_of(function)} lines"


@pytest.mark.parametrize("file", NETWORKS, ids=name_of)
def test_a_network_opens_with_its_paper(file: Path) -> None:
    header = ast.get_docstring(tree_of(file)) or ""
    assert re.search(r"https?://", header), "link the paper"
    for word in ("Paper:", "Deviations:"):
        assert word in header, f"write a paragraph that starts with `{word}`"


def dotted(node: ast.expr) -> str:
    """`torch.load` of a call's function; what is no name becomes a question mark: `make().eval` is not `eval`."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def dangers(tree: ast.Module) -> Iterator[str]:
    """Each line that could run a stranger's bytes, write outside its folder, or assert what is always true."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from (f"line {node.lineno}: {word}" for word in dangers_of_call(node))
        elif isinstance(node, ast.Assert) and cannot_fail(node.test):
            yield f"line {node.lineno}: an assert that cannot fail"
        elif isinstance(node, ast.ImportFrom) and node.module in ("pickle", "cPickle", "dill", "marshal", "yaml"):
            yield from (
                f"line {node.lineno}: bare {alias.name}" for alias in node.names if alias.name.startswith("load")
            )


def dangers_of_call(call: ast.Call) -> Iterator[str]:
    name, last = dotted(call.func), dotted(call.func).rpartition(".")[2]
    options = {keyword.arg: keyword.value for keyword in call.keywords}
    if name in (
        "eval",
        "exec",
        "os.system",
        "os.popen",
        "yaml.load",
        "yaml.unsafe_load",
        "yaml.full_load",
        "joblib.load",
    ):
        yield name
    if name.partition(".")[0] in ("pickle", "cPickle", "dill", "marshal") and last in ("load", "loads", "Unpickler"):
        yield name
    if name == "torch.load" and not is_constant(options.get("weights_only"), True):
        yield "torch.load without weights_only=True"
    if last == "extractall":
        yield name
    for option, value in (("shell", True), ("allow_pickle", True), ("verify", False), ("trust_remote_code", True)):
        if is_constant(options.get(option), value):
            yield f"{option}={value}"


def is_constant(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def cannot_fail(test: ast.expr) -> bool:
    """A literal or a comprehension is true whatever it holds, unless it is written down empty or false."""
    if isinstance(test, ast.Tuple | ast.List | ast.Set):
        return bool(test.elts)
    return isinstance(
        test, ast.GeneratorExp | ast.ListComp | ast.SetComp | ast.DictComp | ast.Lambda | ast.JoinedStr
    ) or (isinstance(test, ast.Constant) and bool(test.value))


@pytest.mark.parametrize(
    "line",
    [
        "pickle.load(f)",
        "from pickle import loads",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "torch.load(f, weights_only=flag)",
        "yaml.load(f, yaml.SafeLoader)",
        "eval(text)",
        "exec(text)",
        "subprocess.run(line, shell=True)",
        "tarfile.open(p).extractall(q)",
        "zip.extractall(q)",
        "np.load(p, allow_pickle=True)",
        "assert (a == b, 'message')",
        "assert [i >= j for i, j in pairs]",
        "assert (x > 0 for x in xs)",
        "assert 'text'",
    ],
)
def test_the_rule_sees_the_danger(line: str) -> None:
    assert len(list(dangers(ast.parse(line)))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(f, weights_only=True)",
        "yaml.safe_load(f)",
        "model.eval()",
        "create_model(name).eval()",
        "np.load(p, allow_pickle=False)",
        "assert all(x > 0 for x in xs)",
        "assert a == [1]",
        "json.load(f)",
    ],
)
def test_the_rule_lets_the_rest_pass(line: str) -> None:
    assert list(dangers(ast.parse(line))) == []


@pytest.mark.parametrize("file", EVERY_FILE, ids=name_of)
def test_nothing_dangerous_is_called(file: Path) -> None:
    allowed = {"tests/test_core.py": ["pickle.loads"]}.get(name_of(file), [])
    found = [danger for danger in dangers(tree_of(file)) if danger.partition(": ")[2] not in allowed]
    assert found == []


def test_importing_the_package_is_light() -> None:
    program = "import sys, pixelwise; print(sorted({'torch', 'lightning', 'cv2', 'matplotlib'} & set(sys.modules)))"
    child = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"


def test_the_console_scripts_lead_to_functions() -> None:
    for entry in PROJECT["project"]["scripts"].values():
        module, _, function = entry.partition(":")
        assert callable(getattr(importlib.import_module(module), function)), entry


def test_every_command_leads_to_a_function() -> None:
    for name, (target, _) in COMMANDS.items():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(f"pixelwise.commands.{module}"), function)), name


def test_every_file_of_a_command_is_in_the_table() -> None:
    files = {file.stem for file in (SOURCE / "commands").glob("*.py") if not file.stem.startswith("_")}
    assert {target.partition(":")[0] for target, _ in COMMANDS.values()} == files


def test_every_requirement_is_pinned() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    requirements = [*PROJECT["project"]["dependencies"], *extras["test"], *extras["dev"]]
    needed = {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in requirements} - {"pixelwise"}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == [], (
        "a pin is name==version, of any platform"
    )
    pinned = {pin.partition("==")[0].lower().replace("_", "-") for pin in pins}
    assert needed - pinned == set()
    assert "torch==2.13.0" in pins


def map_of_the_source() -> list[str]:
    """The paths that the README's tree under `src/pixelwise/` lists, in its order; a folder ends in a slash."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(src/pixelwise/.*?)^```", readme, re.DOTALL | re.MULTILINE)
    paths: list[str] = []
    parents: list[str] = []
    for line in blocks[0].splitlines()[1:] if blocks else []:
        depth = (len(line) - len(line.lstrip())) // 2 - 1
        entries = [entry.strip(",") for entry in re.split(r"\s{2,}", line.strip())[0].split()]
        parents = [*parents[:depth], entries[0]]
        paths += ["".join([*parents[:depth], entry]) for entry in entries]
    return paths


def test_the_map_in_the_readme_is_the_source() -> None:
    listed = map_of_the_source()
    assert listed, "the README holds no map"
    for folder in {"", *(path.rstrip("/").rpartition("/")[0] + "/" for path in listed if "/" in path.rstrip("/"))}:
        below = [path.removeprefix(folder) for path in listed if path.startswith(folder) and path != folder]
        here = {folder + path for path in below if "/" not in path.rstrip("/")}
        inside = [entry for entry in (SOURCE / folder).iterdir() if not entry.name.startswith(("_", "py.typed"))]
        there = {folder + entry.name + "/" * entry.is_dir() for entry in inside}
        assert here == there, f"the map of {folder or 'src/pixelwise/'} differs from the folder"
