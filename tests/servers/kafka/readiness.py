"""When a Kafka can be used: its controller is among the brokers that it lists."""

import time
from collections.abc import Callable

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient


def has_become_ready(bootstrap: str, *, timeout_seconds: float, is_running: Callable[[], bool]) -> bool:
    """Wait until the broker at ``bootstrap`` answers; False if it ended, or did not within the time."""
    deadline = time.monotonic() + timeout_seconds
    client = AdminClient(
        {
            "bootstrap.servers": bootstrap,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 100,
            "log_level": 0,  # a refused connection is what we expect at first
        }
    )
    while time.monotonic() < deadline and is_running():
        try:
            cluster = client.list_topics(timeout=0.5)
        except KafkaException:
            continue
        if cluster.controller_id in cluster.brokers:
            return True
    return False
