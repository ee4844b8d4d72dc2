"""`medkg ledger` on a real database: what operators type, and what they are told."""

import asyncio
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.unit.ledger.histories import topologies
from tests.unit.ledger.lifecycle import Job, doc_id
from typer.testing import CliRunner, Result

from medkg.cli.app import app
from medkg.cli.fleet_process import running_fleet
from medkg.cli.session import SystemClock
from medkg.contracts import topics
from medkg.contracts.cloudevents import Message
from medkg.contracts.messages import EventType, IngestedDocument, PageReport
from medkg.local.embedded_broker import embedded_broker
from medkg.runtime.broker import Publisher
from medkg.runtime.settings import KafkaSettings
from medkg.storage.engine import migrate, open_engine
from medkg.storage.ledger_projection import project

Medkg = Callable[..., Result]


@pytest.fixture
def bootstrap() -> Iterator[str]:
    with embedded_broker() as address:
        yield address


@pytest.fixture
def medkg(database_url: str, bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Medkg:
    monkeypatch.chdir(tmp_path)
    environment = {"MEDKG_DATABASE_URL": database_url, "MEDKG_KAFKA_BOOTSTRAP": bootstrap, "COLUMNS": "100"}
    environment["MEDKG_KAFKA_FETCH_WAIT_MS"] = "20"

    def run(*args: str, **kwargs: Any) -> Result:
        return CliRunner().invoke(app, ["ledger", *args], env=environment, **kwargs)

    return run


def test_migrate_says_what_it_does_and_the_second_time_that_there_is_nothing_to_do(medkg: Medkg) -> None:
    first, second = medkg("migrate"), medkg("migrate", "--json")
    assert first.exit_code == 0, first.stderr
    assert first.stdout.splitlines() == ["made all tables", "the ledger is up to date"]
    assert json.loads(second.stdout) == {"migrations": [], "rows": 0, "filled_in": 0}


def test_import_tells_every_hundred_rows_and_names_those_that_failed(medkg: Medkg, tmp_path: Path) -> None:
    rows = [json.dumps({"doc_id": f"d{n}", "source": "core"}) for n in range(250)]
    (tmp_path / "old.jsonl").write_text("\n".join(rows))
    result = medkg("import", "old.jsonl")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [f"{n} rows: {n} imported, 0 failed" for n in (100, 200, 250)]
    (tmp_path / "old.jsonl").write_text("\n".join([*rows, "{}"]))
    result = medkg("import", "old.jsonl", "--json")
    assert result.exit_code == 1
    assert (
        "1 of 251 rows failed: line 251: it names no document"
        in json.loads(result.stderr.splitlines()[-1])["error"]["message"]
    )


@pytest.mark.parametrize(
    "arguments",
    [("import", "nowhere.jsonl"), ("migrate", "--database", "mysql://x"), ("reconcile", "--older-than", "soon")],
)
def test_what_cannot_be_meant_is_wrong_usage(medkg: Medkg, arguments: tuple[str, ...]) -> None:
    assert medkg(*arguments).exit_code == 2


def test_the_database_of_a_fleet_that_is_up_is_found_by_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MEDKG_DATABASE_URL", "MEDKG_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MEDKG_KAFKA_BOOTSTRAP", "127.0.0.1:1")  # of another fleet, which is away
    run = partial(CliRunner().invoke, app)
    nowhere = run(["ledger", "reconcile"])
    assert nowhere.exit_code == 2
    assert "or --data DIR, the folder of a fleet that `medkg up` runs" in " ".join(nowhere.stderr.split())
    with running_fleet(tmp_path / ".medkg", tmp_path, SystemClock()) as fleet:
        found = run(["ledger", "reconcile", "--older-than", "1s", "--json"])
        assert found.exit_code == 0, found.stderr
        assert json.loads(found.stdout)["findings"] == []
        assert f"Kafka {fleet.broker}" in found.stderr
        for command in (["artefacts"], ["rebuild", "--check"], ["migrate"]):
            result = run(["ledger", *command])
            assert result.exit_code == 0, result.stderr
            assert result.stdout.startswith("the fleet on .medkg, Kafka 127.0.0.1:")
    assert run(["ledger", "reconcile"]).exit_code == 2  # it is gone, and so is its database


def test_a_database_that_is_away_is_said(medkg: Medkg) -> None:
    result = medkg("migrate", "--database", "postgresql://nobody@127.0.0.1:1/nothing")
    assert result.exit_code == 3
    assert "the database does not answer" in result.stderr


def test_a_broker_that_is_away_is_said(medkg: Medkg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medkg.runtime.broker.reading._ANSWER_SECONDS", 0.5)
    result = medkg("rebuild", "--check", "--broker", "127.0.0.1:1")
    assert result.exit_code == 3
    assert "is Kafka up?" in result.stderr


async def tell(database_url: str, bootstrap: str, *, is_published: bool) -> None:
    job = Job()
    events = [job.admitted(), job.page(0, 1, is_last=True), job.completed(1)]
    engine = open_engine(database_url)
    await migrate(engine)
    await project(engine, events)
    await engine.dispose()
    if is_published:
        publisher = Publisher(KafkaSettings(bootstrap=bootstrap))
        await publisher.publish([Message(topics.LIFECYCLE, "k", data, envelope.headers()) for envelope, data in events])
        await publisher.close()


async def test_rebuild_checks_and_puts_right(medkg: Medkg, database_url: str, bootstrap: str) -> None:
    await tell(database_url, bootstrap, is_published=True)
    checked = await asyncio.to_thread(medkg, "rebuild", "--check")
    assert checked.exit_code == 0, checked.stderr
    assert "3 records read: the ledger says what its topics say" in checked.stdout
    engine = open_engine(database_url)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE jobs SET completed = 7")
    await engine.dispose()
    wrong = await asyncio.to_thread(medkg, "rebuild", "--check")
    assert wrong.exit_code == 1
    assert "jobs: 1 rows only in use, 1 only rebuilt" in wrong.stdout
    assert (await asyncio.to_thread(medkg, "rebuild", input="n\n")).exit_code == 0
    assert (await asyncio.to_thread(medkg, "rebuild", "--check")).exit_code == 1
    assert "the rebuilt ledger is in use" in (await asyncio.to_thread(medkg, "rebuild", "--yes")).stdout
    assert (await asyncio.to_thread(medkg, "rebuild", "--check")).exit_code == 0


async def test_reconcile_says_what_is_lost_and_why_and_does_nothing_by_itself(
    medkg: Medkg, database_url: str, bootstrap: str
) -> None:
    job, topology = Job(), topologies()["auto"]
    ref = topology.ref
    engine = open_engine(database_url)
    await migrate(engine)
    documents = tuple(IngestedDocument(doc_id(n), f"NCT{n}") for n in (1, 2))
    page = job.stage(EventType.STAGE_COMPLETED, "ingest", page=PageReport(0, documents), pipeline=ref)
    events = [job.admitted(pipeline=ref, topology=topology.canonical_json), page]
    await project(engine, [*events, job.completed(1, "parse", pipeline=ref)])
    await engine.dispose()
    for _ in range(2):
        result = await asyncio.to_thread(medkg, "reconcile")
        assert result.exit_code == 0, result.stderr
        assert "the request for 'ir_validation' after 'parse'" in result.stdout
        assert "because nothing was heard since 2026-03-01" in result.stdout
        assert "submit its job again" in result.stdout
        assert "2 losses found; --apply repairs what can be" in result.stdout
    report = json.loads((await asyncio.to_thread(medkg, "reconcile", "--json")).stdout)
    assert [finding["repair"] for finding in report["findings"]] == ["none", "none"]
