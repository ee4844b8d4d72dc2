"""From the records of the lifecycle and dead-letter topics to the ledger, in bulk."""

import logging
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter

from medkg.contracts import topics
from medkg.contracts.cloudevents import Envelope, Message, message, read_brief, schema_uri, trace_parent
from medkg.contracts.errors import ContractError
from medkg.contracts.ids import stable_id
from medkg.contracts.messages import EventType, encode
from medkg.runtime.records import Record
from medkg.storage.engine import Engine
from medkg.storage.ledger_letters import project_dead_letters
from medkg.storage.ledger_memory import DocumentMemory
from medkg.storage.ledger_projection import FinishedJob, project

log = logging.getLogger(__name__)

SOURCE = "medkg/ledger"


class Projector:
    """Projects batches of records; safe to be given the same ones again."""

    def __init__(self, engine: Engine, registry: CollectorRegistry) -> None:
        self._engine = engine
        self._memory = DocumentMemory()
        self._unreadable = Counter(
            "medkg_ledger_unreadable_events_total", "Events that could not be projected.", registry=registry
        )

    async def handle(self, records: Sequence[Record]) -> list[Message]:
        """Project records; the messages say which jobs have ended. An unreadable event is counted and passed over.

        Raises:
            ResourceUnavailableError: the database does not answer.
        """
        events: list[tuple[Envelope, bytes]] = []
        for record in records:
            if record.topic != topics.LIFECYCLE:
                continue
            try:
                events.append((read_brief(record.headers), record.value))
            except ContractError as error:
                self._pass_over(f"{error.message} at {record.position}")
        result = await project(self._engine, events, self._memory)
        for refused in result.refused:
            self._pass_over(str(refused))
        letters = [record for record in records if record.topic == topics.DEAD_LETTER]
        if letters:
            await project_dead_letters(self._engine, letters)
        return [_completed(job) for job in result.finished]

    def _pass_over(self, what: str) -> None:
        self._unreadable.inc()
        log.warning("passing over an event that cannot be projected: %s", what)


def _completed(job: FinishedJob) -> Message:
    """The end of a job; the same event however often it is said, and another one after a redrive."""
    about = job.completed
    again = (f"redrives-{job.redrives}",) if job.redrives else ()
    identity = stable_id("event", EventType.JOB_COMPLETED, about.job_id, *again)
    envelope = Envelope(
        id=identity,
        type=EventType.JOB_COMPLETED,
        source=SOURCE,
        time=job.finished_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        subject=about.job_id,
        dataschema=schema_uri("job-completed"),
        partitionkey=about.job_id,
        correlationid=about.job_id,
        traceparent=trace_parent(stable_id("trace", about.job_id, about.job_id), identity),
    )
    return message(topics.LIFECYCLE, envelope, encode(about))
