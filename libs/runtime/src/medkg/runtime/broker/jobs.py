"""Submitting a job by an event."""

import time

from medkg.contracts.cloudevents import Envelope, Message, message, now, schema_uri
from medkg.contracts.errors import ResourceUnavailableError
from medkg.contracts.ids import job_id_of, stable_id
from medkg.contracts.messages import EventType
from medkg.contracts.topics import JOBS
from medkg.runtime.broker.producer import Publisher
from medkg.runtime.settings import KafkaSettings


def job_event(submission: bytes, *, source: str, event_id: str) -> tuple[str, Message]:
    """A job event in binary mode, and the id of the job it will become."""
    job_id = job_id_of(source, event_id)
    envelope = Envelope(
        id=event_id,
        type=EventType.JOB_SUBMITTED,
        source=source,
        time=now(),
        subject=job_id,
        dataschema=schema_uri("job-submission"),
        partitionkey=job_id,
        correlationid=job_id,
    )
    return job_id, message(JOBS, envelope, submission)


async def publish_job_event(settings: KafkaSettings, submission: bytes, *, source: str, event_id: str = "") -> str:
    """Publish one job event straight to Kafka and return the id of its job.

    Raises:
        ResourceUnavailableError: Kafka did not take it.
    """
    publisher = Publisher(settings)
    job_id, item = job_event(
        submission, source=source, event_id=event_id or stable_id(time.time_ns(), submission.hex())
    )
    refused = await publisher.publish([item])
    if refused:
        raise ResourceUnavailableError(f"publishing the job event: {refused[0]}")
    return job_id
