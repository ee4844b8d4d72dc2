"""Hybrid search over any store: BM25, vectors and term weights, fused by reciprocal rank, and what becomes of them."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from medkg.contracts.errors import ContractError, MedkgError, ResourceUnavailableError
from medkg.haystack.answering import MAX_LIMIT, MAX_OFFSET, Hit, LegShare, SearchAnswer, SearchRequest, neighbour_of
from medkg.haystack.fusion import Fused, fuse
from medkg.haystack.highlighting import highlights
from medkg.haystack.legs import FIELDS, LEG_WEIGHTS, LEGS, MODELS, SEARCHES, LegMissing, LegWeights, Models, Question
from medkg.haystack.lexical import MAX_QUERY_CHARACTERS
from medkg.haystack.reranking import RERANKED, Reranker
from medkg.haystack.stores import MAX_NEIGHBOURS, FieldWeights, Passage, PassageIndex, PassageView, Scored

logger = logging.getLogger(__name__)

LATE: Final = "it was not done in time"
_FETCH = 20  # passages read at once, at least


@dataclass(frozen=True, slots=True)
class RetrieverSettings:
    """``depth`` passages are taken from each leg, whatever page is asked for, so that pages fit together.

    After ``deadline_seconds`` the answer is made of the legs that are done; the reranker has as long again.
    """

    weights: LegWeights = LEG_WEIGHTS
    fields: FieldWeights = FIELDS
    k: float = 5.0  # chosen with the weights: docs/decisions/0028
    depth: int = 200
    deadline_seconds: float = 10.0
    rerank_depth: int = 50


SETTINGS: Final = RetrieverSettings()


class Retriever:
    """Answers questions from one index. Holds nothing of its own open; used on one event loop."""

    def __init__(
        self,
        index: PassageIndex,
        models: Models = MODELS,
        settings: RetrieverSettings = SETTINGS,
        reranker: Reranker | None = None,
    ) -> None:
        self._index = index
        self._models = models
        self._settings = settings
        self._reranker = reranker

    async def answer(self, tenant_id: str, request: SearchRequest) -> SearchAnswer:
        """The passages of a tenant that answer a question, best first; none without an index or without a question.

        At most :data:`MAX_LIMIT` from an offset of at most :data:`MAX_OFFSET`. A leg that fails or is late is left out,
        and the answer says so.

        Raises:
            ConfigurationError: the tenant id is empty, or the index was made by another version of medkg.
            ContractError: a leg that does not exist, or filters with more values than a store takes.
            ResourceUnavailableError: the index cannot be read now, or no leg at all could be made.
        """
        began = time.perf_counter()
        query = request.query[:MAX_QUERY_CHARACTERS]
        if unknown := set(request.legs) - set(LEGS):
            raise ContractError(f"searching: there is no leg {', '.join(sorted(unknown))}; there are {', '.join(LEGS)}")
        async with self._index.view(tenant_id) as view:
            if view is None or not query.strip() or request.limit < 1:
                return SearchAnswer((), (), _milliseconds_since(began))
            missing: dict[str, str] = {}
            found = await self._search(view, replace(request, query=query), missing)
            hits, more = await self._page(view, replace(request, query=query), found, missing)
        told = tuple(leg for leg in (*LEGS, RERANKED) if leg in missing)
        return SearchAnswer(hits, told, _milliseconds_since(began), missing, more)

    async def search(self, tenant_id: str, query: str, limit: int = 10) -> SearchAnswer:
        """:meth:`answer` to a plain question."""
        return await self.answer(tenant_id, SearchRequest(query, limit))

    async def _search(
        self, view: PassageView, request: SearchRequest, missing: dict[str, str]
    ) -> dict[str, list[Scored]]:
        """What each leg found; writes into ``missing`` which did not, and why."""
        settings = self._settings
        question = Question(request.query, settings.depth, request.filters, settings.fields)
        tasks = {
            leg: asyncio.create_task(_run(search(view, question, self._models)), name=f"search-{leg}")
            for leg, search in SEARCHES.items()
            if leg in request.legs
        }
        try:
            await asyncio.wait(tasks.values(), timeout=settings.deadline_seconds)
        finally:
            late = [task for task in tasks.values() if not task.done()]
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        outcomes = {leg: LATE if task in late else task.result() for leg, task in tasks.items()}
        failures = [outcome for outcome in outcomes.values() if isinstance(outcome, MedkgError)]
        for leg, outcome in outcomes.items():
            if not isinstance(outcome, list):
                missing[leg] = _reason(leg, outcome)
        found = {leg: outcome for leg, outcome in outcomes.items() if isinstance(outcome, list)}
        if failures and not found:
            raise failures[0]
        if not found and late:
            raise ResourceUnavailableError(f"searching: no leg was done within {settings.deadline_seconds:g} s")
        return found

    async def _page(
        self, view: PassageView, request: SearchRequest, found: Mapping[str, Sequence[Scored]], missing: dict[str, str]
    ) -> tuple[tuple[Hit, ...], bool]:
        weights = self._settings.weights.of_model(view.facts.model)
        fused = fuse(found, weights, self._settings.k)
        offset, limit = min(max(request.offset, 0), MAX_OFFSET), min(request.limit, MAX_LIMIT)
        wanted = offset + limit + 1
        if request.by_document:
            wanted = len(fused)
        elif request.rerank:
            wanted = max(wanted, self._settings.rerank_depth)
        hits = await _hits(view, fused, wanted)
        if request.rerank:
            hits = await self._reranked(request.query, hits, missing)
        if request.by_document:
            hits = _by_document(hits)
        page = [replace(hit, highlights=highlights(hit.text, request.query)) for hit in hits[offset : offset + limit]]
        if request.explain:
            shares = _shares(fused, found, weights, self._settings.k)
            page = [replace(hit, explanation=shares[hit.ref]) for hit in page]
        if request.neighbours > 0:
            page = await _with_neighbours(view, page, min(request.neighbours, MAX_NEIGHBOURS))
        return tuple(page), len(hits) > offset + limit

    async def _reranked(self, query: str, hits: list[Hit], missing: dict[str, str]) -> list[Hit]:
        """The first hits in the reranker's order, the others behind them as they were."""
        if self._reranker is None:
            missing[RERANKED] = "no reranker is configured here"
            return hits
        first, rest = hits[: self._settings.rerank_depth], hits[self._settings.rerank_depth :]
        if not first:
            return hits
        texts = [f"{hit.title}\n{hit.text}" if hit.title else hit.text for hit in first]
        try:
            async with asyncio.timeout(self._settings.deadline_seconds):
                scores = await self._reranker.scores(query, texts)
        except (MedkgError, TimeoutError) as error:
            missing[RERANKED] = _reason(RERANKED, LATE if isinstance(error, TimeoutError) else error)
            return hits
        scored = [replace(hit, rerank_score=score) for hit, score in zip(first, scores, strict=True)]
        order = sorted(range(len(first)), key=lambda place: (-scores[place], place))
        return [*(scored[place] for place in order), *rest]


async def _run(search: Awaitable[list[Scored]]) -> list[Scored] | LegMissing | MedkgError:
    try:
        return await search
    except (LegMissing, MedkgError) as error:
        return error


def _reason(leg: str, outcome: LegMissing | MedkgError | str) -> str:
    """Why a leg is missing, for the one who asked: an error's code, for its message may name our servers."""
    if isinstance(outcome, MedkgError):
        logger.warning("searching without %s: %s", leg, outcome)
        return outcome.code
    return str(outcome)


async def _hits(view: PassageView, fused: Sequence[Fused[str]], wanted: int) -> list[Hit]:
    """The best passages, ``wanted`` or some more. Of those of one document with the same text the best is kept.

    Equal scores are put in an order that another store with the same passages has, too: all of one score are fetched.
    """
    hits: list[Hit] = []
    seen: set[tuple[str, str]] = set()
    start = 0
    while start < len(fused) and (len(hits) < wanted or fused[start].score == fused[start - 1].score):
        end = min(start + max(wanted - len(hits), _FETCH), len(fused))
        passages = await view.passages([entry.item for entry in fused[start:end]])
        for entry in fused[start:end]:
            passage = passages.get(entry.item)
            if passage is None or (passage.chunk.doc_id, passage.chunk.text) in seen:
                continue
            seen.add((passage.chunk.doc_id, passage.chunk.text))
            hits.append(_hit(passage, entry))
        start = end
    hits.sort(key=lambda hit: (-hit.score, hit.doc_id, hit.chunk_id))
    return hits


def _hit(passage: Passage, entry: Fused[str]) -> Hit:
    chunk = passage.chunk
    return Hit(
        chunk_id=chunk.chunk_id,
        doc_id=chunk.doc_id,
        title=chunk.title,
        source=str(chunk.metadata.get("source", "")),
        source_id=str(chunk.metadata.get("source_id", "")),
        section_path=chunk.section_path,
        text=chunk.text,
        provenance=chunk.provenance,
        score=entry.score,
        legs=entry.ranks,
        ordinal=chunk.ordinal,
        metadata=chunk.metadata,
        ref=passage.ref,
    )


def _by_document(hits: Sequence[Hit]) -> list[Hit]:
    """The best hit of each document, with the number of its others."""
    counts = Counter(hit.doc_id for hit in hits)
    best = {hit.doc_id: hit for hit in reversed(hits)}
    return [replace(hit, also=counts[hit.doc_id] - 1) for hit in hits if best[hit.doc_id] is hit]


def _shares(
    fused: Sequence[Fused[str]], found: Mapping[str, Sequence[Scored]], weights: Mapping[str, float], k: float
) -> dict[str, tuple[LegShare, ...]]:
    scores = {leg: dict(scored) for leg, scored in found.items()}
    return {
        entry.item: tuple(
            LegShare(leg, rank, scores[leg][entry.item], weights[leg], weights[leg] / (k + rank))
            for leg, rank in entry.ranks.items()
        )
        for entry in fused
    }


async def _with_neighbours(view: PassageView, hits: Sequence[Hit], reach: int) -> list[Hit]:
    found = await asyncio.gather(*(view.neighbours(hit.doc_id, hit.ordinal, reach, reach) for hit in hits))
    return [
        replace(hit, neighbours=tuple(neighbour_of(p) for p in passages if p.chunk.chunk_id != hit.chunk_id))
        for hit, passages in zip(hits, found, strict=True)
    ]


def _milliseconds_since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
