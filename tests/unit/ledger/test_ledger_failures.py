"""Why documents of a job failed: counted by code and stage, and cheaply."""

from sqlalchemy import text
from tests.unit.ledger.lifecycle import Job, doc_id

from medkg.contracts.errors import GpuNotAvailable, MedkgError, PayloadMalformedError
from medkg.contracts.messages import Failure, RefusedInput
from medkg.storage.engine import Engine
from medkg.storage.ledger_answers import FailureCount
from medkg.storage.ledger_projection import project
from medkg.storage.ledger_reader import _JOB_FAILURES, LedgerReader

NO_GPU = Failure("gpu_unavailable", "opening embed.server: there is no CUDA device here")


async def failures_of(engine: Engine, job: Job) -> tuple[FailureCount, ...]:
    found = await LedgerReader(engine).job("default", job.id)
    assert found is not None
    return found.failures


async def test_a_job_whose_stage_had_no_gpu_says_so_and_what_to_do(engine: Engine) -> None:
    job, other = Job(), Job(2)
    refused = RefusedInput(doc_id(9), "bad", "", Failure("payload_malformed", "no", "rejected"))
    events = [job.page(0, 1, 2, 3, 4, 5, is_last=True, refused=(refused,))]
    events += [job.failed(number, "kg", failure=NO_GPU) for number in (1, 2, 3)]
    events += [job.failed(4, "kg", failure=Failure("from_a_later_release", "?")), job.completed(5)]
    events += [other.page(0, 1, is_last=True), other.failed(1, failure=NO_GPU)]
    assert not (await project(engine, events)).refused
    assert await failures_of(engine, job) == (
        FailureCount("gpu_unavailable", "kg", 3, GpuNotAvailable.remedy),
        FailureCount("payload_malformed", "ingest", 1, PayloadMalformedError.remedy),
        FailureCount("from_a_later_release", "kg", 1, MedkgError.remedy),
    )


async def test_a_redriven_document_is_no_longer_among_the_failures(engine: Engine) -> None:
    job = Job()
    await project(engine, [job.page(0, 1, is_last=True), job.failed(1, failure=NO_GPU)])
    assert [failure.count for failure in await failures_of(engine, job)] == [1]
    await project(engine, [job.redriven(1)])
    assert await failures_of(engine, job) == ()


async def test_why_documents_failed_is_counted_from_an_index_of_the_failed_ones_alone(engine: Engine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = await connection.execute(text(f"EXPLAIN {_JOB_FAILURES.text}"), {"job": Job().id})
        told = "\n".join(row[0] for row in plan)
    assert "documents_by_failure" in told, told
