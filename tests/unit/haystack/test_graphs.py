"""Approximate indexes are measured when they are built, and not believed where they find too little."""

import numpy as np
import pytest
from numpy.typing import NDArray

from medkg.haystack import graphs
from medkg.haystack.graphs import SegmentKind, build, kind_for, search

DIMENSION = 32


def topical(rows: int, seed: int = 1) -> NDArray[np.float32]:
    """Vectors around topics, as embeddings of texts lie."""
    topics = np.random.default_rng(0).standard_normal((40, DIMENSION))
    random = np.random.default_rng(seed)
    mixed = topics[random.integers(0, 40, rows)] + 0.4 * random.standard_normal((rows, DIMENSION))
    return np.ascontiguousarray(mixed / np.linalg.norm(mixed, axis=1, keepdims=True), dtype=np.float32)


@pytest.mark.parametrize("kind", list(SegmentKind))
def test_every_kind_finds_at_least_95_of_100_of_the_nearest(kind: SegmentKind) -> None:
    vectors, queries = topical(4_000), topical(50, seed=2)
    built = build(vectors, kind)
    assert built.kind is kind
    found = [search(built.index, kind, built.effort, query, 10)[1] for query in queries]
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, exact, strict=True)])
    assert recall >= 0.95


@pytest.mark.parametrize("kind", list(SegmentKind))
@pytest.mark.parametrize("count", [1, 40, 1_500])
def test_a_filter_finds_the_nearest_of_what_it_lets_through(kind: SegmentKind, count: int) -> None:
    vectors = topical(2_000)
    allowed = np.sort(np.random.default_rng(3).choice(2_000, count, replace=False))
    built = build(vectors, kind)
    query = topical(1, seed=4)[0]
    scores, rows = search(built.index, kind, built.effort, query, 10, allowed)
    exact = allowed[np.argsort(-(vectors[allowed] @ query))[:10]]
    assert set(rows.tolist()) == set(exact.tolist())
    assert scores == pytest.approx(vectors[rows] @ query, abs=1e-5)


def test_an_index_that_finds_too_little_is_replaced_by_an_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "LEAST_RECALL", 1.1)
    monkeypatch.setattr(graphs, "WANTED_RECALL", 1.1)
    assert build(topical(1_000), SegmentKind.HNSW).kind is SegmentKind.FLAT
    assert build(topical(1_000), SegmentKind.IVF).kind is SegmentKind.FLAT


def test_the_greatest_effort_is_tried_before_an_index_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "LEAST_RECALL", 0.0)
    monkeypatch.setattr(graphs, "WANTED_RECALL", 1.1)  # nothing is enough: the last effort that was tried stays
    lists, graph = build(topical(1_100), SegmentKind.IVF), build(topical(1_100), SegmentKind.HNSW)
    assert lists.effort == lists.index.nlist // 2 == 14  # doubling from 4 ends at 8
    assert graph.effort == 1_024


def test_the_kind_follows_from_the_size() -> None:
    assert [kind_for(rows) for rows in (1, 16_383, 16_384, 199_999, 200_000)] == [
        SegmentKind.FLAT,
        SegmentKind.FLAT,
        SegmentKind.HNSW,
        SegmentKind.HNSW,
        SegmentKind.IVF,
    ]
