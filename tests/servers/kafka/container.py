"""One Apache Kafka broker in Docker, through testcontainers."""

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from docker.errors import DockerException  # type: ignore[import-untyped]  # the Docker SDK ships no types
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from .configuration import COMMON
from .readiness import has_become_ready
from .server import KafkaFailed, free_port

IMAGE = "apache/kafka:4.4.0"
_START_TIMEOUT_SECONDS = 90


def docker_answers() -> bool:
    """Is there a Docker engine that this user may use?"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # without an engine the client leaves its socket open
        try:
            return bool(DockerClient(timeout=5).client.ping())
        except DockerException:
            return False
        finally:
            gc.collect()


@contextmanager
def kafka_container() -> Iterator[str]:
    """Start a broker, yield its bootstrap address, remove it at the end.

    Raises:
        KafkaFailed: the container did not become a broker that answers.
    """
    # A broker tells its clients where to find it, so the port on the host must be known before it starts.
    port = free_port()
    container = DockerContainer(IMAGE).with_bind_ports(9092, port)
    bootstrap = f"{container.get_docker_client().host()}:{port}"
    settings = {
        **COMMON,
        "controller.quorum.voters": "1@127.0.0.1:9093",
        "listeners": "PLAINTEXT://0.0.0.0:9092,CONTROLLER://127.0.0.1:9093",
        "advertised.listeners": f"PLAINTEXT://{bootstrap}",
    }
    # The image reads server.properties from its environment: log.dirs as KAFKA_LOG_DIRS.
    container.env = {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in settings.items()}
    with container:
        if not has_become_ready(bootstrap, timeout_seconds=_START_TIMEOUT_SECONDS, is_running=lambda: True):
            log = b"".join(container.get_logs()).decode(errors="replace")
            raise KafkaFailed(f"{IMAGE} did not answer at {bootstrap}; its log ends:\n{log[-4000:]}")
        yield bootstrap
