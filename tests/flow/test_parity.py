"""The fleet makes of a record, byte for byte, what its stages make of it in a plain loop."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition
from tests.fixtures_fleet import FleetUnderTest
from tests.fixtures_postgres import NewDatabase

from medkg.benchmarks.plain import PlainResult, plain_loop
from medkg.contracts import topics
from medkg.contracts.ids import content_digest
from medkg.contracts.implementation import Host
from medkg.contracts.messages import EVENT_DECODER, Artefact, EventType
from medkg.contracts.stages import encode_artefact
from medkg.haystack.retrieval import HybridSearch
from medkg.runtime.blobs import open_blobs
from medkg.runtime.topologies import TopologyLoader
from medkg.storage.engine import migrate, open_engine
from medkg.storage.graph_reader import GraphReader

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = [str(ROOT / "samples" / "trials"), str(ROOT / "samples" / "articles")]
# Receipts say what a run found in a store, and so differ between two runs.
COMPARED = ("document", "quality", "chunks", "embeddings", "extraction")
ENDS = (EventType.STAGE_COMPLETED.encode(), EventType.STAGE_FAILED.encode())


@dataclass(slots=True)
class FleetResult:
    """What the lifecycle events say of the documents: artefacts by kind, or the code of the error that ended one."""

    made: dict[str, dict[str, Artefact]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


async def test_samples_become_the_same_through_the_fleet_and_in_a_plain_loop(
    start_fleet: Any, new_database: NewDatabase, tmp_path: Path
) -> None:
    assert await compared(start_fleet, new_database, tmp_path, SAMPLES) >= 20


@pytest.mark.corpus
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("broker", ["in-process"], indirect=True)
async def test_real_records_become_the_same_through_the_fleet_and_in_a_plain_loop(
    start_fleet: Any, new_database: NewDatabase, tmp_path: Path, corpus: Path
) -> None:
    paths = [str(corpus / "ctg"), str(corpus / "jats")]
    assert await compared(start_fleet, new_database, tmp_path, paths) >= 50


async def compared(start_fleet: Any, new_database: NewDatabase, tmp_path: Path, paths: Sequence[str]) -> int:
    """How many records were sent both ways; every one of them came to the same."""
    async with start_fleet() as fleet:
        await fleet.ended(await fleet.submit({"paths": list(paths)}, pipeline="auto"), seconds=200)
        through_fleet = read_back(fleet)
        stores = await stores_of(fleet.engine, tmp_path / "data")
        async with new_database() as url:
            engine = open_engine(url)
            try:
                await migrate(engine)
                host = Host(tmp_path / "plain", open_blobs("memory:"), url)
                async with plain_loop(TopologyLoader(ROOT / "topologies").get("auto"), host) as loop:
                    plain = {result.doc_id: result async for result in loop.run("default", paths)}
                assert await stores_of(engine, tmp_path / "plain") == stores
            finally:
                await engine.dispose()
        refused = {doc_id: result.refusal for doc_id, result in plain.items() if result.refusal}
        assert through_fleet.refused == refused
        for doc_id, result in plain.items():
            await assert_same(result, through_fleet.made.get(doc_id, {}), fleet)
    return len(plain)


async def assert_same(result: PlainResult, made: dict[str, Artefact], fleet: FleetUnderTest) -> None:
    """Every artefact has the same bytes, in the events and where it is stored."""
    expected = {kind: encode_artefact(result.made[kind]) for kind in COMPARED if kind in result.made}
    assert made.keys() & set(COMPARED) == expected.keys()
    assert result.refusal or expected.keys() == set(COMPARED)
    for kind, data in expected.items():
        artefact = made[kind]
        assert (artefact.sha256, artefact.size_bytes) == (content_digest(data), len(data)), f"{result.doc_id}: {kind}"
        if artefact.is_stored:
            assert await fleet.host.blobs.get(artefact.key) == data


async def stores_of(engine: Any, data_dir: Path) -> tuple[list[Any], list[Any]]:
    """All passages and the whole graph, but for the names of the runs that wrote a document's part of them."""
    search = HybridSearch(data_dir)
    try:
        passages = [replace(passage, generation="") for passage in search.export_passages("default")]
        facts = await GraphReader(engine).export("default")
        return passages, [fact[:2] + fact[3:] if fact[0] == "graph_documents" else fact for fact in facts]
    finally:
        await search.aclose()


def read_back(fleet: FleetUnderTest) -> FleetResult:
    """Everything that the lifecycle topic says of documents."""
    found = FleetResult()
    kafka = fleet.host.kafka
    for message in messages_of(kafka.bootstrap, kafka.topic_prefix + topics.LIFECYCLE):
        if dict(message.headers() or ()).get("ce_type") not in ENDS:
            continue
        event = EVENT_DECODER.decode(message.value() or b"")
        if event.failure is not None:
            found.refused[event.doc_id] = event.failure.code
        found.made.setdefault(event.doc_id, {}).update({artefact.kind: artefact for artefact in event.artefacts})
    return found


def messages_of(bootstrap: str, topic: str, *, seconds: float = 30) -> list[Message]:
    """All messages of a topic that has come to rest."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "parity",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=seconds).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        messages: list[Message] = []
        at_end: set[int | None] = set()
        deadline = time.monotonic() + seconds
        while len(at_end) < len(partitions):
            assert time.monotonic() < deadline, f"{topic} could not be read to its end within {seconds} s"
            message = consumer.poll(1)
            if message is None:
                continue
            if (error := message.error()) is None:
                messages.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                at_end.add(message.partition())
        return messages
    finally:
        consumer.close()
