"""The fleet, as far as it can be looked at without starting it."""

import os
from pathlib import Path

import pytest

from medkg.contracts.errors import ConfigurationError, ResourceUnavailableError
from medkg.contracts.stages import StageType
from medkg.local import fleet as fleet_module
from medkg.local.fleet import SERVICE_NAMES, SERVICES, FleetOptions, chosen_services, fleet, run_fleet
from medkg.local.folder import claimed


def test_every_service_is_there_and_reads_topics_of_its_own() -> None:
    stages = {stage.service for stage in StageType} - {"gate"}
    assert set(SERVICES) == stages | {"gate-router", "ledger", "mineru"}
    assert set(SERVICE_NAMES) == set(SERVICES) | {"gateway"}
    read = [topic for service in SERVICES.values() for topic in service.topics]
    assert len(read) == len(set(read))


def test_mineru_is_part_of_a_fleet_only_where_a_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDKG_MINERU_URL", raising=False)
    assert set(SERVICE_NAMES) - set(chosen_services(())) == {"mineru"}
    monkeypatch.setenv("MEDKG_MINERU_URL", "http://127.0.0.1:8000")
    assert chosen_services(()) == SERVICE_NAMES


def contents(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def started(options: FleetOptions) -> None:
    async with fleet(options, lambda: None):
        pytest.fail("it started")


async def test_a_service_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"starting services: chunks unknown; there are: ingest, .*gateway"):
        await started(FleetOptions(tmp_path, services=("chunks", "embed")))


async def test_a_part_of_the_fleet_needs_a_broker_that_others_can_reach(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--broker HOST:PORT"):
        await started(FleetOptions(tmp_path, services=("chunk",)))
    assert contents(tmp_path) == []  # nothing was started for it


@pytest.mark.parametrize("url", ["mysql://there/db", "there", ""])
async def test_a_database_that_is_none_is_refused_before_anything_starts(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"expected postgresql://"):
        await fleet_module._prepare_database(url, is_in_process=True)


async def test_a_database_that_does_not_answer_is_a_resource_that_is_missing() -> None:
    with pytest.raises(ResourceUnavailableError, match="preparing the database"):
        await fleet_module._prepare_database("postgresql://nobody@127.0.0.1:1/none", is_in_process=True)


def test_a_second_fleet_on_the_same_folder_ends_with_two_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with claimed(tmp_path):
        assert run_fleet(FleetOptions(tmp_path)) == 2
    assert capsys.readouterr().err.startswith(f"medkg up: starting a fleet on {tmp_path}: another one is running")


def test_the_embedded_broker_is_waited_for_less_and_a_real_one_as_its_settings_say() -> None:
    embedded = fleet_module._kafka_settings("127.0.0.1:1", is_in_process=True)
    real = fleet_module._kafka_settings("kafka:9092", is_in_process=False)
    assert (embedded.is_in_process, real.is_in_process) == (True, False)
    assert embedded.fetch_wait_ms < real.fetch_wait_ms
    assert (embedded.bootstrap, real.bootstrap) == ("127.0.0.1:1", "kafka:9092")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {},
            [
                "in-process cluster at HERE (memory only)",
                "embedded PostgreSQL, DIR/postgres",
                "any file that this user",
            ],
        ),
        ({"broker": "kafka:9092"}, ["broker         HERE", "embedded PostgreSQL"]),
        ({"database_url": "postgresql://u:secret@h/db"}, ["ledger, graph  PostgreSQL as given"]),
        ({"files_roots": (Path("/a"), Path("/b"))}, ["files          /a, /b"]),
    ],
)
def test_what_is_embedded_and_what_is_not_is_said_and_no_secret(
    tmp_path: Path, options: dict[str, object], says: list[str]
) -> None:
    chosen = FleetOptions(tmp_path, **options)  # type: ignore[arg-type]  # of several types
    text = fleet_module._describe(chosen, ["chunk", "gateway"], "HERE", "http://127.0.0.1:8750", "127.0.0.1:1")
    assert all(one.replace("DIR", str(tmp_path)) in text for one in says), text
    assert "services       chunk, gateway" in text
    assert "http://127.0.0.1:1/health/live" in text
    assert "secret" not in text


async def test_a_refused_start_leaves_the_environment_alone(tmp_path: Path) -> None:
    before = os.environ.get("MEDKG_INGEST_FILES_ROOTS")
    with pytest.raises(ConfigurationError):
        await started(FleetOptions(tmp_path, services=("nothing",), files_roots=(Path("/a"),)))
    assert os.environ.get("MEDKG_INGEST_FILES_ROOTS") == before
