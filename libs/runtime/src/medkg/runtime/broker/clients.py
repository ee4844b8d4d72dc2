"""What every client of the cluster is configured with."""

import logging
from typing import Any

from medkg.runtime.settings import KafkaSettings

LIBRDKAFKA = logging.getLogger("librdkafka")

# A dead letter holds a whole message of the broker's default limit (1 MiB), and its reason.
MAX_MESSAGE_BYTES = 4_194_304


def client_settings(settings: KafkaSettings) -> dict[str, Any]:
    """The librdkafka settings that consumers, producers and admin clients share."""
    config: dict[str, Any] = {
        "bootstrap.servers": settings.bootstrap,
        "security.protocol": settings.security_protocol,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        "socket.keepalive.enable": True,
        "log_level": 3,  # errors: librdkafka is chatty about every reconnect
    }
    if settings.sasl_mechanism:
        config |= {
            "sasl.mechanism": settings.sasl_mechanism,
            "sasl.username": settings.sasl_username,
            "sasl.password": settings.sasl_password.get_secret_value(),
        }
    return config
