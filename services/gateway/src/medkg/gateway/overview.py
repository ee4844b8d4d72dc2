"""The fleet as a whole: status, pipelines, and what was refused."""

import json
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import PlainTextResponse
from prometheus_client import generate_latest

from medkg.contracts.errors import PipelineConfigError
from medkg.contracts.topology import Topology
from medkg.gateway.answers import (
    FleetStatus,
    Health,
    PipelineList,
    PipelineSummary,
    RejectionList,
)
from medkg.gateway.faults import NotFoundError
from medkg.gateway.jobs import Limit, Tenant
from medkg.gateway.parts import Parts


def routes(parts: Parts) -> APIRouter:
    """Status, pipelines, rejections, health and metrics."""
    router = APIRouter(tags=["fleet"])

    @router.get("/v1/status", summary="Everything at a glance")
    async def status() -> FleetStatus:
        """The services of this process, where they keep things, and counts over all tenants."""
        found, about = await parts.ledger.overview(), parts.about
        return FleetStatus(
            broker=about.broker,
            services=about.services,
            stores=dict(about.stores),
            jobs=found.jobs,
            documents=found.documents,
            waiting=found.waiting,
            rejections=found.rejections,
            dead_letters=found.dead_letters,
        )

    @router.get("/v1/pipelines", summary="The pipelines a job can name")
    async def pipelines() -> PipelineList:
        """All that are in force. `faults` says which files are not, and why."""
        shown = []
        for name in parts.pipelines.names():
            with suppress(PipelineConfigError):  # it has gone since its name was read
                shown.append(_summary(parts.pipelines.get(name)))
        return PipelineList(shown, [str(problem) for problem in parts.pipelines.problems()])

    @router.get("/v1/pipelines/{name}", summary="A pipeline as it is pinned")
    async def pipeline(name: Annotated[str, Path(pattern=r"^[a-z-]{1,63}$")]) -> dict[str, Any]:
        """The canonical JSON of the topology: a job that starts now is pinned to it by its SHA-256."""
        try:
            topology: dict[str, Any] = json.loads(parts.pipelines.get(name).canonical_json)
        except PipelineConfigError as error:
            raise NotFoundError(error.message) from error
        return topology

    @router.get("/v1/rejections", summary="Job events that were refused, newest first")
    async def rejections(tenant_id: Tenant = "default", limit: Limit = 100) -> RejectionList:
        """Those of a tenant. An event that names no tenant is shown to the tenant `default`."""
        return RejectionList(await parts.ledger.rejections(tenant_id=tenant_id, limit=limit))

    @router.get("/healthz", summary="Whether this process answers")
    async def healthz() -> Health:
        """Says nothing of Kafka or the database: a restart of the gateway would not cure them."""
        return Health()

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        """Text exposition format 0.0.4."""
        return PlainTextResponse(generate_latest(parts.registry), media_type="text/plain; version=0.0.4")

    return router


def _summary(topology: Topology) -> PipelineSummary:
    return PipelineSummary(
        name=topology.name,
        version=topology.version,
        digest=topology.digest,
        description=topology.description,
        applicable_sources=topology.applicable_sources,
        stages=[stage.name for stage in topology.stages],
    )
