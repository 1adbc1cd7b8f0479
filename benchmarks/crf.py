"""The fully connected CRF against pydensecrf, the code that everyone used: time, memory, growth, equal numbers.

    python -m benchmarks.crf [--reference pydensecrf-1.0rc3] [--threads 2] [--rounds 5] [--large]

The task: an image at 500x375 with 21 classes (with --large also 1024x2048 with 19), smooth random scores, ten
iterations of the paper's two kernels in three widths. The reference is the C++ of the pydensecrf package, whose Python
part no longer builds: fetch and unpack its sources (`pip download --no-deps --no-binary :all: pydensecrf==1.0rc3`)
and name the folder; they are compiled with g++ -O3, as its setup does, into a temporary folder. Without it only our own
figures are printed.

Rounds alternate, so that other load on the machine hits both sides; figures are medians. The reference has one thread,
so two ratios are printed: of processor seconds (images per core and second) and of the time that a caller waits. On a
machine whose cores are busy, two threads wait as long as one: its load is printed first.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelwise.crf import Parameters, refine

Engine = Callable[[NDArray[np.uint8], NDArray[np.float32], Parameters], NDArray[np.float32]]

PHOTO = Path(__file__).parents[1] / "samples" / "road_1014765.jpg"
SIZES = {"500x375, 21 classes": (375, 500, 21), "1024x2048, 19 classes": (1024, 2048, 19)}
WIDTHS = {
    "DeepLab v1 (49, 5; 3)": Parameters(w1=4, theta_alpha=49, theta_beta=5, w2=3, theta_gamma=3),
    "DeepLab v2 (67, 3; 1)": Parameters(w1=4, theta_alpha=67, theta_beta=3, w2=3, theta_gamma=1),
    "pydensecrf's example (80, 13; 3)": Parameters(w1=10, theta_alpha=80, theta_beta=13, w2=3, theta_gamma=3),
}
# Pixels at 16 classes, then classes at 500x375.
GROWTH = ((188, 250, 16), (375, 500, 16), (750, 1000, 16), (375, 500, 8), (375, 500, 32), (375, 500, 64))
# The reference's classes as one C function that takes classes in planes, as its Python part does.
SHIM = """
#include "densecrf.h"
extern "C" void crf(int w, int h, int k, const float *unary, const unsigned char *image, const float *p, int steps,
                    float *out) {
    DenseCRF2D crf(w, h, k);
    MatrixXf energy(k, w * h);
    for (int c = 0; c < k; c++) for (int i = 0; i < w * h; i++) energy(c, i) = unary[(size_t)c * w * h + i];
    crf.setUnaryEnergy(energy);
    crf.addPairwiseGaussian(p[4], p[4], new PottsCompatibility(p[3]), DIAG_KERNEL, NORMALIZE_SYMMETRIC);
    crf.addPairwiseBilateral(p[1], p[1], p[2], p[2], p[2], image, new PottsCompatibility(p[0]), DIAG_KERNEL,
                             NORMALIZE_SYMMETRIC);
    MatrixXf q = crf.inference(steps);
    for (int c = 0; c < k; c++) for (int i = 0; i < w * h; i++) out[(size_t)c * w * h + i] = q(c, i);
}
"""
PARTS = ("densecrf", "unary", "pairwise", "permutohedral", "labelcompatibility", "util", "objective")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="The fully connected CRF: pixelwise against pydensecrf's C++.")
    parser.add_argument("--reference", type=Path, help="folder of pydensecrf's unpacked sources")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", action="store_true", help="1024x2048 too")
    parser.add_argument("--library", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--peak-of", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        engine = _ours(arguments.threads) if arguments.peak_of == "ours" else _theirs(arguments.library)
        print(peak_growth(engine, large=arguments.large))
        return
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the start")
    with tempfile.TemporaryDirectory() as folder:
        print_first_calls(Path(folder))
        library = build(arguments.reference, Path(folder)) if arguments.reference else None
        for name, size in list(SIZES.items())[: 1 + arguments.large]:
            print(f"\n{name}, 10 iterations, {arguments.threads} threads, {arguments.rounds} rounds")
            for widths, parameters in WIDTHS.items():
                task = (*scene(*size), parameters)
                print_speed(widths, task, library=library, threads=arguments.threads, rounds=arguments.rounds)
            print_memory(library, threads=arguments.threads, large=size[0] > 375)
        print_growth(arguments.rounds)


def scene(height: int, width: int, num_classes: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return an image (H, W, 3) RGB, and probabilities (C, H, W) of smooth random scores, always the same."""
    photo = cv2.imread(str(PHOTO))
    assert photo is not None, f"{PHOTO} is missing"
    interpolation = cv2.INTER_AREA if photo.shape[1] > width else cv2.INTER_CUBIC
    image = cv2.cvtColor(cv2.resize(photo, (width, height), interpolation=interpolation), cv2.COLOR_BGR2RGB)
    size = (num_classes, height // 16 + 2, width // 16 + 2)
    coarse = np.random.default_rng(0).normal(scale=2.5, size=size).astype(np.float32)
    scores = np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_CUBIC) for plane in coarse])
    shares = np.exp(scores - scores.max(0))
    return image.astype(np.uint8), (shares / shares.sum(0)).astype(np.float32)


def build(sources: Path, folder: Path) -> Path:
    """Compile the reference's C++ and the shim into a library."""
    root = sources / "pydensecrf" / "densecrf"
    if not (root / "src" / "densecrf.cpp").is_file():
        sys.exit(f"{sources}: no pydensecrf/densecrf/src/densecrf.cpp; fix: name the folder of the unpacked sources")
    (folder / "shim.cpp").write_text(SHIM)
    library = folder / "reference.so"
    files = [folder / "shim.cpp", *(root / "src" / f"{part}.cpp" for part in PARTS)]
    includes = [f"-I{root / 'include'}", f"-I{root / 'external' / 'liblbfgs' / 'include'}"]
    subprocess.run(["g++", "-shared", "-fPIC", "-DNDEBUG", "-O3", "-w", *includes, *files, "-o", library], check=True)
    return library


def _ours(threads: int) -> Engine:
    return lambda image, probs, parameters: refine(image, probs, parameters, threads=threads)


def _theirs(library: Path) -> Engine:
    function = ctypes.CDLL(str(library)).crf

    def run(image: NDArray[np.uint8], probs: NDArray[np.float32], p: Parameters) -> NDArray[np.float32]:
        num_classes, height, width = probs.shape
        unary = np.ascontiguousarray(-np.log(np.clip(probs, 1e-5, 1)), np.float32)
        numbers = np.array([p.w1, p.theta_alpha, p.theta_beta, p.w2, p.theta_gamma], np.float32)
        q = np.empty_like(unary)
        pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (unary, image, numbers, q)]
        function(width, height, num_classes, *pointers[:3], p.iterations, pointers[3])
        return q

    return run


def measure(engine: Engine, *work: Any) -> tuple[float, float, NDArray[np.float32]]:
    """Return processor seconds of all threads, seconds of waiting, and the result."""
    processor, clock = time.process_time(), time.perf_counter()
    result = engine(*work)
    return time.process_time() - processor, time.perf_counter() - clock, result


def print_speed(
    name: str, task: tuple[Any, Any, Parameters], *, library: Path | None, threads: int, rounds: int
) -> None:
    """Print both sides' processor seconds and waiting, the ratios, the largest difference of a probability.

    task: image, probabilities, parameters.
    """
    image, probs, parameters = task
    ours, alone = _ours(threads), _ours(1)
    theirs = _theirs(library) if library else None
    ours(image[:64], probs[:, :64], parameters)  # compiles
    spent: dict[str, list[tuple[float, float]]] = {"ours": [], "alone": [], "theirs": []}
    for _ in range(rounds):
        *figures, q = measure(ours, *task)
        spent["ours"].append((figures[0], figures[1]))
        spent["alone"].append(measure(alone, *task)[:2])
        if theirs:
            *figures, reference = measure(theirs, *task)
            spent["theirs"].append((figures[0], figures[1]))
    medians = {
        side: [statistics.median(column) for column in zip(*rows, strict=True)] for side, rows in spent.items() if rows
    }
    print(f"{name:33s} {medians['alone'][0]:5.2f} cpu-s on one core, {medians['ours'][1]:5.2f} s on {threads}", end="")
    if theirs:
        core, wait = medians["theirs"][0] / medians["alone"][0], medians["theirs"][1] / medians["ours"][1]
        print(f"; pydensecrf {medians['theirs'][0]:5.2f} cpu-s, {medians['theirs'][1]:5.2f} s:", end="")
        print(f" x{core:.2f} per core, x{wait:.2f} waiting, max |dQ| {np.abs(q - reference).max():.1e}", end="")
    print(flush=True)


def peak_growth(engine: Engine, *, large: bool) -> int:
    """Return the MiB by which the process's resident memory grows at most while the engine runs; Linux only."""
    parameters = next(iter(WIDTHS.values()))
    images = scene(*list(SIZES.values())[large])
    engine(np.ascontiguousarray(images[0][:64]), np.ascontiguousarray(images[1][:, :64]), parameters)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _memory("VmRSS")
    engine(*images, parameters)
    return (_memory("VmHWM") - before) // 1024


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def print_memory(library: Path | None, *, threads: int, large: bool) -> None:
    """Print the peak growth of either engine, each in a process of its own."""
    if not Path("/proc/self/clear_refs").exists():
        return
    command = [sys.executable, "-m", "benchmarks.crf", "--threads", str(threads), *(["--large"] if large else [])]
    sides = {"ours": [], **({"theirs": ["--library", str(library)]} if library else {})}
    peaks = {
        side: int(
            subprocess.run([*command, "--peak-of", side, *more], capture_output=True, text=True, check=True).stdout
        )
        for side, more in sides.items()
    }
    print(
        "peak memory beside the input: " + ", ".join(f"{side} {peak} MiB" for side, peak in peaks.items()), flush=True
    )


def print_growth(rounds: int) -> None:
    """Print nanoseconds per pixel, class and iteration over sizes and classes: constant if growth is linear."""
    print("\ngrowth, processor nanoseconds per pixel, class and iteration, one core")
    parameters = next(iter(WIDTHS.values()))
    for height, width, num_classes in GROWTH:
        images = scene(height, width, num_classes)
        refine(images[0][:64], images[1][:, :64], parameters, threads=1)
        seconds = statistics.median(measure(_ours(1), *images, parameters)[0] for _ in range(rounds))
        each = seconds / (height * width * num_classes * parameters.iterations) * 1e9
        print(f"{height:5d}x{width:<5d} {num_classes:3d} classes {seconds:6.2f} cpu-s {each:6.2f} ns", flush=True)


def print_first_calls(folder: Path) -> None:
    """Print the seconds of a process's first call: nothing compiled, compiled by an earlier process, more classes."""
    program = (
        "import sys, time; import numpy as np; from pixelwise.crf import refine; num = int(sys.argv[1])\n"
        "clock, processor = time.perf_counter(), time.process_time()\n"
        "refine(np.zeros((20, 30, 3), np.uint8), np.full((num, 20, 30), 1 / num), threads=1)\n"
        "print(f'{time.perf_counter() - clock:5.1f} s waiting, {time.process_time() - processor:5.1f} cpu-s')"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "compiled")}
    calls = {
        "first call ever, compiles": 21,
        "first call of a later process": 21,
        "the same, 150 classes, compiles": 150,
    }
    for words, num_classes in calls.items():
        command = [sys.executable, "-c", program, str(num_classes)]
        child = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        print(f"{words:33s} {child.stdout.strip()}", flush=True)


if __name__ == "__main__":
    main()
