"""Hybrid retrieval as a Haystack pipeline, to be taken into somebody's own application."""

from typing import Any

from haystack import Pipeline
from medkg.haystack.components import DenseRetriever, LexicalRetriever, RankFusion, SparseRetriever
from medkg.haystack.hashing import MODEL_PREFIX
from medkg.haystack.legs import DENSE, LEG_WEIGHTS, LEXICAL, SPARSE
from medkg.haystack.models import read_spec


def hybrid_retriever(
    store: dict[str, Any],
    tenant_id: str,
    *,
    embedder: dict[str, Any] | None = None,
    weights: dict[str, float] | None = None,
    k: float = 5.0,
    top_k: int = 10,
    depth: int = 200,
    timeout_seconds: float = 10.0,
) -> Pipeline:
    """A pipeline that answers ``{"query": …, "filters": …}`` with ``fusion``'s ``documents`` and ``legs_missing``.

    ``store`` is the address of an index (``{"kind": "embedded", "data_dir": …}``), ``embedder`` describes the model of
    its vectors; one of the hashing embedder needs none. ``depth`` passages of each leg are fused by reciprocal rank
    with ``weights`` and ``k`` into the ``top_k`` best; without ``weights`` the ranking is that of ``medkg search``.
    Serialisable: ``dumps()`` and ``Pipeline.loads()``.

    Raises:
        ConfigurationError: the address or the description is at fault; every fault is named.
    """
    if weights is None:
        spec = read_spec(embedder or {"kind": "hashing"})
        weights = LEG_WEIGHTS.of_model(MODEL_PREFIX if spec.kind == "hashing" else "")
    bound: dict[str, Any] = {"store": store, "tenant_id": tenant_id, "top_k": depth, "timeout_seconds": timeout_seconds}
    pipeline = Pipeline()
    pipeline.add_component(LEXICAL, LexicalRetriever(**bound))
    pipeline.add_component(DENSE, DenseRetriever(**bound, embedder=embedder))
    pipeline.add_component(SPARSE, SparseRetriever(**bound))
    pipeline.add_component("fusion", RankFusion(weights, k, top_k))
    for leg in (LEXICAL, DENSE, SPARSE):
        pipeline.connect(f"{leg}.documents", f"fusion.{leg}")
        pipeline.connect(f"{leg}.missing", "fusion.missing")
    return pipeline
