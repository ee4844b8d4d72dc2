"""The fleet as it is deployed: every service a process of its own, on a real Kafka and PostgreSQL."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr
from tests.fixtures_fleet import ALL_SERVICES, BrokerUnderTest, FleetUnderTest, ended_job, rows_of
from tests.servers.tied import start_tied

from medkg.haystack.retrieval import HybridSearch
from medkg.runtime.broker import publish_job_event
from medkg.runtime.serving import running
from medkg.runtime.settings import RuntimeSettings
from medkg.storage.engine import Engine, migrate, open_engine
from medkg.storage.graph_reader import GraphReader

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = (
    "ingest",
    "parse",
    "validate",
    "chunk",
    "chunk",
    "embed",
    "embed",
    "index",
    "extract",
    "kg",
    "gate_router",
    "ledger",
)
DOCUMENTS = 240

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A folder of notes, each with enough text for several passages."""
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(DOCUMENTS):
        sentences = [
            f"Patient {number} received {drug} for {week} weeks and reported less pain on day {week * 7}."
            for week in range(1, 12)
            for drug in ("metformin", "aspirin", "erenumab")
        ]
        (folder / f"{number:03}.txt").write_text(f"Visit note {number}\n\n" + " ".join(sentences))
    return folder


@contextmanager
def fleet_of_processes(environment: dict[str, str], logs: Path) -> Iterator[list[tuple[str, subprocess.Popen[bytes]]]]:
    """One process a service, two of chunk and embed; all are gone when the block is left."""
    with ExitStack() as stack:
        started = []
        for index, name in enumerate(PROCESSES):
            process = start_tied(
                [sys.executable, "-m", f"medkg.{name}"], log=logs / f"{index}-{name}.log", env=os.environ | environment
            )
            stack.callback(stop, process)
            started.append((name, process))
        yield started


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL for one that does not listen."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=5)


async def stores(engine: Engine, data_dir: Path) -> tuple[list[Any], list[Any]]:
    """All passages and the whole graph, sorted, without what differs between two runs."""
    search = HybridSearch(data_dir)
    try:
        assert search.verify("default") == []
        return search.export_passages("default"), await GraphReader(engine).export("default")
    finally:
        await search.aclose()


@asynccontextmanager
async def database(url: str) -> AsyncIterator[Engine]:
    engine = open_engine(url)
    try:
        yield engine
    finally:
        await engine.dispose()


async def begun(engine: Engine, job_id: str, stage: str, count: int) -> None:
    """Wait until a stage has begun on so many documents of a job."""
    async with asyncio.timeout(90):
        while True:
            rows = await rows_of(
                engine, "SELECT started FROM job_stages WHERE job_id = :job AND stage = :stage", job=job_id, stage=stage
            )
            if rows and rows[0].started >= count:
                return
            await asyncio.sleep(0.02)


async def test_a_replica_killed_midway_changes_nothing_in_the_stores(
    kafka: str,
    topic_prefix: str,
    new_database: Callable[[], Any],
    tmp_path: Path,
    notes: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submission = msgspec.json.encode(
        {"tenant_id": "default", "source": "files", "selection": {"paths": [str(notes), str(ROOT / "samples")]}}
    )
    monkeypatch.setenv("MEDKG_INGEST_FILES_ROOTS", "/")

    undisturbed = BrokerUnderTest(kafka, f"{topic_prefix}a-", is_in_process=False)
    async with new_database() as url, database(url) as engine:
        await migrate(engine)
        settings = RuntimeSettings(
            data_dir=tmp_path / "a", database_url=SecretStr(url), topologies_dir=ROOT / "topologies", drain_seconds=5
        )
        async with running(ALL_SERVICES, settings, undisturbed.settings, lambda: None) as (host, at_work):
            fleet = FleetUnderTest(host, at_work, url)
            job_id = await publish_job_event(undisturbed.settings, submission, source="test", event_id="1")
            job = await fleet.ended(job_id, seconds=90)
            await fleet.close()
        expected_counts = (job.documents, job.completed, job.rejected)
        expected = await stores(engine, tmp_path / "a")

    disturbed = BrokerUnderTest(kafka, f"{topic_prefix}b-", is_in_process=False)
    async with new_database() as url, database(url) as engine:
        await migrate(engine)
        environment = {
            "MEDKG_KAFKA_BOOTSTRAP": kafka,
            "MEDKG_KAFKA_TOPIC_PREFIX": disturbed.prefix,
            "MEDKG_KAFKA_PARTITIONS": "4",
            "MEDKG_KAFKA_SESSION_TIMEOUT_MS": "3000",
            "MEDKG_KAFKA_HEARTBEAT_INTERVAL_MS": "300",
            "MEDKG_DATABASE_URL": url,
            "MEDKG_DATA_DIR": str(tmp_path / "b"),
            "MEDKG_TOPOLOGIES_DIR": str(ROOT / "topologies"),
            "MEDKG_CONCURRENCY": "1",
            # Commits follow at once what is stored: an offset stored too early is committed before the kill, and lost.
            "MEDKG_KAFKA_AUTO_COMMIT_INTERVAL_MS": "50",
            "MEDKG_DRAIN_SECONDS": "5",
        }
        with fleet_of_processes(environment, tmp_path) as processes:
            job_id = await publish_job_event(disturbed.settings, submission, source="test", event_id="1")
            for victim in ("chunk", "embed"):
                await begun(engine, job_id, victim, 1)
                next(process for name, process in processes if name == victim).kill()
            job = await ended_job(engine, job_id, seconds=60)

        assert (job.documents, job.completed, job.rejected) == expected_counts
        assert job.failed == 0
        assert await stores(engine, tmp_path / "b") == expected
