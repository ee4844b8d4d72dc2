"""Why something waits, and what can be done about it by hand."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from medkg.contracts.errors import ResourceUnavailableError
from medkg.contracts.messages import Fault
from medkg.gateway.answers import GateDecision, WaitList
from medkg.gateway.faults import NotFoundError, RequestFault
from medkg.gateway.jobs import Limit, Tenant
from medkg.gateway.parts import Parts
from medkg.gateway.waiting_desk import WaitingDesk
from medkg.gateway.why import Explainer, Why
from medkg.storage.operators import MAX_EXTENSION_SECONDS, Action

Id = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
JobFilter = Annotated[str, Query(pattern=r"^([0-9a-f]{32})?$")]
StageFilter = Annotated[str, Query(max_length=63, pattern=r"^[a-z_]*$")]


class DecisionBody(BaseModel):
    """What is decided about waits, by whom and why. Waits are named by id, or all of a job (at one stage)."""

    model_config = ConfigDict(extra="forbid")

    action: Action
    actor: str = Field(min_length=1, max_length=200)
    reason: str = Field(min_length=1, max_length=1_000)
    wait_ids: list[Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]] = Field(default_factory=list, max_length=10_000)
    job_id: str = Field("", pattern=r"^([0-9a-f]{32})?$")
    stage: str = Field("", max_length=63, pattern=r"^[a-z_]*$")
    seconds: float = Field(0.0, ge=0, le=MAX_EXTENSION_SECONDS)


def routes(parts: Parts) -> APIRouter:
    """``/v1/why`` and ``/v1/gates``."""
    router = APIRouter(prefix="/v1", tags=["waiting"])

    @router.get("/why/{identity}", summary="Why a job or a document does not go on")
    async def why(identity: Id, tenant_id: Tenant = "default", job_id: JobFilter = "") -> Why:
        """Where it is, what it waits for, what would free it, and what can be done by hand."""
        return await Explainer(_desk(parts), parts.ledger, tenant_id).explain(identity, job_id)

    @router.get("/gates", summary="What waits at gates, at joins and for retries, oldest first")
    async def gates(
        tenant_id: Tenant = "default",
        job_id: JobFilter = "",
        stage: StageFilter = "",
        kind: Literal["", "gate", "join", "retry", "page", "unread"] = "",
        late: bool = False,
        limit: Limit = 100,
    ) -> WaitList:
        """`late`: gates that gave up, and whose condition came true since; they can be released by their id."""
        asked = _desk(parts).waits
        found = await asked.listed(tenant_id, job_id=job_id, stage=stage, kind=kind, late=late, limit=limit)
        return WaitList(found)

    @router.post("/gates/decisions", summary="Release, fail or extend waits by hand")
    async def decisions(body: DecisionBody, tenant_id: Tenant = "default") -> GateDecision:
        """The gate-router acts at once. Who, when and why stay on record, and `why` tells them."""
        try:
            decided = await _desk(parts).decide(
                tenant_id,
                body.action,
                who=body.actor,
                why=body.reason,
                wait_ids=body.wait_ids,
                job_id=body.job_id,
                stage=body.stage,
                seconds=body.seconds,
            )
        except ValueError as error:
            raise RequestFault("the decision has faults", [Fault("", str(error))]) from error
        if not decided:
            raise NotFoundError(f"nothing of tenant {tenant_id!r} waits that this names; see `medkg gates list`")
        return GateDecision(body.action.value, decided)

    return router


def _desk(parts: Parts) -> WaitingDesk:
    if parts.waiting is None:
        raise ResourceUnavailableError("looking at waits: this gateway has no database")
    return parts.waiting
