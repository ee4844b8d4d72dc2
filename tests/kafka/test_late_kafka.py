"""Services as processes, started before Kafka and PostgreSQL are: they wait, and go on when both have come."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest
from tests.servers.kafka.jars import KafkaUnavailable, kafka_jars
from tests.servers.kafka.server import KafkaServer, free_port
from tests.servers.tied import start_tied

from medkg.local.embedded_postgres import embedded_postgres

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(180)]


@contextmanager
def started(name: str, port: int, folder: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = start_tied(
        [sys.executable, "-m", f"medkg.{name}"],
        log=folder / f"{name}.log",
        env=os.environ | environment | {"MEDKG_HTTP_PORT": str(port)},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=10)


def ready(port: int) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5) as answer:
            return answer.status, ""
    except HTTPError as error:
        with error:
            return error.code, json.loads(error.read())["faults"]["start"]
    except URLError:
        return 0, ""


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_processes_wait_for_a_kafka_and_a_postgresql_that_come_later(tmp_path: Path) -> None:
    try:
        jars = kafka_jars()
    except KafkaUnavailable as error:
        pytest.skip(f"no Kafka of its own to start: {error}") if not os.environ.get("CI") else pytest.fail(str(error))
    ports = {name: free_port() for name in ("ledger", "chunk", "validate")}
    with ExitStack() as stack:
        database = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="medkg-lk-")))
        kafka_port = free_port()
        environment = {
            "MEDKG_KAFKA_BOOTSTRAP": f"127.0.0.1:{kafka_port}",
            "MEDKG_DATABASE_URL": f"postgresql://postgres:@/postgres?host={database}",
            "MEDKG_DATA_DIR": str(tmp_path / "data"),
        }
        all_of = {name: stack.enter_context(started(name, port, tmp_path, environment)) for name, port in ports.items()}
        for port in ports.values():
            await until(lambda port=port: "Connection refused" in ready(port)[1])  # type: ignore[misc]  # bound now

        all_of["validate"].send_signal(signal.SIGTERM)  # nothing is there, and a stop is obeyed all the same
        began = time.monotonic()
        assert await asyncio.to_thread(all_of["validate"].wait, 10) == 0
        assert time.monotonic() - began < 5

        kafka = stack.enter_context(KafkaServer(tmp_path / "kafka", jars=jars))
        await asyncio.to_thread(kafka.start, kafka_port)
        await until(lambda: ready(ports["chunk"])[0] == 200)
        await until(lambda: "PostgreSQL at" in ready(ports["ledger"])[1])
        async with embedded_postgres(database):
            await until(lambda: ready(ports["ledger"])[0] == 200)
            for name in ("chunk", "ledger"):
                all_of[name].send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(all_of[name].wait, 30) == 0

    said = [json.loads(line) for line in (tmp_path / "ledger.log").read_text().splitlines()]
    waits = [line["message"] for line in said if "cannot start yet" in line["message"]]
    assert any("Kafka at" in message for message in waits)
    assert any("PostgreSQL at" in message for message in waits)
    assert len(said) < 40, "the log is for people: one line an attempt"


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"MEDKG_KAFKA_BOOTSTRAP": "http://kafka:9092"}, "is no address"),
        ({"MEDKG_BLOBS_URL": "ftp://there"}, "is not a location"),
        ({"MEDKG_DATABASE_URL": "mysql://there/db"}, "expected postgresql://"),
        ({"MEDKG_HTTP_HOST": "192.0.2.1"}, "MEDKG_HTTP_HOST"),
    ],
)
def test_a_wrong_setting_ends_a_process_with_two_at_once(
    environment: dict[str, str], says: str, kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    given = {
        "MEDKG_KAFKA_BOOTSTRAP": kafka,
        "MEDKG_KAFKA_TOPIC_PREFIX": topic_prefix,
        "MEDKG_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "MEDKG_DATA_DIR": str(tmp_path / "data"),
    }
    with started("ledger", 0, tmp_path, given | environment) as process:
        assert process.wait(timeout=60) == 2
    last = json.loads((tmp_path / "ledger.log").read_text().splitlines()[-1])
    assert last["level"] == "critical"
    assert says in last["message"]
