"""Searching passages and walking the graph."""

import dataclasses
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query

from medkg.gateway.jobs import Tenant
from medkg.gateway.parts import Parts
from medkg.storage.graph_answers import GraphAnswer

Question = Annotated[str, Query(min_length=1, max_length=2_000)]


def routes(parts: Parts) -> APIRouter:
    """``/v1/search`` and ``/v1/graph``."""
    router = APIRouter(prefix="/v1", tags=["search"])

    @router.get("/search", summary="Passages that answer a question")
    async def search(
        q: Question, tenant_id: Tenant = "default", limit: Annotated[int, Query(ge=1, le=100)] = 10
    ) -> dict[str, Any]:
        """Words, vectors and term weights, fused by reciprocal rank. `legs_missing` names what could not be asked."""
        answer = await parts.search.search(tenant_id, q, limit)
        hits = [{"rank": rank} | _plain(hit) for rank, hit in enumerate(answer.hits, start=1)]
        return {"query": q, "hits": hits, "legs_missing": answer.legs_missing, "took_ms": answer.took_ms}

    @router.get("/graph", summary="An entity and what is claimed about it")
    async def graph(
        entity: Question, tenant_id: Tenant = "default", limit: Annotated[int, Query(ge=1, le=1_000)] = 50
    ) -> GraphAnswer:
        """By id, or by name: exact names first, then those that begin with it. Every claim has its passage."""
        return await parts.graph.find(tenant_id, entity, limit)

    return router


def _plain(hit: Any) -> dict[str, Any]:
    fields = {field.name: getattr(hit, field.name) for field in dataclasses.fields(hit)}
    plain: dict[str, Any] = msgspec.to_builtins(fields)
    return plain
