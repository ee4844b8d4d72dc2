"""Job events on their way to Kafka."""

from collections.abc import Sequence
from typing import Any, cast

import pytest

from medkg.contracts import topics
from medkg.contracts.cloudevents import Message, read_envelope
from medkg.contracts.errors import ResourceUnavailableError
from medkg.contracts.ids import job_id_of
from medkg.gateway.app import KafkaJobs
from medkg.runtime.broker import Publisher


class FakePublisher:
    """Takes messages, or refuses the first for a reason."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        self.taken: list[Message] = []

    async def publish(self, messages: Sequence[Message]) -> dict[int, str]:
        if self.reason:
            return {0: self.reason}
        self.taken += messages
        return {}


async def test_a_job_event_says_who_sent_it_and_which_job_it_becomes() -> None:
    publisher = FakePublisher()
    job_id = await KafkaJobs(cast("Publisher", publisher)).publish(b'{"a": 1}', "mine")
    (sent,) = publisher.taken
    envelope = read_envelope(sent.headers)
    assert (sent.topic, sent.value) == (topics.JOBS, b'{"a": 1}')
    assert (envelope.source, envelope.id, envelope.type) == ("medkg-gateway", "mine", "org.medicalkg.job.submitted")
    assert job_id == envelope.subject == job_id_of("medkg-gateway", "mine")


async def test_an_event_that_kafka_refuses_is_no_job() -> None:
    jobs = KafkaJobs(cast("Any", FakePublisher("message too large")))
    with pytest.raises(ResourceUnavailableError, match="publishing the job event: message too large"):
        await jobs.publish(b"{}", "mine")
