"""Haystack components of hybrid retrieval: one retriever for each leg, their fusion, and a reranker.

Each can be used by itself. They keep what describes them (an address, a model's description), not what it opens: so
they can be written to YAML and read back, and no secret is among it.
"""

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import asdict, fields, replace
from functools import cache
from typing import Any, TypeVar

import msgspec

from haystack import Document, component, default_to_dict
from haystack.core.component.types import Variadic
from medkg.contracts.errors import ConfigurationError, MedkgError
from medkg.haystack.addresses import open_index, read_address
from medkg.haystack.fusion import fuse
from medkg.haystack.hashing import HashingEmbedder
from medkg.haystack.legs import (
    DENSE,
    FIELDS,
    LEG_WEIGHTS,
    LEGS,
    LEXICAL,
    SEARCHES,
    SPARSE,
    LegMissing,
    Models,
    Question,
)
from medkg.haystack.models import embedders_of, read_spec
from medkg.haystack.stores import FieldWeights, Filters, Passage, PassageIndex

T = TypeVar("T")
_FILTERS = frozenset(entry.name for entry in fields(Filters))


class _LegRetriever:
    """What the three retrievers share: one search on one moment of an index, as Haystack documents."""

    leg: str

    # no __init__: Haystack makes a component's class anew, and super() then looks for the old one
    def _bind(
        self,
        store: dict[str, Any],
        tenant_id: str,
        top_k: int,
        timeout_seconds: float,
        embedder: dict[str, Any] | None = None,
    ) -> None:
        if not 1 <= top_k <= 1_000 or timeout_seconds <= 0:
            raise ValueError(f"top_k must be 1 to 1000 and timeout_seconds positive: {top_k}, {timeout_seconds}")
        self.store = dict(store)
        self.tenant_id, self.top_k, self.timeout_seconds = tenant_id, top_k, timeout_seconds
        self._address = read_address(store)
        self._spec = read_spec(embedder) if embedder is not None else None
        self._index: PassageIndex | None = None
        self._models = Models()

    def warm_up(self) -> None:
        """Opens the index and loads the model, once."""
        if self._index is None:
            self._index = open_index(self._address)
            embedder_of = embedders_of([self._spec]) if self._spec is not None else HashingEmbedder.of_model
            self._models = Models(embedder_of)

    async def _find(
        self, query: str, filters: dict[str, Any] | None, top_k: int | None, fields: FieldWeights = FIELDS
    ) -> dict[str, Any]:
        asked = Question(query, min(top_k or self.top_k, 1_000), _filters(filters), fields)
        try:
            async with asyncio.timeout(self.timeout_seconds):
                documents = await self._search(asked)
        except (LegMissing, MedkgError, TimeoutError) as error:
            reason = "late" if isinstance(error, TimeoutError) else str(error)
            return {"documents": [], "missing": {self.leg: reason}}
        return {"documents": documents, "missing": {}}

    async def _search(self, asked: Question) -> list[Document]:
        assert self._index is not None  # noqa: S101  warm_up opened it
        async with self._index.view(self.tenant_id) as view:
            if view is None or not asked.text.strip():
                return []
            found = await SEARCHES[self.leg](view, asked, self._models)
            passages = await view.passages([scored.ref for scored in found])
        return [_document(passages[ref], score) for ref, score in found if ref in passages]


@component
class LexicalRetriever(_LegRetriever):
    """Passages by BM25 over title, section and text.

    ``store`` is an address (:mod:`medkg.haystack.addresses`), ``fields`` weighs title, section and text. ``filters``
    of a run are the fields of :class:`medkg.haystack.stores.Filters`. A search that fails or is late gives no
    documents, and says so in ``missing``: the leg's name and why.
    """

    leg = LEXICAL

    def __init__(
        self,
        store: dict[str, Any],
        tenant_id: str,
        top_k: int = 200,
        timeout_seconds: float = 10.0,
        fields: dict[str, float] | None = None,
    ) -> None:
        self._bind(store, tenant_id, top_k, timeout_seconds)
        self.fields = fields or asdict(FIELDS)
        self._fields = FieldWeights(**self.fields)

    def to_dict(self) -> dict[str, Any]:
        """For a serialised Haystack pipeline."""
        return _described(self, store=self.store, tenant_id=self.tenant_id, top_k=self.top_k, fields=self.fields)

    @component.output_types(documents=list[Document], missing=dict[str, str])
    def run(self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None) -> dict[str, Any]:
        """Documents with the leg's own score, best first."""
        self.warm_up()
        return _wait_for(self._find(query, filters, top_k, self._fields))

    @component.output_types(documents=list[Document], missing=dict[str, str])
    async def run_async(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, Any]:
        """As :meth:`run`."""
        self.warm_up()
        return await _on_the_loop(self._find(query, filters, top_k, self._fields))


@component
class SparseRetriever(_LegRetriever):
    """Passages by term weights; arguments and outputs as :class:`LexicalRetriever`."""

    leg = SPARSE

    def __init__(self, store: dict[str, Any], tenant_id: str, top_k: int = 200, timeout_seconds: float = 10.0) -> None:
        self._bind(store, tenant_id, top_k, timeout_seconds)

    def to_dict(self) -> dict[str, Any]:
        """For a serialised Haystack pipeline."""
        return _described(self, store=self.store, tenant_id=self.tenant_id, top_k=self.top_k)

    @component.output_types(documents=list[Document], missing=dict[str, str])
    def run(self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None) -> dict[str, Any]:
        """Documents with the leg's own score, best first."""
        self.warm_up()
        return _wait_for(self._find(query, filters, top_k))

    @component.output_types(documents=list[Document], missing=dict[str, str])
    async def run_async(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, Any]:
        """As :meth:`run`."""
        self.warm_up()
        return await _on_the_loop(self._find(query, filters, top_k))


@component
class DenseRetriever(_LegRetriever):
    """Passages by nearness of vectors; arguments and outputs as :class:`LexicalRetriever`.

    ``embedder`` describes the model that the index was made with (:mod:`medkg.haystack.models`); an index of the
    hashing embedder needs none. With another model than the index's the leg is missing.
    """

    leg = DENSE

    def __init__(
        self,
        store: dict[str, Any],
        tenant_id: str,
        embedder: dict[str, Any] | None = None,
        top_k: int = 200,
        timeout_seconds: float = 10.0,
    ) -> None:
        self._bind(store, tenant_id, top_k, timeout_seconds, embedder)
        self.embedder = embedder

    def to_dict(self) -> dict[str, Any]:
        """For a serialised Haystack pipeline."""
        return _described(self, store=self.store, tenant_id=self.tenant_id, top_k=self.top_k, embedder=self.embedder)

    @component.output_types(documents=list[Document], missing=dict[str, str])
    def run(self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None) -> dict[str, Any]:
        """Documents with the leg's own score, best first."""
        self.warm_up()
        return _wait_for(self._find(query, filters, top_k))

    @component.output_types(documents=list[Document], missing=dict[str, str])
    async def run_async(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, Any]:
        """As :meth:`run`."""
        self.warm_up()
        return await _on_the_loop(self._find(query, filters, top_k))


@component
class RankFusion:
    """One list out of those of the legs, by reciprocal rank; unlike Haystack's joiner it knows which list is whose, so
    that weights go by name and a missing leg shifts none, and equal scores share a rank.

    ``weights`` names what ``bm25``, ``dense`` and ``sparse`` have to say; ``k`` damps the first ranks.
    """

    def __init__(self, weights: dict[str, float] | None = None, k: float = 5.0, top_k: int = 10) -> None:
        weights = weights if weights is not None else asdict(LEG_WEIGHTS)
        if unknown := set(weights) - set(LEGS):
            raise ValueError(f"there is no leg {', '.join(sorted(unknown))}; there are {', '.join(LEGS)}")
        if k < 0 or top_k < 1 or any(weight < 0 for weight in weights.values()):
            raise ValueError(f"k and weights must not be negative, top_k at least 1: {k}, {weights}, {top_k}")
        self.weights, self.k, self.top_k = weights, k, top_k

    def to_dict(self) -> dict[str, Any]:
        """For a serialised Haystack pipeline."""
        return dict(default_to_dict(self, weights=self.weights, k=self.k, top_k=self.top_k))

    @component.output_types(documents=list[Document], legs_missing=dict[str, str])
    def run(
        self,
        missing: Variadic[dict[str, str]],
        bm25: list[Document] | None = None,
        dense: list[Document] | None = None,
        sparse: list[Document] | None = None,
        page_size: int | None = None,
    ) -> dict[str, Any]:
        """The best ``page_size`` (else ``top_k``) documents; ``meta["legs"]`` has the rank in each leg.

        ``legs_missing`` says which legs were not made, and why.
        """
        given = {LEXICAL: bm25 or [], DENSE: dense or [], SPARSE: sparse or []}
        by_id = {document.id: document for documents in given.values() for document in documents}
        lists = {leg: [(document.id, document.score or 0.0) for document in found] for leg, found in given.items()}
        fused = fuse(lists, self.weights, self.k)
        fused.sort(key=lambda entry: (-entry.score, by_id[entry.item].meta["doc_id"], entry.item))
        documents = []
        for entry in fused[: page_size or self.top_k]:
            document = by_id[entry.item]
            documents.append(replace(document, score=entry.score, meta={**document.meta, "legs": entry.ranks}))
        return {"documents": documents, "legs_missing": {leg: why for each in missing for leg, why in each.items()}}


def _described(retriever: _LegRetriever, **given: Any) -> dict[str, Any]:
    return dict(default_to_dict(retriever, timeout_seconds=retriever.timeout_seconds, **given))


def _filters(given: dict[str, Any] | None) -> Filters:
    """From the plain values of a pipeline's run, where lists stand for tuples."""
    if unknown := set(given or {}) - _FILTERS:
        raise ConfigurationError(f"filtering passages: there is no filter {', '.join(sorted(unknown))}")
    try:
        return msgspec.convert(given or {}, Filters)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"filtering passages: {error}") from error


def _document(passage: Passage, score: float) -> Document:
    chunk = passage.chunk
    meta = {
        **chunk.metadata,
        "doc_id": chunk.doc_id,
        "title": chunk.title,
        "section_path": list(chunk.section_path),
        "ordinal": chunk.ordinal,
    }
    return Document(id=chunk.chunk_id, content=chunk.text, meta=meta, score=score)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """The one loop on which all components of this process search: an index belongs to the loop it is used on."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="medkg-retrieval", daemon=True).start()
    return loop


def _wait_for(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(work, _loop()).result()


async def _on_the_loop(work: Coroutine[Any, Any, T]) -> T:
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, _loop()))
