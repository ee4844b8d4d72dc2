"""The gateway on a socket, over a real database, a real index folder and the in-process broker."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from tests.unit.ledger.lifecycle import Job, doc_id

from medkg.contracts.errors import ConfigurationError, ResourceUnavailableError
from medkg.contracts.ids import job_id_of
from medkg.gateway.app import serving_gateway
from medkg.local.embedded_broker import embedded_broker
from medkg.runtime.service import ServiceHost
from medkg.runtime.serving import running
from medkg.runtime.settings import KafkaSettings, RuntimeSettings
from medkg.storage.engine import migrate, open_engine
from medkg.storage.ledger_projection import project
from medkg.storage.ledger_reader import LedgerReader

TOPOLOGIES = Path(__file__).resolve().parents[2] / "topologies"
SUBMISSION = {"tenant_id": "default", "source": "files", "selection": {"paths": ["/data"]}}


@pytest.fixture(scope="module")
def bootstrap() -> Iterator[str]:
    with embedded_broker() as address:
        yield address


@asynccontextmanager
async def host_on(bootstrap: str, database_url: str, folder: Path) -> AsyncIterator[ServiceHost]:
    settings = RuntimeSettings(
        data_dir=folder, database_url=SecretStr(database_url), topologies_dir=TOPOLOGIES, drain_seconds=1
    )
    kafka = KafkaSettings(bootstrap=bootstrap, is_in_process=True)
    async with running([], settings, kafka, lambda: pytest.fail("a worker died")) as (host, _):
        yield host


@pytest.fixture
async def host(
    bootstrap: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ServiceHost]:
    monkeypatch.setenv("MEDKG_GATEWAY_ADMISSION_SECONDS", "0.2")
    async with host_on(bootstrap, database_url, tmp_path) as opened:
        yield opened


async def test_a_gateway_serves_what_is_in_the_stores(host: ServiceHost) -> None:
    engine = open_engine(host.database_url)
    async with serving_gateway(host, port=0, services=["ledger", "gateway"]) as url:
        job = Job()
        await project(engine, [job.admitted(), job.page(0, 1, is_last=True), job.started(1), job.completed(1)])
        async with httpx.AsyncClient(base_url=url) as client:
            status = (await client.get("/v1/status")).json()
            pipelines = (await client.get("/v1/pipelines")).json()
            whole = (await client.get(f"/v1/jobs/{job.id}")).json()
            document = (await client.get(f"/v1/jobs/{job.id}/documents/{doc_id(1)}")).json()
            found = (await client.get("/v1/search", params={"q": "sciatica"})).json()
            graph = (await client.get("/v1/graph", params={"entity": "Sciatica"})).json()
            health = await client.get("/healthz")
            metrics = await client.get("/metrics")
    await engine.dispose()
    assert status["services"] == ["ledger", "gateway"]
    assert status["broker"] == host.kafka.bootstrap
    assert (status["jobs"], status["documents"]["completed"]) == ({"completed": 1}, 1)
    assert {"auto", "pdf-two-phase"} <= {pipeline["name"] for pipeline in pipelines["pipelines"]}
    assert pipelines["faults"] == []
    assert (whole["state"], whole["counts"]["completed"]) == ("completed", 1)
    assert [run["stage"] for run in document["timeline"]] == ["parse", "kg"]
    assert (found["hits"], graph["entities"]) == ([], [])
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert metrics.headers["content-type"].startswith("text/plain")
    assert "server" not in health.headers


async def test_a_submission_reaches_the_broker(host: ServiceHost) -> None:
    async with serving_gateway(host, port=0) as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.post("/v1/jobs", json=SUBMISSION, headers={"idempotency-key": "mine"})
    assert (response.status_code, response.json()) == (
        202,
        {"job_id": job_id_of("medkg-gateway", f"{SUBMISSION['tenant_id']}/mine"), "state": "submitted"},
    )


async def test_a_word_in_the_ledger_is_the_answer(host: ServiceHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDKG_GATEWAY_ADMISSION_SECONDS", "30")
    engine = open_engine(host.database_url)
    job_id = job_id_of("medkg-gateway", f"{SUBMISSION['tenant_id']}/mine")
    async with serving_gateway(host, port=0) as url, httpx.AsyncClient(base_url=url) as client:
        headers = {"idempotency-key": "mine"}
        asking = asyncio.create_task(client.post("/v1/jobs", json=SUBMISSION, headers=headers))
        await project(engine, [Job().rejected(job_id=job_id)])
        async with asyncio.timeout(20):
            response = await asking
    await engine.dispose()
    assert (response.status_code, response.json()["error"]["job_id"]) == (422, job_id)


async def test_a_request_under_way_is_answered_before_the_gateway_stops(
    host: ServiceHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDKG_GATEWAY_ADMISSION_SECONDS", "0.5")
    is_under_way = asyncio.Event()
    look = LedgerReader.state_of

    async def state_of(reader: LedgerReader, job_id: str) -> Any:
        is_under_way.set()
        return await look(reader, job_id)

    monkeypatch.setattr(LedgerReader, "state_of", state_of)
    async with httpx.AsyncClient() as client:
        async with serving_gateway(host, port=0) as url:
            asking = asyncio.create_task(client.post(f"{url}/v1/jobs", json=SUBMISSION))
            async with asyncio.timeout(10):
                await is_under_way.wait()
        response = await asking
        assert response.json()["state"] == "submitted"
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{url}/healthz")


async def test_its_port_is_free_again_after_it_has_stopped(host: ServiceHost) -> None:
    async with serving_gateway(host, port=0) as url:
        port = int(url.rpartition(":")[2])
    async with serving_gateway(host, port=port) as again:
        assert again == url


async def test_a_taken_port_is_said_with_what_to_do(host: ServiceHost) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"listening on 127.0.0.1:{port}: .* name another port"):
            async with serving_gateway(host, port=port):
                pass


async def test_a_signal_is_left_to_the_process(host: ServiceHost) -> None:
    """The process stops everything in order; the gateway must not stop by itself, ahead of the services."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    try:
        before = signal.getsignal(signal.SIGTERM)
        async with serving_gateway(host, port=0) as url, httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/healthz")).status_code == 200
            assert signal.getsignal(signal.SIGTERM) is before
            os.kill(os.getpid(), signal.SIGTERM)
            async with asyncio.timeout(5):
                await told.wait()
            assert (await client.get("/healthz")).status_code == 200
            told.clear()
        assert not told.is_set()  # nor is it raised once more
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def test_a_browser_that_was_lured_here_is_not_answered(host: ServiceHost) -> None:
    async with serving_gateway(host, port=0) as url, httpx.AsyncClient(base_url=url) as client:
        rebound = await client.get("/v1/jobs", headers={"host": "evil.example:8750"})
        form = await client.post("/v1/jobs", content=b"{}", headers={"content-type": "text/plain"})
    assert (rebound.status_code, form.status_code) == (421, 415)


async def test_without_a_database_the_gateway_does_not_start_and_lets_go_of_its_port(
    bootstrap: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for database_url, error in (
        ("postgresql://nobody@127.0.0.1:1/nothing", ResourceUnavailableError),
        ("", ConfigurationError),
    ):
        async with host_on(bootstrap, database_url, tmp_path) as host:
            with pytest.raises(error):
                async with serving_gateway(host, port=port):
                    pass
        socket.create_server(("127.0.0.1", port)).close()


async def test_the_tables_are_there_once_the_gateway_serves(host: ServiceHost) -> None:
    engine = open_engine(host.database_url)
    async with serving_gateway(host, port=0) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/v1/jobs")).json() == {"jobs": [], "next": None}
        await migrate(engine)  # a second service that starts finds everything made
    await engine.dispose()
