"""A real Apache Kafka for the suites: the one MEDKG_TEST_KAFKA names, else Docker's, else one from its jars.

Where none of these is to be had, a test skips and says what would help; in CI it fails.
"""

import os
import secrets
from collections.abc import Iterator
from typing import NoReturn

import pytest
from tests.servers.kafka.container import docker_answers, kafka_container
from tests.servers.kafka.jars import KafkaUnavailable, kafka_jars
from tests.servers.kafka.readiness import has_become_ready
from tests.servers.kafka.server import KafkaServer


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap address of a broker that all tests share: use topics and groups that begin with ``topic_prefix``."""
    given = os.environ.get("MEDKG_TEST_KAFKA", "")
    if given:
        if not has_become_ready(given, timeout_seconds=5, is_running=lambda: True):
            pytest.fail(f"no Kafka answers at MEDKG_TEST_KAFKA={given}")
        yield given
    elif docker_answers():
        with kafka_container() as bootstrap:
            yield bootstrap
    else:
        try:
            jars = kafka_jars()
        except KafkaUnavailable as error:
            do_without(f"no Kafka: {error}; or set MEDKG_TEST_KAFKA=HOST:PORT, or start Docker")
        with KafkaServer(tmp_path_factory.mktemp("kafka"), jars=jars) as server:
            yield server.start()


@pytest.fixture
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A started broker of the test's own, to be killed and restarted. From its jars: one that others use cannot be."""
    try:
        jars = kafka_jars()
    except KafkaUnavailable as error:
        do_without(f"no Kafka of its own to kill: {error}")
    with KafkaServer(tmp_path_factory.mktemp("kafka"), jars=jars) as server:
        server.start()
        yield server


@pytest.fixture
def topic_prefix() -> str:
    """What the names of this test's topics and groups begin with, such as ``t1a2b3c-``."""
    return f"t{secrets.token_hex(3)}-"


def do_without(reason: str) -> NoReturn:
    """Skip, and say why; in CI fail."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
