"""What FAISS alone costs, by kind of index and number of vectors: ``make benchmark-faiss``.

Each index is built in a process of its own, so that its memory is nobody else's, with the code that the store uses
(:mod:`medkg.haystack.graphs`: it also chooses how hard to look). The vectors are drawn from topics (points on a sphere)
with noise in a few directions, as embeddings of texts lie; the queries are drawn in the same way and equal no vector.

``build`` is long and keeps what it made in a folder; ``ask`` is short and measures latency on what it finds there, so
that it can be run while the machine is quiet. The figures go to JSON and to a picture beside it.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from benchmarks.retrieval.faiss_picture import picture
from numpy.typing import NDArray

from medkg.haystack.graphs import SegmentKind, build, kind_for, search

RESULTS = Path(__file__).resolve().parents[1] / "results"
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
LEAST_IVF_ROWS = 10_000  # below, lists hold too few vectors to be worth choosing among
QUERIES = 200
NOISE_DIRECTIONS = 64
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Point:
    """One index, built. ``kept_as`` is flat where an approximate one found too little; a store takes ``is_chosen``."""

    vectors: int
    dimension: int
    kind: str
    kept_as: str
    is_chosen: bool
    effort: int
    build_seconds: float
    build_cpu_seconds: float
    build_peak_mb: float
    disk_mb: float


@dataclass(frozen=True, slots=True)
class Asked:
    """How an index answers one question at a time, on one thread, and the memory that it takes.

    On a machine with other work the time on the clock says little, ``cpu_ms`` is what it comes to on a quiet one.
    """

    resident_mb: float
    recall_at_10: float
    p50_ms: float
    p95_ms: float
    cpu_ms: float


def synthetic(count: int, dimension: int, size: int, seed: int) -> Vectors:
    """``count`` vectors of unit length around the topics of a collection of ``size``."""
    of_topics = np.random.default_rng(size)
    topics = of_topics.standard_normal((max(8, size // 100), dimension)).astype(np.float32)
    topics /= np.linalg.norm(topics, axis=1, keepdims=True)
    spread = of_topics.standard_normal((NOISE_DIRECTIONS, dimension)).astype(np.float32)
    spread *= 0.9 / np.sqrt(NOISE_DIRECTIONS * dimension)
    random = np.random.default_rng(seed)
    rows = np.empty((count, dimension), dtype=np.float32)
    for start in range(0, count, 50_000):
        part_size = min(50_000, count - start)
        noise = random.standard_normal((part_size, NOISE_DIRECTIONS)).astype(np.float32) @ spread
        part = topics[random.integers(0, len(topics), part_size)] + noise
        rows[start : start + part_size] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return rows


def build_one(size: int, kind: SegmentKind, dimension: int, threads: int, folder: Path) -> Point:
    """Builds an index, and leaves it in the folder with the exact answers to the queries."""
    faiss.omp_set_num_threads(threads)
    vectors = synthetic(size, dimension, size, seed=1)
    _exact_answers(vectors, size, folder)
    began, cpu = time.perf_counter(), time.process_time()
    built = build(vectors, kind)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    file = folder / f"{size}-{kind}.faiss"
    faiss.write_index(built.index, str(file))
    return Point(
        vectors=size,
        dimension=dimension,
        kind=kind.value,
        kept_as=built.kind.value,
        is_chosen=kind is kind_for(size),
        effort=built.effort,
        build_seconds=round(seconds, 2),
        build_cpu_seconds=round(cpu_seconds, 2),
        build_peak_mb=round(peak, 1),
        disk_mb=round(file.stat().st_size / 1e6, 1),
    )


def ask_one(point: Point, folder: Path) -> Asked:
    """Asks the index of a point, in memory, every query by itself."""
    faiss.omp_set_num_threads(1)
    queries, exact = _answers(point.vectors, folder)
    before = resident_mb()
    index = faiss.read_index(str(folder / f"{point.vectors}-{point.kind}.faiss"))
    resident = resident_mb() - before
    kind = SegmentKind(point.kept_as)
    for query in queries[:20]:
        search(index, kind, point.effort, query, 10)
    found, latencies = [], []
    cpu = time.process_time()
    for query in queries:
        asked = time.perf_counter()
        found.append(search(index, kind, point.effort, query, 10)[1])
        latencies.append(1000 * (time.perf_counter() - asked))
    cpu_ms = 1000 * (time.process_time() - cpu) / len(queries)
    hits = [len(np.intersect1d(a, b)) / 10 for a, b in zip(found, exact, strict=True)]
    p50, p95 = np.percentile(latencies, [50, 95])
    return Asked(
        resident_mb=round(resident, 1),
        recall_at_10=round(float(np.mean(hits)), 4),
        p50_ms=round(float(p50), 3),
        p95_ms=round(float(p95), 3),
        cpu_ms=round(cpu_ms, 3),
    )


def _exact_answers(vectors: Vectors, size: int, folder: Path) -> None:
    file = folder / f"{size}.npz"
    if not file.exists():
        queries = synthetic(QUERIES, vectors.shape[1], size, seed=2)
        exact = faiss.knn(queries, vectors, 10, metric=faiss.METRIC_INNER_PRODUCT)[1]
        np.savez(file, queries=queries, exact=exact)


def _answers(size: int, folder: Path) -> tuple[Vectors, NDArray[np.int64]]:
    with np.load(folder / f"{size}.npz") as loaded:
        return loaded["queries"], loaded["exact"]


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _wanted(sizes: list[int], kinds: list[str], most_hnsw: int) -> Iterator[tuple[int, SegmentKind]]:
    for size in sizes:
        for kind in map(SegmentKind, kinds):
            if (kind is SegmentKind.IVF and size < LEAST_IVF_ROWS) or (kind is SegmentKind.HNSW and size > most_hnsw):
                continue
            yield size, kind


def build_all(arguments: argparse.Namespace) -> None:
    """Builds what is not in the folder yet, each in a process of its own; one that takes too long is left out."""
    arguments.keep.mkdir(parents=True, exist_ok=True)
    for size, kind in _wanted(arguments.sizes, arguments.kinds, arguments.most_hnsw):
        if (arguments.keep / f"{size}-{kind}.json").exists():
            continue
        try:
            print(_in_child("build-one", size, kind, arguments), flush=True)
        except subprocess.TimeoutExpired:
            print(f"{size} {kind}: not built within {arguments.timeout_seconds:g} s", flush=True)


def ask_all(arguments: argparse.Namespace) -> None:
    """Asks every index in the folder, and writes the figures and the picture."""
    points: list[dict[str, Any]] = []
    built = [_point(file) for file in arguments.keep.glob("*-*.json")]
    for point in sorted(built, key=lambda point: (point.vectors, point.kind)):
        answered = _in_child("ask-one", point.vectors, SegmentKind(point.kind), arguments)
        points.append(asdict(point) | json.loads(answered))
        print(json.dumps(points[-1]), flush=True)
        told = {"threads_of_build": arguments.threads, "threads_of_search": 1, "queries": QUERIES, "points": points}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        arguments.out.with_suffix(".svg").write_text(picture(points), encoding="utf-8")


def _in_child(step: str, size: int, kind: SegmentKind, arguments: argparse.Namespace) -> str:
    asked = ["--size", str(size), "--kind", kind.value, "--dimension", str(arguments.dimension)]
    asked += ["--threads", str(arguments.threads), "--keep", str(arguments.keep)]
    command = [sys.executable, "-m", "benchmarks.retrieval.faiss_cost", step, *asked]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=arguments.timeout_seconds)
    return done.stdout.decode().strip()


def _one(arguments: argparse.Namespace) -> None:
    """The work of a child: prints what it measured as JSON."""
    kind, file = SegmentKind(arguments.kind), arguments.keep / f"{arguments.size}-{arguments.kind}.json"
    if arguments.step == "ask-one":
        print(json.dumps(asdict(ask_one(_point(file), arguments.keep))))
        return
    told = json.dumps(asdict(build_one(arguments.size, kind, arguments.dimension, arguments.threads, arguments.keep)))
    file.write_text(told + "\n", encoding="utf-8")
    print(told)


def _point(file: Path) -> Point:
    return Point(**json.loads(file.read_text("utf-8")))


def main() -> None:
    """``build`` and ``ask``, or both, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("build", "ask", "both", "build-one", "ask-one"), nargs="?", default="both")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--kinds", nargs="+", choices=[*SegmentKind], default=[*SegmentKind])
    parser.add_argument("--most-hnsw", type=int, default=300_000, help="larger graphs take a quarter of an hour")
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--threads", type=int, default=2, help="of FAISS, while it builds; searches take one")
    parser.add_argument("--timeout-seconds", type=float, default=1200.0, help="for one index")
    parser.add_argument("--keep", type=Path, default=Path(".medkg/faiss-cost"), help="folder of what is built (5 GB)")
    parser.add_argument("--out", type=Path, default=RESULTS / "faiss-cost.json")
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step.endswith("-one"):
        _one(arguments)
        return
    if arguments.step in ("build", "both"):
        build_all(arguments)
    if arguments.step in ("ask", "both"):
        ask_all(arguments)


if __name__ == "__main__":
    main()
