"""The FAISS index inside a segment: exact while it is small, HNSW, then IVF as it grows, and how hard each must look.

An approximate index is not trusted by its parameters: after it is built its recall is measured against exact search on
vectors of its own, and the least effort that reaches :data:`WANTED_RECALL` is written down beside it. One that stays
below :data:`LEAST_RECALL` with all its effort is thrown away for an exact one.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from medkg.haystack.embedding import Matrix

HNSW_ROWS: Final = 16_384  # below, exact search takes two milliseconds and is never wrong
IVF_ROWS: Final = 200_000  # above, a graph takes many minutes to build and IVF does not
WANTED_RECALL: Final = 0.97  # at 10, on the sample; promised is 0.95
LEAST_RECALL: Final = 0.955  # with the greatest effort
_SAMPLE = 200
_EXACT_ROWS = 8_192  # that a filter lets through: comparing them all takes some milliseconds
_LINKS, _BUILD_EFFORT = 32, 100  # HNSW's M and efConstruction
_TRAIN_PER_LIST = 39  # FAISS warns below
_TRAIN_ROUNDS = 4  # FAISS takes 10: twice as long; 100,000 vectors, 12 of 800 lists looked into: 1.0 instead of 0.986


class SegmentKind(StrEnum):
    FLAT = "flat"
    HNSW = "hnsw"
    IVF = "ivf"


@dataclass(frozen=True, slots=True)
class Built:
    """An index over the rows 0 to n-1; ``effort`` is efSearch of HNSW and nprobe of IVF."""

    index: Any
    kind: SegmentKind
    effort: int = 0
    recall: float = 1.0


def kind_for(rows: int) -> SegmentKind:
    """What a segment of so many rows is built as."""
    if rows < HNSW_ROWS:
        return SegmentKind.FLAT
    return SegmentKind.HNSW if rows < IVF_ROWS else SegmentKind.IVF


def build(vectors: Matrix, kind: SegmentKind | None = None) -> Built:
    """The index of these vectors, of unit length. ``kind`` overrules what the size says."""
    rows, dimension = vectors.shape
    kind = kind or kind_for(rows)
    if kind is SegmentKind.FLAT:
        return _flat(vectors)
    faiss = _faiss()
    if kind is SegmentKind.HNSW:
        index = faiss.IndexHNSWFlat(dimension, _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _BUILD_EFFORT
    else:
        lists = _lists_of(rows)
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.niter = _TRAIN_ROUNDS
        if _has_gpu(faiss):  # the wheel of FAISS with CUDA, on a machine that has a GPU: most of the time is training
            index.clustering_index = faiss.index_cpu_to_all_gpus(faiss.IndexFlatL2(dimension))
        step = max(1, rows // (_TRAIN_PER_LIST * lists))
        index.train(np.ascontiguousarray(vectors[::step]))
    index.add(vectors)
    return _tuned(index, kind, vectors) or _flat(vectors)


def search(
    index: Any,
    kind: SegmentKind,
    effort: int,
    query: NDArray[np.float32],
    k: int,
    allowed: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores and rows of the ``k`` nearest, of the ``allowed`` rows where these are given; fewer where there are."""
    faiss = _faiss()
    is_selective = allowed is not None and len(allowed) <= _EXACT_ROWS
    if is_selective and kind is SegmentKind.HNSW:
        return _among(index, query, k, allowed)
    selector = faiss.IDSelectorBatch(allowed) if allowed is not None else None
    parameters: Any = None
    if kind is SegmentKind.HNSW:
        parameters = faiss.SearchParametersHNSW(efSearch=max(effort, k), sel=selector)
    elif kind is SegmentKind.IVF:
        parameters = faiss.SearchParametersIVF(nprobe=index.nlist if is_selective else effort, sel=selector)
    elif selector is not None:
        parameters = faiss.SearchParameters(sel=selector)
    scores, rows = index.search(query[None, :], k, params=parameters)
    found = rows[0] >= 0
    return scores[0][found], rows[0][found]


def _among(
    index: Any, query: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Exact: a graph walk that may name few of the rows it passes finds less than there is."""
    rows = np.asarray(allowed, dtype=np.int64)
    scores: NDArray[np.float32] = index.reconstruct_batch(rows) @ query
    best = np.argsort(-scores, kind="stable")[:k]
    return scores[best], rows[best]


def _flat(vectors: Matrix) -> Built:
    faiss = _faiss()
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return Built(index, SegmentKind.FLAT)


def _lists_of(rows: int) -> int:
    # With 4 times the root half of the lists, for 1,000,000 synthetic vectors, find 0.9525 in 46 ms; with 8 times it
    # 0.985 in 45 ms, and a third of them 0.9725 in 30 ms.
    return max(16, min(int(8 * math.sqrt(rows)), rows // _TRAIN_PER_LIST))


def _tuned(index: Any, kind: SegmentKind, vectors: Matrix) -> Built | None:
    """With the least effort that finds what exact search finds, or None."""
    step = max(1, len(vectors) // _SAMPLE)
    queries = _disturbed(vectors[::step][:_SAMPLE])
    exact = _exact(queries, vectors)
    best: Built | None = None
    for effort in _efforts(kind, index):
        found = [search(index, kind, effort, query, 10)[1] for query in queries]
        recall = float(np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, exact, strict=True)]))
        if recall >= LEAST_RECALL:
            best = Built(index, kind, effort, round(recall, 4))
        if recall >= WANTED_RECALL:
            break
    return best


def _efforts(kind: SegmentKind, index: Any) -> Iterator[int]:
    """Each twice the one before; the greatest is tried too, where doubling would step over it."""
    effort, greatest = (32, 1024) if kind is SegmentKind.HNSW else (4, index.nlist // 2)
    while effort < greatest:
        yield effort
        effort *= 2
    yield greatest


def _disturbed(vectors: Matrix) -> Matrix:
    """Queries as they come: near to something that is there, and equal to nothing."""
    noise = np.random.default_rng(1).standard_normal(vectors.shape).astype(np.float32)
    mixed = vectors + 0.5 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    queries: Matrix = np.ascontiguousarray(mixed / np.linalg.norm(mixed, axis=1, keepdims=True), dtype=np.float32)
    return queries


def _exact(queries: Matrix, vectors: Matrix) -> NDArray[np.int64]:
    faiss = _faiss()
    rows: NDArray[np.int64] = faiss.knn(queries, vectors, 10, metric=faiss.METRIC_INNER_PRODUCT)[1]
    return rows


def _has_gpu(faiss: Any) -> bool:
    return hasattr(faiss, "get_num_gpus") and faiss.get_num_gpus() > 0


def _faiss() -> Any:
    """FAISS without its type hints, which know neither the search parameters nor what two kinds of index share."""
    import faiss

    return faiss
