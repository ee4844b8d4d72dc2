"""Artefacts that nobody refers to are found; whatever a message, a wait or a parsed file names is kept."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import text
from tests.integration.test_reconcile import Fleet

from medkg.contracts import topics
from medkg.contracts.cloudevents import Message
from medkg.contracts.messages import Artefact
from medkg.ledger.orphans import orphans
from medkg.local.embedded_broker import embedded_broker
from medkg.runtime.blobs import BlobStore, open_blobs
from medkg.runtime.outcome import request_message
from medkg.runtime.settings import KafkaSettings
from medkg.storage.engine import Engine, migrate, open_engine
from medkg.storage.waits import WaitKind


@pytest.fixture
def kafka_settings() -> Iterator[KafkaSettings]:
    with embedded_broker() as bootstrap:
        yield KafkaSettings(bootstrap=bootstrap, is_in_process=True, fetch_wait_ms=20)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[Engine]:
    opened = open_engine(database_url)
    await migrate(opened)
    yield opened
    await opened.dispose()


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return open_blobs((tmp_path / "blobs").as_uri())


async def test_only_what_nobody_refers_to_is_found_and_removed(
    engine: Engine, kafka_settings: KafkaSettings, blobs: BlobStore
) -> None:
    names = ("asked", "said", "dead", "parked", "parsed", "lonely")
    for name in names:
        await blobs.put(f"artefacts/t/aa/{name}", b"12345")
    await blobs.put("files/t/aa/other", b"not looked at")
    fleet = Fleet(engine, kafka_settings)
    made = {"document": Artefact("document", "0" * 64, 5, "artefacts/t/aa/asked")}
    said = msgspec.json.encode({"artefacts": [{"kind": "x", "key": "artefacts/t/aa/said"}]})
    assert not await fleet.publisher.publish(
        [
            request_message(
                "medkg.chunk.v1", msgspec.structs.replace(fleet.request("chunk"), artefacts=made), "medkg/x"
            ),
            Message(topics.LIFECYCLE, "k", said, []),
            Message(topics.DEAD_LETTER, "k", said.replace(b"said", b"dead"), []),
        ]
    )
    await fleet.park(WaitKind.GATE, "pdf_gate")
    async with engine.begin() as connection:
        parked = """UPDATE waits SET request = '{"key":"artefacts/t/aa/parked"}'"""
        await connection.execute(text(parked.replace(":", r"\:")))
        await connection.execute(
            text("""
            INSERT INTO parsed_files (tenant_id, sha256, parser, version, document_key)
            VALUES ('t', 's', 'p', '1', 'artefacts/t/aa/parsed')""")
        )
    assert (await orphans(engine, kafka_settings, blobs, grace_seconds=60, apply=True)).looked_at == 0
    found = await orphans(engine, kafka_settings, blobs, grace_seconds=-1, apply=False)
    assert (found.looked_at, found.blobs, found.size_bytes) == (len(names), 1, 5)
    assert found.examples == ("artefacts/t/aa/lonely",)
    assert await blobs.get("artefacts/t/aa/lonely") is not None
    assert (await orphans(engine, kafka_settings, blobs, grace_seconds=-1, apply=True)).blobs == 1
    left = {name for name in names if await blobs.get(f"artefacts/t/aa/{name}") is not None}
    assert left == set(names) - {"lonely"}
    await fleet.publisher.close()
