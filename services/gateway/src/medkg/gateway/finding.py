"""Searching passages and walking the graph."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from medkg.gateway.jobs import Tenant
from medkg.gateway.parts import Parts
from medkg.gateway.passages import SearchResult, search_result
from medkg.haystack.answering import MAX_OFFSET, SearchRequest
from medkg.haystack.legs import LEGS
from medkg.haystack.stores import Filters
from medkg.storage.graph_answers import GraphAnswer

Question = Annotated[str, Query(min_length=1, max_length=2_000, pattern=r"^[^\x00]*$")]  # no database takes a NUL
Word = Annotated[str, Query(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Words = Annotated[list[Word], Query(max_length=20)]
Year = Annotated[int | None, Query(ge=0, le=9999)]
Leg = Literal["bm25", "dense", "sparse"]


def routes(parts: Parts) -> APIRouter:
    """``/v1/search`` and ``/v1/graph``."""
    router = APIRouter(prefix="/v1", tags=["search"])

    @router.get("/search", summary="Passages that answer a question")
    async def search(
        q: Question,
        tenant_id: Tenant = "default",
        limit: Annotated[int, Query(ge=1, le=100)] = 10,
        offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
        source: Words = [],  # noqa: B006  FastAPI copies it
        section: Words = [],  # noqa: B006
        condition: Words = [],  # noqa: B006
        phase: Words = [],  # noqa: B006
        year_from: Year = None,
        year_to: Year = None,
        retracted: bool | None = None,
        leg: Annotated[list[Leg], Query(max_length=3)] = [],  # noqa: B006
        by_document: bool = False,
        neighbours: Annotated[int, Query(ge=0, le=5)] = 0,
        explain: bool = False,
        rerank: bool = False,
    ) -> SearchResult:
        """Words, vectors and term weights, fused by reciprocal rank. `legs_missing` names what could not be asked.

        Of a filter that is given several times one value is enough; all filters must hold. Pages (`offset`, `limit`)
        are cut from one ranking. `leg` asks only these kinds of search.
        """
        filters = Filters(
            sources=tuple(source),
            year_from=year_from,
            year_to=year_to,
            sections=tuple(section),
            conditions=tuple(condition),
            phases=tuple(phase),
            retracted=retracted,
        )
        request = SearchRequest(
            query=q,
            limit=limit,
            offset=offset,
            filters=filters,
            legs=tuple(dict.fromkeys(leg)) or LEGS,
            by_document=by_document,
            neighbours=neighbours,
            explain=explain,
            rerank=rerank,
        )
        return search_result(q, await parts.search.answer(tenant_id, request), offset)

    @router.get("/graph", summary="An entity and what is claimed about it")
    async def graph(
        entity: Question, tenant_id: Tenant = "default", limit: Annotated[int, Query(ge=1, le=1_000)] = 50
    ) -> GraphAnswer:
        """By id, or by name: exact names first, then those that begin with it. Every claim has its passage."""
        return await parts.graph.find(tenant_id, entity, limit)

    return router
