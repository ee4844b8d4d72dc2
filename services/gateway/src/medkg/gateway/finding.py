"""Searching passages and walking the graph."""

from typing import Annotated

from fastapi import APIRouter, Query

from medkg.gateway.answers import SearchResult, search_result
from medkg.gateway.jobs import Tenant
from medkg.gateway.parts import Parts
from medkg.storage.graph_answers import GraphAnswer

Question = Annotated[str, Query(min_length=1, max_length=2_000, pattern=r"^[^\x00]*$")]  # no database takes a NUL


def routes(parts: Parts) -> APIRouter:
    """``/v1/search`` and ``/v1/graph``."""
    router = APIRouter(prefix="/v1", tags=["search"])

    @router.get("/search", summary="Passages that answer a question")
    async def search(
        q: Question, tenant_id: Tenant = "default", limit: Annotated[int, Query(ge=1, le=100)] = 10
    ) -> SearchResult:
        """Words, vectors and term weights, fused by reciprocal rank. `legs_missing` names what could not be asked."""
        return search_result(q, await parts.search.search(tenant_id, q, limit))

    @router.get("/graph", summary="An entity and what is claimed about it")
    async def graph(
        entity: Question, tenant_id: Tenant = "default", limit: Annotated[int, Query(ge=1, le=1_000)] = 50
    ) -> GraphAnswer:
        """By id, or by name: exact names first, then those that begin with it. Every claim has its passage."""
        return await parts.graph.find(tenant_id, entity, limit)

    return router
