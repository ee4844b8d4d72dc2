"""The MinerU service as it runs: from a message on its queue, by way of MinerU, to the ledger."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr
from tests.fixtures_fleet import BrokerUnderTest
from tests.servers.mineru.recordings import PAPERS, recorded_papers
from tests.servers.mineru.server import FakeMineru

from medkg.contracts import topics
from medkg.contracts.cloudevents import Envelope, Message, message
from medkg.contracts.document import StoredFile
from medkg.contracts.errors import ConfigurationError
from medkg.contracts.messages import EventType, encode
from medkg.contracts.pdf import PdfRequested
from medkg.local.embedded_broker import embedded_broker
from medkg.mineru.app import SERVICE, form_of
from medkg.mineru.settings import MineruSettings
from medkg.runtime.serving import liveness, running
from medkg.runtime.settings import KafkaSettings, RuntimeSettings
from medkg.storage.engine import migrate, open_engine
from medkg.storage.parsed_files import Wanted, find_parsed, want

pytestmark = pytest.mark.postgres


def _settings(tmp_path: Path, database_url: str) -> RuntimeSettings:
    return RuntimeSettings(data_dir=tmp_path, database_url=SecretStr(database_url), http_port=-1, drain_seconds=5)


@pytest.mark.corpus
async def test_a_request_on_the_queue_makes_everybody_ready_and_long_work_is_no_fault(
    broker: BrokerUnderTest, tmp_path: Path, database_url: str, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (corpus / "mineru" / PAPERS[0] / "paper.pdf").read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    server = FakeMineru(recorded_papers(corpus), time.monotonic, seconds=2.5)
    engine = open_engine(database_url)
    await migrate(engine)
    await want(engine, [Wanted("acme", sha256, "job-1", "doc-1")])
    async with server.serving() as url:
        monkeypatch.setenv("MEDKG_MINERU_URL", url)
        monkeypatch.setenv("MEDKG_MINERU_POLL_SECONDS", "0.1")
        async with running([SERVICE], _settings(tmp_path, database_url), broker.settings, lambda: None) as (
            host,
            at_work,
        ):
            await host.blobs.put("files/acme/one", data)
            await host.publisher.publish([_request(StoredFile("files/acme/one", sha256, "application/pdf", len(data)))])
            await _until(lambda: bool(server.submissions))
            for _ in range(10):
                await asyncio.sleep(0.1)
                assert liveness(at_work, stall_seconds=0.05) == {}
                assert at_work[0].subscription.seconds_since_poll < 1.5
            async with asyncio.timeout(20):
                while await find_parsed(engine, "acme", sha256) is None:
                    await asyncio.sleep(0.05)
            parsed = await find_parsed(engine, "acme", sha256)
            assert parsed is not None
            assert await host.blobs.get(parsed.document_key) is not None
    await engine.dispose()
    assert len(server.submissions) == 1


async def test_without_a_server_the_service_says_so_at_start(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MEDKG_MINERU_URL", raising=False)
    with embedded_broker() as bootstrap:
        kafka = KafkaSettings(bootstrap=bootstrap, is_in_process=True)
        with pytest.raises(ConfigurationError, match="MEDKG_MINERU_URL"):
            async with running([SERVICE], _settings(tmp_path, database_url), kafka, lambda: None):
                pass


def test_the_form_asks_for_what_is_mapped_and_leaves_the_backend_to_the_server() -> None:
    fields = form_of(MineruSettings(language="en"))
    assert fields["return_content_list"] == fields["return_middle_json"] == "true"
    assert fields["lang_list"] == "en"
    assert "backend" not in fields
    assert form_of(MineruSettings(backend="pipeline"))["backend"] == "pipeline"


def _request(file: StoredFile) -> Message:
    about = PdfRequested(tenant_id="acme", file=file, job_id="job-1", doc_id="doc-1")
    envelope = Envelope(id="1", type=EventType.PDF_REQUESTED, source="test", partitionkey=file.sha256)
    return message(topics.MINERU_QUEUE, envelope, encode(about))


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not is_so():
            await asyncio.sleep(0.02)
