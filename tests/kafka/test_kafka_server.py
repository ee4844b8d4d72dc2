"""The Kafka that the suites stand on: it keeps what it acknowledged, and nobody has to clean up after it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from tests.servers.kafka.jars import kafka_jars
from tests.servers.kafka.server import KafkaFailed, KafkaServer, free_port

ROOT = Path(__file__).resolve().parents[2]
QUICK = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100, "log_level": 0}

pytestmark = pytest.mark.kafka


def test_a_published_record_is_read_back(kafka: str, topic_prefix: str) -> None:
    topic = _topic(kafka, f"{topic_prefix}round-trip")
    _publish(kafka, topic, [b"one", b"two"])
    assert _read(kafka, topic, 2) == [b"one", b"two"]


def test_acknowledged_records_survive_kill_minus_nine_at_the_same_address(kafka_server: KafkaServer) -> None:
    address = kafka_server.bootstrap
    topic = _topic(address, "survivors")
    _publish(address, topic, [b"before"])

    kafka_server.kill()
    assert not kafka_server.is_running()
    assert kafka_server.restart() == address

    _publish(address, topic, [b"after"])
    assert _read(address, topic, 2) == [b"before", b"after"]


def test_it_outlives_the_thread_that_started_it(tmp_path: Path, kafka: str) -> None:
    with KafkaServer(tmp_path, jars=kafka_jars()) as server:
        starter = threading.Thread(target=server.start)
        starter.start()
        starter.join(60)
        topic = _topic(server.bootstrap, "still-here")
        _publish(server.bootstrap, topic, [b"yes"])
        assert server.is_running()


def test_it_dies_with_the_process_that_started_it_however_that_ends(tmp_path: Path, kafka: str) -> None:
    command = [sys.executable, "-m", "tests.servers.kafka", "--port", "0", "--data", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as by_hand:
        assert by_hand.stdout is not None
        assert "Kafka listens at 127.0.0.1:" in by_hand.stdout.readline()
        (broker,) = psutil.Process(by_hand.pid).children()
        by_hand.send_signal(signal.SIGKILL)
    _wait_until(lambda: not broker.is_running(), "the broker is gone")


def test_ctrl_c_ends_the_one_that_was_started_by_hand_in_order(tmp_path: Path, kafka: str) -> None:
    command = [sys.executable, "-m", "tests.servers.kafka", "--port", "0", "--data", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as by_hand:
        assert by_hand.stdout is not None
        by_hand.stdout.readline()
        by_hand.send_signal(signal.SIGINT)
        assert by_hand.wait(30) == 0
    assert "shut down completed" in (tmp_path / "broker.log").read_text()


def test_a_port_that_is_taken_is_named(kafka_server: KafkaServer, tmp_path: Path) -> None:
    taken = int(kafka_server.bootstrap.rpartition(":")[2])
    with pytest.raises(KafkaFailed, match=f"port {taken} is already in use"):
        KafkaServer(tmp_path, jars=kafka_jars()).start(taken)


@pytest.mark.parametrize(("ci", "outcome"), [("", "1 skipped"), ("true", "1 error")])
def test_without_any_kafka_a_test_skips_here_and_fails_in_ci(ci: str, outcome: str, tmp_path: Path) -> None:
    test = f"{Path(__file__).relative_to(ROOT)}::{test_a_published_record_is_read_back.__name__}"
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "basetemp"), test],
        cwd=ROOT,
        env={"PATH": "/nonexistent", "CI": ci, "DOCKER_HOST": f"tcp://127.0.0.1:{free_port()}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome in answer.stdout
    assert "install a Java 17" in answer.stdout
    assert "MEDKG_TEST_KAFKA=HOST:PORT" in answer.stdout


def test_a_given_kafka_that_does_not_answer_fails_even_outside_ci(tmp_path: Path) -> None:
    test = f"{Path(__file__).relative_to(ROOT)}::{test_a_published_record_is_read_back.__name__}"
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "basetemp"), test],
        cwd=ROOT,
        env=os.environ | {"MEDKG_TEST_KAFKA": f"127.0.0.1:{free_port()}", "CI": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 error" in answer.stdout
    assert "no Kafka answers at MEDKG_TEST_KAFKA=" in answer.stdout


def _topic(bootstrap: str, name: str) -> str:
    client = AdminClient({"bootstrap.servers": bootstrap, **QUICK})
    client.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)])[name].result(30)
    return name


def _publish(bootstrap: str, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", **QUICK})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(30) == 0


def _read(bootstrap: str, topic: str, count: int) -> list[bytes | None]:
    settings = {"group.id": f"{topic}-reader", "auto.offset.reset": "earliest", "heartbeat.interval.ms": 500}
    consumer = Consumer({"bootstrap.servers": bootstrap, **settings, **QUICK})
    try:
        consumer.subscribe([topic])
        return [message.value() for message in consumer.consume(count, 30)]
    finally:
        consumer.close()


def _wait_until(condition: Callable[[], bool], what: str, *, timeout_seconds: float = 10) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_seconds} s until {what}"
        time.sleep(0.05)
