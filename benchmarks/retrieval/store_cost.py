"""What a whole embedded store of synthetic passages costs: ``make benchmark-store``.

Words are drawn as languages use them (Zipf), vectors as in :mod:`benchmarks.retrieval.faiss_cost`; documents of ten
passages go through the writer that the index service has, and the segments come to be behind them as they do there.
``ask`` opens the store anew and asks what a user asks: each kind of search by itself and all three fused, without a
filter and under selective and broad ones. What is left out is the embedding of the question, which is the model's.
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from benchmarks.retrieval.faiss_cost import QUERIES, RESULTS, Vectors, resident_mb, synthetic
from numpy.typing import NDArray

from medkg.contracts.context import Metadata, StageContext
from medkg.contracts.document import Chunk, EmbeddingBatch
from medkg.haystack.answering import SearchRequest
from medkg.haystack.embedded import EmbeddedPassages
from medkg.haystack.embedded_writer import EmbeddedWriter
from medkg.haystack.embedding import Embedded, TextKind
from medkg.haystack.impacts import IMPACTS, impacts
from medkg.haystack.legs import LEGS
from medkg.haystack.passage_database import store_path
from medkg.haystack.retrieval import HybridSearch
from medkg.haystack.segments import open_for_reading, read_manifest, segment_folder
from medkg.haystack.stores import Filters
from medkg.haystack.writes import DocumentWrite, prepare

TENANT, MODEL, DIMENSION = "benchmark", "synthetic/384", 384
PASSAGES_OF_A_DOCUMENT, WORDS_OF_A_PASSAGE, VOCABULARY = 10, 100, 50_000
# each with the share of the passages that it lets through
FILTERS = {
    "one year (3 %)": Filters(year_from=2000, year_to=2000),
    "since a year (83 %)": Filters(year_from=1995),
    "rare source (1 %)": Filters(sources=("rare",)),
    "usual source (99 %)": Filters(sources=("synthetic",)),
    "condition (0.5 %)": Filters(conditions=("condition 7",)),
    "common condition (50 %)": Filters(conditions=("common",)),
    "phase (25 %)": Filters(phases=("phase 3",)),
    "abstracts (10 %)": Filters(sections=("abstract",)),
    "results (60 %)": Filters(sections=("results",)),
    "results since a year of a phase (12 %)": Filters(sections=("results",), year_from=1995, phases=("phase 3",)),
}
QUERIES_OF_A_FILTER = 20
AT_ONCE = 64  # documents that wait for a commit together, as in the index worker


class SyntheticEmbedder:
    """Gives each question the vector that was drawn for it."""

    model, dimension = MODEL, DIMENSION

    def __init__(self, vectors: dict[str, Vectors]) -> None:
        self._vectors = vectors

    async def embed(self, texts: Sequence[str], kind: TextKind) -> Embedded:
        return Embedded(np.stack([self._vectors[text] for text in texts]))


def _texts(count: int, words: int, seed: int) -> Iterator[str]:
    """Texts of words by the law of Zipf; the most frequent ones would be stop words, and are left out."""
    random = np.random.default_rng(seed)
    shares = 1.0 / np.arange(30, 30 + VOCABULARY)
    edges = np.cumsum(shares / shares.sum())
    for _ in range(count):
        yield " ".join(f"w{word:x}x" for word in np.searchsorted(edges, random.random(words)))


def _metadata(doc_id: str, number: int) -> Metadata:
    """See ``FILTERS`` for the shares."""
    return {
        "source": "rare" if number % 100 == 0 else "synthetic",
        "source_id": doc_id,
        "year": 1990 + number % 30,
        "condition": f"condition {number % 200}" + "|common" * (number % 2),
        "phase": f"PHASE{1 + number // 30 % 4}",
    }


def _writes(passages: int) -> Iterator[DocumentWrite]:
    vectors = synthetic(passages, DIMENSION, passages, seed=1)
    texts = _texts(passages, WORDS_OF_A_PASSAGE, seed=3)
    for start in range(0, passages, PASSAGES_OF_A_DOCUMENT):
        doc_id = f"d{start:08d}"
        chunks = tuple(
            Chunk(
                f"{doc_id}-{n}",
                doc_id,
                n,
                next(texts),
                ("Abstract" if n == 0 else "Methods" if n < 4 else "Results",),
                (),
                WORDS_OF_A_PASSAGE,
                title=f"Document {start}",
                metadata=_metadata(doc_id, start // PASSAGES_OF_A_DOCUMENT),
            )
            for n in range(min(PASSAGES_OF_A_DOCUMENT, passages - start))
        )
        batch = EmbeddingBatch(
            chunks=chunks,
            model=MODEL,
            dimension=DIMENSION,
            dense=vectors[start : start + len(chunks)].astype("<f4").tobytes(),
            sparse=tuple(impacts(chunk.text, chunk.title) for chunk in chunks),
            sparse_model=IMPACTS,
        )
        yield prepare(StageContext(TENANT, doc_id, "job", content_key=doc_id, revision=1), batch)


async def fill(folder: Path, passages: int) -> dict[str, Any]:
    """Writes the passages, and waits for the segments that follow them."""
    began, cpu, written = time.perf_counter(), time.process_time(), 0
    writer = EmbeddedWriter(folder)
    waiting: list[DocumentWrite] = []
    for write in _writes(passages):
        waiting.append(write)
        if len(waiting) == AT_ONCE:
            await asyncio.gather(*(writer.replace(TENANT, each) for each in waiting))
            written += sum(len(each.rows) for each in waiting)
            print(f"{written} passages, {time.perf_counter() - began:.0f} s", end="\r", flush=True)
            waiting.clear()
    await asyncio.gather(*(writer.replace(TENANT, each) for each in waiting))
    seconds_of_writes = time.perf_counter() - began
    await writer.aclose()
    return {
        "passages": passages,
        "write_seconds": round(seconds_of_writes, 1),
        "write_and_merge_seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }


def _disk_mb(folder: Path) -> float:
    return round(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6, 1)


async def ask(folder: Path, passages: int) -> dict[str, Any]:
    """The times of each kind of search and of the answer as a whole; recall of the dense one against exact search."""
    vectors = synthetic(QUERIES, DIMENSION, passages, seed=2)
    questions = [f"{text} {number}" for number, text in enumerate(_texts(QUERIES, 5, seed=4))]
    embedder = SyntheticEmbedder(dict(zip(questions, vectors, strict=True)))
    before = resident_mb()
    search = HybridSearch(folder, lambda model: embedder if model == MODEL else None)
    found: dict[str, Any] = {}
    try:
        wishes = {leg: SearchRequest("", legs=(leg,)) for leg in LEGS} | {"fused": SearchRequest("")}
        for name, wish in wishes.items():
            found[name] = await _times(search, wish, questions)
        few = questions[:QUERIES_OF_A_FILTER]
        filtered = {
            told: {name: await _times(search, replace(wish, filters=filters), few) for name, wish in wishes.items()}
            for told, filters in FILTERS.items()
        }
        found["fused, one year"] = filtered["one year (3 %)"]["fused"]
        resident = resident_mb() - before
    finally:
        await search.aclose()
    index = EmbeddedPassages(folder)
    async with index.view(TENANT) as view:
        assert view is not None
        ranked = [[int(hit.ref) for hit in await view.dense(vector, 10)] for vector in vectors]
    await index.aclose()
    exact = faiss.knn(vectors, synthetic(passages, DIMENSION, passages, seed=1), 10, metric=faiss.METRIC_INNER_PRODUCT)
    hits = [len(np.intersect1d(a, b + 1)) / 10 for a, b in zip(ranked, exact[1], strict=True)]
    return {
        "recall_at_10": round(float(np.mean(hits)), 4),
        "segments": _segments(folder),
        "resident_mb": round(resident, 1),
        "milliseconds": found,
        "milliseconds_by_filter": filtered,
    }


async def _times(search: HybridSearch, wish: SearchRequest, questions: Sequence[str]) -> dict[str, float]:
    for question in questions[: len(questions) // 10]:
        await search.answer(TENANT, replace(wish, query=question))
    took: list[float] = []
    cpu = time.process_time()
    for question in questions:
        answer = await search.answer(TENANT, replace(wish, query=question))
        assert not answer.legs_missing
        took.append(answer.took_ms)
    cpu_ms = 1000 * (time.process_time() - cpu) / len(questions)
    p50, p95 = _percentiles(took)
    return {"p50": p50, "p95": p95, "cpu": round(cpu_ms, 2)}


def _percentiles(values: Sequence[float]) -> tuple[float, float]:
    found: NDArray[np.float64] = np.percentile(values, [50, 95])
    return round(float(found[0]), 2), round(float(found[1]), 2)


def _segments(folder: Path) -> list[dict[str, Any]]:
    path = store_path(folder, TENANT)
    manifests = [read_manifest(segment_folder(path), store_id) for store_id in _store_ids(path)]
    return [
        {"kind": segment.kind.value, "rows": segment.rows, "effort": segment.effort, "recall": segment.recall}
        for manifest in manifests
        if manifest is not None
        for segment in manifest.segments
    ]


def _store_ids(path: Path) -> list[str]:
    with closing(open_for_reading(path)) as connection:
        return [row[0] for row in connection.execute("SELECT value FROM store WHERE key = 'store_id'")]


def main() -> None:
    """``fill`` and ``ask``, or both; each writes its part of the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("fill", "ask", "both"), nargs="?", default="both")
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=2, help="of FAISS, while segments are built")
    parser.add_argument("--keep", type=Path, default=Path(".medkg/store-cost"), help="folder of the store (1 GB)")
    parser.add_argument("--out", type=Path, default=RESULTS / "store-cost.json")
    arguments = parser.parse_args()
    told: dict[str, Any] = json.loads(arguments.out.read_text("utf-8")) if arguments.out.exists() else {}
    if arguments.step in ("fill", "both"):
        faiss.omp_set_num_threads(arguments.threads)
        told = asyncio.run(fill(arguments.keep, arguments.passages)) | {"disk_mb": _disk_mb(arguments.keep)}
    if arguments.step in ("ask", "both"):
        faiss.omp_set_num_threads(1)
        told |= asyncio.run(ask(arguments.keep, arguments.passages)) | {"load_when_asked": round(os.getloadavg()[0], 1)}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
