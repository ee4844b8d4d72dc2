"""Submitting jobs, and following them."""

import asyncio
import time
from contextlib import suppress
from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, Header, Path, Query, Request

from medkg.contracts.errors import ResourceUnavailableError
from medkg.contracts.jobs import JobSubmission, check_submission
from medkg.gateway.answers import DocumentPage, JobPage, Submitted
from medkg.gateway.faults import NotFoundError, RefusedError
from medkg.gateway.parts import Parts
from medkg.storage.ledger_answers import FaultAnswer, Job, JobDocument

Tenant = Annotated[str, Query(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="The tenant whose rows are shown.")]
JobId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
DocumentId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
Limit = Annotated[int, Query(ge=1, le=1_000)]
Cursor = Annotated[str, Query(max_length=64, pattern=r"^[0-9a-f]*$")]

_LOOK_SECONDS = 0.05
_BODY = {"required": True, "content": {"application/json": {"schema": JobSubmission.model_json_schema()}}}


def routes(parts: Parts) -> APIRouter:
    """The routes under ``/v1/jobs``."""
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

    @router.post("", status_code=202, summary="Submit a job", openapi_extra={"requestBody": _BODY})
    async def submit(
        request: Request, idempotency_key: Annotated[str, Header(max_length=200, pattern=r"^[!-~]*$")] = ""
    ) -> Submitted:
        """Publish a job event. The body is the data of `org.medicalkg.job.submitted`.

        Waits a moment for the gate-router: the state is then `admitted`, or the answer is 422 with every fault. The
        same `Idempotency-Key` is the same job.
        """
        body = await request.body()
        submission, faults = check_submission(body, parts.selections)
        if submission is None:
            raise RefusedError("the job has faults", faults)
        # keys of one tenant are nobody else's: a tenant's name holds no slash
        event_id = f"{submission.tenant_id}/{idempotency_key}" if idempotency_key else uuid4().hex
        job_id = await parts.publisher.publish(body, event_id)
        state, reasons = await _word_of_the_router(parts, job_id)
        if state == "rejected":
            raise RefusedError("the job was rejected", reasons, job_id)
        return Submitted(job_id, "admitted" if state else "submitted")

    @router.get("", summary="Jobs, newest first")
    async def jobs(tenant_id: Tenant = "default", limit: Limit = 50, before: Cursor = "") -> JobPage:
        """A page of jobs. `next` is the `before` of the following page."""
        found, following = await parts.ledger.jobs(tenant_id, limit=limit, before=before)
        return JobPage(found, following or None)

    @router.get("/{job_id}", summary="A job, with its stages and what it waits for")
    async def job(job_id: JobId, tenant_id: Tenant = "default") -> Job:
        found = await parts.ledger.job(tenant_id, job_id)
        if found is None:
            raise _no_job(tenant_id, job_id)
        return found

    @router.get("/{job_id}/documents", summary="Documents of a job")
    async def documents(
        job_id: JobId,
        tenant_id: Tenant = "default",
        state: Annotated[str, Query(pattern="^(in_flight|completed|skipped|failed|rejected)?$")] = "",
        limit: Limit = 100,
        after: Cursor = "",
    ) -> DocumentPage:
        """A page of documents by id. `next` is the `after` of the following page."""
        found, following = await parts.ledger.documents(tenant_id, job_id, state=state, limit=limit, after=after)
        if not found and await parts.ledger.job(tenant_id, job_id) is None:
            raise _no_job(tenant_id, job_id)
        return DocumentPage(found, following or None)

    @router.get("/{job_id}/documents/{doc_id}", summary="A document and everything that was done to it")
    async def document(job_id: JobId, doc_id: DocumentId, tenant_id: Tenant = "default") -> JobDocument:
        found = await parts.ledger.document(tenant_id, job_id, doc_id)
        if found is None:
            raise NotFoundError(f"job {job_id} of tenant {tenant_id!r} has no document {doc_id}")
        return found

    return router


def _no_job(tenant_id: str, job_id: str) -> NotFoundError:
    return NotFoundError(f"there is no job {job_id} of tenant {tenant_id!r}")


async def _word_of_the_router(parts: Parts, job_id: str) -> tuple[str, tuple[FaultAnswer, ...]]:
    """The state of a job and its faults; nothing when no word came in time.

    The job is taken by then: a ledger that does not answer is no word, and no failure of the submission.
    """
    deadline = time.monotonic() + parts.admission_seconds
    while True:
        with suppress(ResourceUnavailableError):
            known = await parts.ledger.state_of(job_id)
            if known is not None:
                return known
        if time.monotonic() >= deadline:
            return "", ()
        await asyncio.sleep(_LOOK_SECONDS)
