"""`--kafka`: the job event that reaches the topic, and a broker that does not answer or does not know medkg."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from typing import cast

import pytest
from confluent_kafka import Consumer

from medkg.cli import publishing
from medkg.cli.publishing import publish
from medkg.contracts.cloudevents import Headers, read_envelope
from medkg.contracts.errors import ResourceUnavailableError
from medkg.contracts.ids import job_id_of
from medkg.contracts.topics import JOBS
from medkg.local.embedded_broker import embedded_broker
from medkg.runtime.broker import ensure_topics
from medkg.runtime.settings import KafkaSettings

SUBMISSION = b'{"tenant_id":"default","source":"files","selection":{"paths":["/x"]}}'


@pytest.fixture
def broker() -> Iterator[str]:
    with embedded_broker() as bootstrap:
        yield bootstrap


def test_the_event_on_kafka_is_a_cloudevent_whose_ids_make_the_job(broker: str) -> None:
    asyncio.run(ensure_topics(KafkaSettings(bootstrap=broker, is_in_process=True), [JOBS]))
    job_id = publish(broker, SUBMISSION)
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "t", "auto.offset.reset": "earliest"})
    consumer.subscribe([JOBS])
    record, deadline = None, time.monotonic() + 20
    while record is None and time.monotonic() < deadline:
        record = consumer.poll(0.2)
    consumer.close()
    assert record is not None
    assert record.error() is None
    envelope = read_envelope(cast(Headers, record.headers()))
    assert envelope.type == "org.medicalkg.job.submitted"
    assert job_id == job_id_of(envelope.source, envelope.id)
    assert json.loads(record.value() or b"") == json.loads(SUBMISSION)


def test_a_kafka_without_the_topic_of_jobs_is_not_written_to(broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "ANSWER_SECONDS", 0.5)
    with pytest.raises(ResourceUnavailableError, match=JOBS):
        publish(broker, SUBMISSION)


def test_a_broker_that_does_not_answer_is_an_error_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "ANSWER_SECONDS", 0.5)
    began = time.monotonic()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ResourceUnavailableError, match=address):
            publish(address, SUBMISSION)
    assert time.monotonic() - began < 10
