"""Compiling the loops, keeping them, and running them in threads."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import pytest

import pixelwise
from pixelwise.jit.compiled import compiled
from pixelwise.jit.threads import Workers, available_threads


def output_of(program: str, **environment: object) -> list[str]:
    """Return the words that a program prints in a process of its own."""
    command = [sys.executable, "-W", "error", "-c", program]
    env = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split()


def test_numba_is_imported_only_to_refine() -> None:
    program = "import sys, pixelwise.crf, pixelwise.cli; pixelwise.cli.main(['--help']); print('numba' in sys.modules)"
    assert output_of(program)[-1] == "False"


CACHE_HITS = """
import numpy as np
from pixelwise.crf import loops
loops.clear(np.ones(8, np.float32))
print(sum(loops.clear.stats.cache_hits.values()))
"""


def test_a_change_of_the_instructions_compiles_the_loops_anew(tmp_path: Path) -> None:
    """numba's own cache looks only at the file of the loop."""
    package = Path(pixelwise.__file__).parent
    shutil.copytree(package, tmp_path / "pixelwise", ignore=shutil.ignore_patterns("__pycache__"))

    def cache_hits() -> list[str]:
        return output_of(CACHE_HITS, PYTHONPATH=tmp_path, NUMBA_CACHE_DIR=tmp_path / "compiled")

    assert cache_hits() == ["0"], "nothing is compiled yet"
    assert cache_hits() == ["1"], "the first process left its code"
    for name in ("simd.py", "compiled.py"):
        with open(tmp_path / "pixelwise" / "jit" / name, "a") as file:
            file.write("# changed\n")
        assert cache_hits() == ["0"], name


COMPILED = """
import numpy as np
from numba.core.registry import CPUDispatcher
from pixelwise.crf import loops, refine, simplex
from pixelwise.crf.refinement import compile_ahead

def compiled():
    members = [*vars(simplex).values(), *vars(loops).values()]
    return sum(len(loop.signatures) for loop in members if isinstance(loop, CPUDispatcher))

compile_ahead(5)
print(compiled())
rng = np.random.default_rng(0)
for size in ((3, 4), (100, 130)):
    for preset in ("deeplabv1", "deeplabv2", "pydensecrf"):
        refine(rng.integers(0, 256, (*size, 3), np.uint8), rng.dirichlet(np.ones(5), size).transpose(2, 0, 1), preset)
print(compiled())
"""


@pytest.mark.slow
def test_four_pixels_compile_what_any_image_needs() -> None:
    """Probabilities are doubles with their classes last in memory, as other libraries give them."""
    before, after = output_of(COMPILED)
    assert int(before) > 10
    assert before == after


def test_without_a_folder_for_compiled_code_it_is_compiled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def without_cache(*args: Any, **options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*args, **options)

    monkeypatch.setattr(numba, "njit", without_cache)
    assert compiled(lambda x: x + 1)(1) == 2


def test_threads_follow_the_environment_then_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(7), raising=False)
    for value, threads in (("3", 3), ("", 7), ("0", 7), ("many", 7)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert available_threads() == threads, value


def test_an_error_in_a_worker_reaches_the_caller() -> None:
    with Workers(3) as workers:
        assert workers.run(lambda x: x * x, [(n,) for n in range(9)]) == [n * n for n in range(9)]
        with pytest.raises(ZeroDivisionError):
            workers.run(lambda x: 1 / x, itertools.repeat((0,), 3))


WITHOUT_CACHE = """
import numba
from pixelwise.jit.compiled import compiled

def without_cache(*, cache=False, **options):
    if cache:
        raise RuntimeError("cannot cache function: no locator available")
    return njit(**options)

njit, numba.njit = numba.njit, without_cache
loops = compiled(lambda x: 2 * x), compiled(lambda x: 3 * x)
numba.njit = njit
print([loop(4) for loop in loops])
"""


def test_a_missing_cache_folder_is_named_once() -> None:
    ended = subprocess.run([sys.executable, "-c", WITHOUT_CACHE], capture_output=True, text=True, check=True)
    assert ended.stdout == "[8, 12]\n"
    lines = ended.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("warning: compiled loops (CRF, depthwise convolutions, masks) cannot be kept")
    assert lines[0].endswith("set NUMBA_CACHE_DIR to a folder")
