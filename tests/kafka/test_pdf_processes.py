"""PDFs in two phases as they are deployed: every service a process, killed with -9 around park, signal and release.

The publisher and MinerU are servers on loopback. A killed process is started again at once, as a supervisor does it.
"""

import asyncio
import hashlib
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr
from tests.fixtures_fleet import ALL_SERVICES, BrokerUnderTest, FleetUnderTest, ended_job, rows_of
from tests.flow.test_download_flow import article, environment
from tests.flow.test_parity import messages_of
from tests.integration.publisher_kit import Publisher, pdf, serving
from tests.kafka.test_processes import ROOT, database, stop, stores
from tests.servers.mineru.server import FakeMineru, Recorded
from tests.servers.tied import start_tied

from medkg.contracts.messages import REQUEST_DECODER
from medkg.mineru.app import SERVICE as MINERU
from medkg.runtime.broker import publish_job_event
from medkg.runtime.serving import running
from medkg.runtime.settings import RuntimeSettings
from medkg.storage.engine import Engine, migrate

__all__ = ["environment"]  # the fixture of the download flow
pytestmark = [pytest.mark.kafka, pytest.mark.slow]

KILLS = int(os.environ.get("MEDKG_PDF_KILLS", "6"))
ARTICLES = 8 * KILLS
FILES = 7 * KILLS  # some articles have the same PDF
PARSING_SECONDS = 0.5
PROCESSES = (
    "ingest",
    "download",
    "gate_router",
    "gate_router",
    "mineru",
    "chunk",
    "embed",
    "index",
    "extract",
    "kg",
    "ledger",
)


@dataclass(frozen=True)
class Step:
    """A moment of the two phases: who is at work in it, and how many documents have come through it."""

    victim: str
    count: str


_DOWNLOADED = "SELECT count(*) FROM documents WHERE pdf_downloaded"
_PARKED = "SELECT count(*) FROM waits WHERE kind = 'gate'"
_PARSED = "SELECT count(*) FROM parsed_files"
_RELEASED = "SELECT count(*) FROM waits WHERE kind = 'gate' AND state = 'released'"
_RESUMED = "SELECT count(*) FROM documents WHERE post_pdf_started"
STEPS = (
    Step("download", _DOWNLOADED),
    Step("gate_router", _PARKED),
    Step("mineru", _PARSED),
    Step("gate_router", _RELEASED),
    Step("chunk", _RESUMED),
    Step("mineru", _RELEASED),
)


@dataclass
class Processes:
    """The fleet: a process a service, two of the gate-router."""

    environment: dict[str, str]
    logs: Path
    stack: ExitStack
    started: list[tuple[str, Popen[bytes]]] = field(default_factory=list)

    def start(self, name: str) -> None:
        log = self.logs / f"{len(self.started)}-{name}.log"
        process = start_tied([sys.executable, "-m", f"medkg.{name}"], log=log, env=os.environ | self.environment)
        self.stack.callback(stop, process)
        self.started.append((name, process))

    def kill(self, name: str, chance: random.Random) -> None:
        """End one of these with SIGKILL, and start another in its place."""
        alive = [process for each, process in self.started if each == name and process.poll() is None]
        victim = chance.choice(alive)
        victim.kill()
        victim.wait(timeout=10)
        self.start(name)


@contextmanager
def fleet_of_processes(environment: dict[str, str], logs: Path) -> Iterator[Processes]:
    """All are gone when the block is left."""
    with ExitStack() as stack:
        processes = Processes(environment, logs, stack)
        for name in PROCESSES:
            processes.start(name)
        yield processes


@dataclass(frozen=True)
class World:
    """What is outside the fleet, the same for both runs."""

    publisher: Publisher
    dois: Sequence[str]
    recorded: dict[str, Recorded]

    def mineru(self) -> FakeMineru:
        return FakeMineru(self.recorded, time.monotonic, seconds=PARSING_SECONDS)


def world(publisher: Publisher) -> World:
    """Articles with their PDFs, and what MinerU makes of each: enough text for passages and mentions."""
    dois = [f"10.5555/article-{number}" for number in range(ARTICLES)]
    recorded = {}
    for number in range(FILES):
        data = b"%PDF-1.7\n" + f"% file {number}\n".encode() * 200 + b"%%EOF\n"
        text = " ".join(
            f"Patient {number} took {drug} for {week} weeks and had less pain on day {week * 7}."
            for week in range(1, 9)
            for drug in ("metformin", "aspirin", "erenumab")
        )
        blocks = [
            {"type": "text", "text": f"Report {number}", "text_level": 1, "bbox": [100, 50, 900, 80], "page_idx": 0},
            {"type": "text", "text": text, "bbox": [100, 100, 900, 900], "page_idx": 0},
        ]
        sizes = {"pdf_info": [{"page_idx": 0, "page_size": [612, 792]}]}
        files = {"content_list": json.dumps(blocks), "middle_json": json.dumps(sizes)}
        recorded[hashlib.sha256(data).hexdigest()] = Recorded(files)
        publisher.answers[f"/{number}.pdf"] = pdf(data)
    for number, doi in enumerate(dois):
        asked = f"/v2/{doi}?email=library%40clinic.test"
        publisher.answers[asked] = article(publisher, doi, f"/{number % FILES}.pdf")
    return World(publisher, dois, recorded)


def topologies(folder: Path) -> Path:
    """The shipped ones; other people's servers are ours here, and may be asked more often."""
    folder.mkdir()
    for path in (ROOT / "topologies").glob("*.yaml"):
        (folder / path.name).write_text(path.read_text().replace("rate_per_second: 5", "rate_per_second: 20"))
    return folder


async def reached(engine: Engine, step: Step, count: int) -> None:
    """Wait until so many have come through a step."""
    async with asyncio.timeout(60):
        while (await rows_of(engine, step.count))[0].count < count:
            await asyncio.sleep(0.01)


async def kill_on_the_way(processes: Processes, engine: Engine, chance: random.Random) -> None:
    """One kill after the other, spread over the way of the documents."""
    for number in range(KILLS):
        step = STEPS[number % len(STEPS)]
        await reached(engine, step, round(ARTICLES * (number + chance.random()) / (1.5 * KILLS)))
        await asyncio.sleep(chance.uniform(0, 0.1))  # anywhere in what comes next
        processes.kill(step.victim, chance)


def resumed(broker: BrokerUnderTest) -> tuple[Counter[str], int]:
    """How many different requests each document brought to the stage after its gate, and how many messages in all."""
    messages = messages_of(broker.bootstrap, f"{broker.prefix}medkg.chunk.v1")
    ids = {dict(each.headers() or ())["ce_id"]: REQUEST_DECODER.decode(each.value() or b"").doc_id for each in messages}
    return Counter(ids.values()), len(messages)


async def ended(engine: Engine, job_id: str, *, seconds: float) -> tuple[int, int, int]:
    """What a job came to."""
    job = await ended_job(engine, job_id, seconds=seconds)
    return job.completed, job.failed, job.rejected


@pytest.mark.timeout(180 + 12 * KILLS)
async def test_processes_killed_around_park_signal_and_release_change_nothing_in_the_stores(
    kafka: str,
    topic_prefix: str,
    new_database: Callable[[], Any],
    tmp_path: Path,
    environment: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shipped = topologies(tmp_path / "topologies")
    async with serving() as publisher:
        environment(publisher)
        there = world(publisher)
        monkeypatch.setenv("MEDKG_INGEST_UNPAYWALL_REQUESTS_PER_SECOND", "100")
        monkeypatch.setenv("MEDKG_DOWNLOAD_REQUESTS_PER_SECOND", "100")
        monkeypatch.setenv("MEDKG_MINERU_POLL_SECONDS", "0.1")
        submission = msgspec.json.encode(
            {"tenant_id": "default", "source": "unpaywall", "selection": {"ids": there.dois}}
        )

        undisturbed, mineru = BrokerUnderTest(kafka, f"{topic_prefix}a-", is_in_process=False), there.mineru()
        async with new_database() as url, database(url) as engine, mineru.serving() as mineru_url:
            await migrate(engine)
            monkeypatch.setenv("MEDKG_MINERU_URL", mineru_url)
            runtime = RuntimeSettings(
                data_dir=tmp_path / "a", database_url=SecretStr(url), topologies_dir=shipped, drain_seconds=5
            )
            services = (*ALL_SERVICES, MINERU)
            async with running(services, runtime, undisturbed.settings, lambda: None) as (host, at_work):
                fleet = FleetUnderTest(host, at_work, url)
                job_id = await publish_job_event(undisturbed.settings, submission, source="test", event_id="1")
                assert await ended(engine, job_id, seconds=90) == (ARTICLES, 0, 0)
                await fleet.close()
            expected = await stores(engine, tmp_path / "a")
            assert len(mineru.submissions) == FILES

        disturbed, mineru = BrokerUnderTest(kafka, f"{topic_prefix}b-", is_in_process=False), there.mineru()
        async with new_database() as url, database(url) as engine, mineru.serving() as mineru_url:
            await migrate(engine)
            variables = {
                "MEDKG_MINERU_URL": mineru_url,
                "MEDKG_KAFKA_BOOTSTRAP": kafka,
                "MEDKG_KAFKA_TOPIC_PREFIX": disturbed.prefix,
                "MEDKG_KAFKA_PARTITIONS": "4",
                "MEDKG_KAFKA_SESSION_TIMEOUT_MS": "3000",
                "MEDKG_KAFKA_HEARTBEAT_INTERVAL_MS": "300",
                "MEDKG_DATABASE_URL": url,
                "MEDKG_DATA_DIR": str(tmp_path / "b"),
                "MEDKG_TOPOLOGIES_DIR": str(shipped),
                # Commits follow at once what is stored: an offset stored too early is committed before the kill.
                "MEDKG_KAFKA_AUTO_COMMIT_INTERVAL_MS": "50",
                "MEDKG_DRAIN_SECONDS": "5",
            }
            with fleet_of_processes(variables, tmp_path) as processes:
                job_id = await publish_job_event(disturbed.settings, submission, source="test", event_id="1")
                await kill_on_the_way(processes, engine, random.Random(KILLS))
                assert await ended(engine, job_id, seconds=60 + 6 * KILLS) == (ARTICLES, 0, 0)
                documents = await rows_of(engine, "SELECT doc_id, post_pdf_started FROM documents")
            released, messages = await asyncio.to_thread(resumed, disturbed)
            print(
                f"\n{KILLS} kills, {ARTICLES} articles with {FILES} files: all released, {messages - ARTICLES} "
                f"requests published again under the same id, {len(mineru.submissions) - FILES} files parsed again"
            )
            assert released == {document.doc_id: 1 for document in documents if document.post_pdf_started}
            assert len(released) == ARTICLES
            assert await stores(engine, tmp_path / "b") == expected
            # A killed service takes its tasks up again; only what it was just about to note is submitted twice.
            assert len(mineru.submissions) <= FILES + 3 * KILLS
