"""Whether Kafka answers: what is waited for, and what is not."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from medkg.contracts.errors import ConfigurationError, ResourceUnavailableError
from medkg.local.embedded_broker import embedded_broker
from medkg.runtime.broker import reach
from medkg.runtime.settings import KafkaSettings


@pytest.fixture(scope="module")
def bootstrap() -> Iterator[str]:
    with embedded_broker() as address:
        yield address


async def test_a_kafka_that_answers_is_reached(bootstrap: str) -> None:
    await reach(KafkaSettings(bootstrap=bootstrap))


@pytest.mark.parametrize(
    ("address", "reason"), [("127.0.0.1:1", "Connection refused"), ("nobody.invalid:9092", "Failed to resolve")]
)
async def test_one_that_does_not_is_a_resource_that_is_missing_and_the_reason_is_said(
    address: str, reason: str
) -> None:
    with pytest.raises(ResourceUnavailableError, match=rf"Kafka at {address}: .*{reason}.*MEDKG_KAFKA_BOOTSTRAP"):
        await reach(KafkaSettings(bootstrap=address), timeout_seconds=0.6)


@pytest.mark.parametrize(
    "address",
    ["", "http://kafka:9092", "kafka:port", "kafka:99999", "ka fka:9092", "kafka:9092;kafka:9093", "a:1,,b:2"],
)
async def test_what_is_no_address_is_refused_at_once(address: str) -> None:
    with pytest.raises(ConfigurationError, match="is no address"):
        await reach(KafkaSettings(bootstrap=address))


@pytest.mark.parametrize("address", ["kafka", "kafka:9092", "10.0.0.1:9092, k_2.example.org:9093", "[::1]:9092"])
async def test_what_is_one_is_tried(address: str) -> None:
    with pytest.raises(ResourceUnavailableError):
        await reach(KafkaSettings(bootstrap=address), timeout_seconds=0)


@pytest.mark.parametrize(
    "settings", [{"sasl_mechanism": "NONE-SUCH"}, {"sasl_mechanism": "PLAIN"}], ids=["unknown", "refused"]
)
async def test_credentials_that_are_refused_are_not_waited_for(bootstrap: str, settings: dict[str, Any]) -> None:
    settings |= {"security_protocol": "sasl_plaintext", "sasl_username": "us", "sasl_password": SecretStr("secret")}
    began = time.monotonic()
    with pytest.raises(ConfigurationError, match="MEDKG_KAFKA_") as refused:
        await reach(KafkaSettings(bootstrap=bootstrap, **settings), timeout_seconds=30)
    assert time.monotonic() - began < 15
    assert "secret" not in refused.value.message


async def test_a_question_that_is_cancelled_leaves_no_thread_behind_for_long() -> None:
    question = asyncio.create_task(reach(KafkaSettings(bootstrap="127.0.0.1:1"), timeout_seconds=60))
    await asyncio.sleep(0.05)
    question.cancel()
    with pytest.raises(asyncio.CancelledError):
        await question
    async with asyncio.timeout(10):
        await asyncio.get_running_loop().shutdown_default_executor()  # what the end of a process waits for
