"""Whether Kafka answers, and lets us in: what is asked before anything else is opened."""

import asyncio
import re
import threading
import time

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from medkg.contracts.errors import ConfigurationError, ResourceUnavailableError
from medkg.runtime.broker.clients import LIBRDKAFKA, client_settings
from medkg.runtime.settings import KafkaSettings

_LOOK_SECONDS = 0.5  # so long a stop of the process waits for the thread at most
_ADDRESS = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.%]{2,64}\])(?::(?P<port>[0-9]{1,5}))?")

# What waiting does not mend: credentials, and a certificate or protocol that the two sides do not agree on.
_REFUSALS = {KafkaError._AUTHENTICATION, KafkaError._SSL}
_REASONS = (KafkaError._RESOLVE, KafkaError._TRANSPORT)  # that say more than "no answer"


async def reach(settings: KafkaSettings, *, timeout_seconds: float = 5) -> None:
    """Ask Kafka for its brokers, for so long at most. A cancelled question ends within half a second.

    Raises:
        ResourceUnavailableError: nobody answers at the address.
        ConfigurationError: somebody does, and refuses us; or a setting cannot work.
    """
    for address in settings.bootstrap.split(","):
        found = _ADDRESS.fullmatch(address.strip())
        if found is None or int(found["port"] or 9092) > 65_535:
            raise ConfigurationError(
                f"reaching Kafka: {address.strip()[:80]!r} is no address; write HOST:PORT[,HOST:PORT…] "
                "(MEDKG_KAFKA_BOOTSTRAP)"
            )
    given_up = threading.Event()
    try:
        await asyncio.to_thread(_reach, settings, timeout_seconds, given_up)
    finally:
        given_up.set()


def _reach(settings: KafkaSettings, timeout_seconds: float, given_up: threading.Event) -> None:
    heard: dict[int, str] = {}  # the last word of each kind

    def hear(error: KafkaError) -> None:
        heard[error.code()] = error.str()

    config = client_settings(settings) | {"error_cb": hear, "log_level": 0}  # what it would log is heard, and said once
    try:
        admin = AdminClient(config, logger=LIBRDKAFKA)
    except (KafkaException, ValueError) as error:
        raise ConfigurationError(f"reaching Kafka: {error}; mend the MEDKG_KAFKA_… settings") from error
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            admin.list_topics(timeout=_LOOK_SECONDS)
            return
        except KafkaException as error:
            admin.poll(0)  # errors are told here, and nowhere else
            for code in _REFUSALS & heard.keys():
                raise ConfigurationError(
                    f"reaching Kafka at {settings.bootstrap}: it refuses us: {heard[code]}; mend "
                    "MEDKG_KAFKA_SECURITY_PROTOCOL or MEDKG_KAFKA_SASL_…"
                ) from error
            if given_up.is_set() or time.monotonic() > deadline:
                reasons = [heard[code] for code in _REASONS if code in heard]
                reason = reasons[0] if reasons else error.args[0].str()
                raise ResourceUnavailableError(
                    f"reaching Kafka at {settings.bootstrap}: {reason}; is it up? (MEDKG_KAFKA_BOOTSTRAP)"
                ) from error
