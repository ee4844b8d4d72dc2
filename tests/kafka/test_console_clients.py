"""The client examples publish job events that the door accepts."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Message
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from tests.servers.kafka.server import KafkaServer

from medkg.contracts import topics
from medkg.contracts.cloudevents import read_envelope
from medkg.contracts.jobs import check_submission
from medkg.contracts.messages import EventType

CLIENTS = Path(__file__).resolve().parents[2] / "examples" / "clients"
HOSTILE_PATH = '/data/a "quoted\\" folder'

pytestmark = pytest.mark.kafka


@pytest.fixture
def jobs_topic(kafka_server: KafkaServer) -> str:
    """Bootstrap address of a broker with an empty topic for job events."""
    client = AdminClient({"bootstrap.servers": kafka_server.bootstrap})
    client.create_topics([NewTopic(topics.JOBS, num_partitions=1, replication_factor=1)])[topics.JOBS].result(30)
    return kafka_server.bootstrap


def test_kcat_submits_a_job_in_binary_mode(jobs_topic: str) -> None:
    _need("kcat", shutil.which("kcat") is not None, "apt-get install kcat")
    _run([str(CLIENTS / "kcat.sh"), jobs_topic, HOSTILE_PATH])
    _assert_binary_job(_read_one(jobs_topic), "examples/clients/kcat")


def test_kafkajs_submits_a_job_in_binary_mode(jobs_topic: str) -> None:
    _need_kafkajs()
    _run(["node", str(CLIENTS / "submit.mjs"), jobs_topic, HOSTILE_PATH])
    _assert_binary_job(_read_one(jobs_topic), "examples/clients/kafkajs")


def test_kafkajs_submits_a_job_in_structured_mode(jobs_topic: str) -> None:
    _need_kafkajs()
    _run(["node", str(CLIENTS / "submit.mjs"), jobs_topic, HOSTILE_PATH, "--structured"])
    record = _read_one(jobs_topic)
    assert dict(record.headers() or []) == {"content-type": b"application/cloudevents+json"}
    event: dict[str, Any] = json.loads(record.value() or b"")
    data = event.pop("data")
    assert event == {
        "specversion": "1.0",
        "id": (record.key() or b"").decode(),
        "source": "examples/clients/kafkajs",
        "type": EventType.JOB_SUBMITTED,
        "datacontenttype": "application/json",
    }
    _assert_accepted(json.dumps(data).encode())


def _assert_binary_job(record: Message, source: str) -> None:
    headers = [(name, value) for name, value in dict(record.headers() or []).items() if isinstance(value, bytes)]
    envelope = read_envelope(headers)
    assert (envelope.type, envelope.source) == (EventType.JOB_SUBMITTED, source)
    assert envelope.id.encode() == record.key()
    assert ("ce_specversion", b"1.0") in headers
    assert ("content-type", b"application/json") in headers
    _assert_accepted(record.value() or b"")


def _assert_accepted(data: bytes) -> None:
    submission, faults = check_submission(data)
    assert faults == ()
    assert submission is not None
    assert (submission.tenant_id, submission.source) == ("default", "files")
    assert submission.selection == {"paths": [HOSTILE_PATH]}


def _need(what: str, is_there: bool, command: str) -> None:
    if not is_there:
        reason = f"no {what}: {command}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def _need_kafkajs() -> None:
    _need("node", shutil.which("node") is not None, "install Node.js 20 or newer")
    _need("kafkajs", (CLIENTS / "node_modules" / "kafkajs").is_dir(), "npm ci --prefix examples/clients")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "submitted" in done.stdout


def _read_one(bootstrap: str) -> Message:
    settings = {"group.id": "reader", "auto.offset.reset": "earliest", "heartbeat.interval.ms": 500}
    consumer = Consumer({"bootstrap.servers": bootstrap, **settings})
    try:
        consumer.subscribe([topics.JOBS])
        (record,) = consumer.consume(1, 30)
        assert record.error() is None
        return record
    finally:
        consumer.close()
