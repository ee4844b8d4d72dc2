"""A job event straight to Kafka, for those who do not want HTTP in between."""

import asyncio
import socket

from medkg.contracts import topics
from medkg.contracts.errors import ResourceUnavailableError

EVENT_SOURCE = "medkg-cli"  # the CloudEvents source of these jobs; part of their ids
ANSWER_SECONDS = 5.0  # for Kafka to say that it is there and has the topic


def publish(bootstrap: str, submission: bytes) -> str:
    """Publish ``org.medicalkg.job.submitted`` with this data; the id of the job that it becomes.

    Security and topic prefix come from the environment (``MEDKG_KAFKA_…``), as for every service. Whether Kafka is
    there is found out first: a producer by itself would try for minutes.

    Raises:
        ResourceUnavailableError: Kafka does not answer, has no topic for jobs, or did not take it.
    """
    _require_listener(bootstrap)
    from medkg.runtime.broker import ensure_topics, publish_job_event  # much to import: only where it is wanted
    from medkg.runtime.settings import KafkaSettings

    settings = KafkaSettings(bootstrap=bootstrap, create_topics=False)  # how many partitions is the fleet's business

    async def deliver() -> str:
        await ensure_topics(settings, [topics.JOBS], timeout_seconds=ANSWER_SECONDS)
        return await publish_job_event(settings, submission, source=EVENT_SOURCE)

    return asyncio.run(deliver())


def _require_listener(bootstrap: str) -> None:
    """Somebody listens at one of the addresses. A Kafka client by itself would fill the terminal with its attempts."""
    problems = []
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
        except OSError as error:
            problems.append(f"{address.strip()}: {error.strerror or error}")
        else:
            return
    raise ResourceUnavailableError(f"publishing to Kafka: nothing answers at {'; '.join(problems)}; is it up?")
