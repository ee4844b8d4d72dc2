"""What every client of the cluster is configured with."""

import logging
from typing import Any

from medkg.runtime.settings import KafkaSettings

LIBRDKAFKA = logging.getLogger("librdkafka")

# A dead letter holds a whole message of the broker's default limit (1 MiB), and its reason.
MAX_MESSAGE_BYTES = 4_194_304

_ON_THE_WAY_MS = 1_000  # so that a broker which gives a request up can still say so


def client_settings(settings: KafkaSettings) -> dict[str, Any]:
    """The librdkafka settings that consumers, producers and admin clients share."""
    config: dict[str, Any] = {
        "bootstrap.servers": settings.bootstrap,
        "security.protocol": settings.security_protocol,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        "socket.keepalive.enable": True,
        # a connection may be lost without a word: the time for an answer is all that tells
        "socket.timeout.ms": settings.request_timeout_ms + _ON_THE_WAY_MS,
        "log_level": 3,  # errors: librdkafka is chatty about every reconnect
    }
    if settings.sasl_mechanism:
        config |= {
            "sasl.mechanism": settings.sasl_mechanism,
            "sasl.username": settings.sasl_username,
            "sasl.password": settings.sasl_password.get_secret_value(),
        }
    return config
