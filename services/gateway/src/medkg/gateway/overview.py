"""The fleet as a whole: status, pipelines, what was given up and what was refused."""

import dataclasses
import json
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import PlainTextResponse
from prometheus_client import generate_latest

from medkg.gateway.parts import Parts

Text = Annotated[str, Query(max_length=200)]
Limit = Annotated[int, Query(ge=1, le=1_000)]


def routes(parts: Parts) -> APIRouter:
    """Status, pipelines, dead letters, rejections, health and metrics."""
    router = APIRouter(tags=["fleet"])

    @router.get("/v1/status", summary="Everything at a glance")
    async def status() -> dict[str, Any]:
        overview = await parts.ledger.overview()
        return parts.about | {field.name: getattr(overview, field.name) for field in dataclasses.fields(overview)}

    @router.get("/v1/pipelines", summary="The pipelines a job can name")
    async def pipelines() -> dict[str, Any]:
        shown = []
        for name in parts.pipelines.names():
            topology = parts.pipelines.get(name)
            shown.append(
                {
                    "name": topology.name,
                    "version": topology.version,
                    "digest": topology.digest,
                    "description": topology.description,
                    "applicable_sources": topology.applicable_sources,
                    "stages": [stage.name for stage in topology.stages],
                }
            )
        return {"pipelines": shown, "faults": [str(problem) for problem in parts.pipelines.problems()]}

    @router.get("/v1/pipelines/{name}", summary="A pipeline as it is pinned")
    async def pipeline(name: Annotated[str, Path(pattern=r"^[a-z-]{1,63}$")]) -> dict[str, Any]:
        topology: dict[str, Any] = json.loads(parts.pipelines.get(name).canonical_json)
        return topology

    @router.get("/v1/dead-letters", summary="Messages that could not be handled, newest first")
    async def dead_letters(job_id: Text = "", stage: Text = "", code: Text = "", limit: Limit = 100) -> dict[str, Any]:
        return {"dead_letters": await parts.ledger.dead_letters(job_id=job_id, stage=stage, code=code, limit=limit)}

    @router.get("/v1/rejections", summary="Job events that were refused, newest first")
    async def rejections(limit: Limit = 100) -> dict[str, Any]:
        return {"rejections": await parts.ledger.rejections(limit=limit)}

    @router.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/metrics", include_in_schema=False)
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(generate_latest(parts.registry), media_type="text/plain; version=0.0.4")

    return router
