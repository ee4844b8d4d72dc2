"""What FAISS costs by size: ``python benchmarks/retrieval/faiss_cost.py`` measures it on synthetic vectors.

For each size: seconds to build, bytes on disk, recall@10 against exact search, and latency of one query at a time.
The vectors are drawn from topics (points on a sphere) with noise in a few directions, as embeddings of texts lie; the
queries are drawn in the same way, and are equal to no vector. The figures go to JSON and to a picture beside it.
"""

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from medkg.haystack.graphs import Built, SegmentKind, build, search

RESULTS = Path(__file__).resolve().parents[1] / "results"
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
QUERIES = 200
NOISE_DIRECTIONS = 64
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Point:
    """One size, measured."""

    vectors: int
    dimension: int
    segments: int
    kind: str
    effort: int
    build_seconds: float
    disk_mb: float
    recall_at_10: float
    p50_ms: float
    p95_ms: float
    exact_p50_ms: float


def synthetic(count: int, dimension: int, seed: int, topics: Vectors, spread: Vectors) -> Vectors:
    """Vectors of unit length around the topics."""
    random = np.random.default_rng(seed)
    rows = np.empty((count, dimension), dtype=np.float32)
    for start in range(0, count, 50_000):
        size = min(50_000, count - start)
        noise = random.standard_normal((size, NOISE_DIRECTIONS)).astype(np.float32) @ spread
        part = topics[random.integers(0, len(topics), size)] + noise
        rows[start : start + size] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return rows


def measure(count: int, dimension: int, rows_of_a_segment: int) -> Point:
    """Builds what a store of so many passages has, and asks it."""
    random = np.random.default_rng(count)
    topics = random.standard_normal((max(8, count // 100), dimension)).astype(np.float32)
    topics /= np.linalg.norm(topics, axis=1, keepdims=True)
    spread = random.standard_normal((NOISE_DIRECTIONS, dimension)).astype(np.float32)
    spread *= 0.9 / np.sqrt(NOISE_DIRECTIONS * dimension)
    vectors = synthetic(count, dimension, 1, topics, spread)
    queries = synthetic(QUERIES, dimension, 2, topics, spread)
    exact, exact_ms = _exact(vectors, queries)
    began = time.perf_counter()
    parts = [(start, build(vectors[start : start + rows_of_a_segment])) for start in range(0, count, rows_of_a_segment)]
    seconds = time.perf_counter() - began
    size = sum(len(faiss.serialize_index(built.index)) for _, built in parts)
    found, latencies = [], []
    for query in queries:
        asked = time.perf_counter()
        found.append(_nearest(parts, query))
        latencies.append(1000 * (time.perf_counter() - asked))
    hits = [len(np.intersect1d(a, b)) / 10 for a, b in zip(found, exact, strict=True)]
    p50, p95 = np.percentile(latencies, [50, 95])
    return Point(
        vectors=count,
        dimension=dimension,
        segments=len(parts),
        kind=parts[0][1].kind.value,
        effort=parts[0][1].effort,
        build_seconds=round(seconds, 2),
        disk_mb=round(size / 1e6, 1),
        recall_at_10=round(float(np.mean(hits)), 4),
        p50_ms=round(float(p50), 3),
        p95_ms=round(float(p95), 3),
        exact_p50_ms=round(exact_ms, 3),
    )


def _nearest(parts: list[tuple[int, Built]], query: Vectors) -> NDArray[np.int64]:
    scores, rows = [], []
    for start, built in parts:
        part_scores, part_rows = search(built.index, built.kind, built.effort, query, 10)
        scores.append(part_scores)
        rows.append(part_rows + start)
    return np.concatenate(rows)[np.argsort(-np.concatenate(scores))[:10]]


def _exact(vectors: Vectors, queries: Vectors) -> tuple[list[NDArray[np.int64]], float]:
    flat = build(vectors, SegmentKind.FLAT)
    found, took = [], []
    for query in queries:
        began = time.perf_counter()
        found.append(search(flat.index, flat.kind, 0, query, 10)[1])
        took.append(1000 * (time.perf_counter() - began))
    return found, float(np.median(took))


def picture(points: list[Point]) -> str:
    """The latency and the build time by size, both axes logarithmic, as SVG."""
    width, height, left, top = 760, 430, 70, 40
    series = (
        ("search, ms (median)", "#1f77b4", [p.p50_ms for p in points]),
        ("exact search, ms (median)", "#999999", [p.exact_p50_ms for p in points]),
        ("build, s", "#d62728", [p.build_seconds for p in points]),
        ("on disk, MB", "#2ca02c", [p.disk_mb for p in points]),
    )
    values = [max(value, 0.01) for _, _, found in series for value in found]
    low, high = np.floor(np.log10(min(values))), np.ceil(np.log10(max(values)))
    first, last = np.log10(points[0].vectors), np.log10(points[-1].vectors)

    def x(count: int) -> float:
        return float(left + (np.log10(count) - first) / max(last - first, 1e-9) * (width - left - 200))

    def y(value: float) -> float:
        return float(top + (high - np.log10(max(value, 0.01))) / (high - low) * (height - top - 60))

    text = '<text x="{:.0f}" y="{:.0f}" font-size="12" text-anchor="{}">{}</text>'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">']
    lines.append(f'<rect width="{width}" height="{height}" fill="white"/>')
    lines.append(text.format(left, 22, "start", f"FAISS by number of vectors of {points[0].dimension} numbers"))
    for power in range(int(low), int(high) + 1):
        at = y(10.0**power)
        lines.append(f'<path d="M{left} {at:.1f}H{width - 200}" stroke="#ddd"/>')
        lines.append(text.format(left - 8, at + 4, "end", f"{10.0**power:g}"))
    for point in points:
        lines.append(text.format(x(point.vectors), height - 35, "middle", f"{point.vectors:,}".replace(",", " ")))
        lines.append(text.format(x(point.vectors), height - 18, "middle", f"{point.kind} {point.recall_at_10:.2f}"))
    for number, (name, colour, found) in enumerate(series):
        path = "L".join(f"{x(p.vectors):.1f} {y(value):.1f}" for p, value in zip(points, found, strict=True))
        lines.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines.append(f'<rect x="{width - 185}" y="{top + 22 * number}" width="12" height="12" fill="{colour}"/>')
        lines.append(text.format(width - 168, top + 11 + 22 * number, "start", name))
    return "\n".join([*lines, "</svg>"]) + "\n"


def main() -> None:
    """Measures, prints a line for each size, and writes JSON and picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--segment-rows", type=int, default=512 * 1024 * 1024 // (4 * 384))
    parser.add_argument("--threads", type=int, default=1, help="of FAISS (default 1)")
    parser.add_argument("--out", type=Path, default=RESULTS / "faiss-cost.json")
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(arguments.threads)
    points: list[Point] = []
    for size in sorted(arguments.sizes):
        points.append(measure(size, arguments.dimension, arguments.segment_rows))
        print(json.dumps(asdict(points[-1])), flush=True)
        told = {"threads": arguments.threads, "load": os.getloadavg()[0], "points": [asdict(p) for p in points]}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(told, indent=2) + "\n")
        arguments.out.with_suffix(".svg").write_text(picture(points))


if __name__ == "__main__":
    main()
