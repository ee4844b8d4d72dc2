"""Whose stores a command of `medkg ledger` means: those that are named, or those of the fleet that runs here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from medkg.cli.exits import UsageProblem
from medkg.cli.fleet_stores import Stores, find_stores
from medkg.local.folder import claimed, write_note

URL = "postgresql://postgres:@/postgres?host=/srv/medkg/postgres"
NAMED = "postgresql://medkg@db/medkg"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Path]:
    """The folder of a fleet that runs."""
    with claimed(tmp_path):
        write_note(
            tmp_path,
            gateway_url="http://127.0.0.1:8750",
            broker="127.0.0.1:4711",
            services=[],
            database_url=URL,
            blobs_url="file:///srv/medkg/blobs",
            is_in_process=True,
        )
        yield tmp_path


def test_the_stores_of_a_running_fleet_are_found_by_its_folder(running: Path) -> None:
    assert find_stores("", "", "", running, {}) == Stores(
        URL, "127.0.0.1:4711", "file:///srv/medkg/blobs", is_in_process=True, folder=running
    )


@pytest.mark.parametrize("environment", [{"MEDKG_DATABASE_URL": NAMED}, {}])
def test_a_database_that_is_named_is_never_mixed_with_a_fleet_that_happens_to_run(
    running: Path, environment: dict[str, str]
) -> None:
    named = "" if environment else NAMED
    assert find_stores(named, "kafka:9092", "", running, environment) == Stores(NAMED, "kafka:9092")
    assert find_stores(named, "", "", running, environment) == Stores(NAMED)


def test_another_kafka_of_the_environment_is_not_taken_for_that_of_the_fleet(running: Path) -> None:
    found = find_stores("", "", "", running, {"MEDKG_KAFKA_BOOTSTRAP": "production:9092"})
    assert found.broker == "127.0.0.1:4711"


def test_what_is_named_beside_a_fleet_is_taken(running: Path) -> None:
    found = find_stores("", "kafka:9092", "s3://medkg/blobs", running, {})
    assert (found.broker, found.blobs_url, found.is_in_process) == ("kafka:9092", "s3://medkg/blobs", False)


def test_where_no_fleet_runs_all_ways_to_name_one_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem) as nobody:
        find_stores("", "", "", tmp_path / "nowhere", {})
    assert all(word in nobody.value.hint for word in ("--database", "MEDKG_DATABASE_URL", "--data", "nowhere"))


def test_the_note_of_a_fleet_that_was_killed_is_not_followed(
    running: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    dead = tmp_path_factory.mktemp("dead")
    (dead / "fleet.json").write_bytes((running / "fleet.json").read_bytes())
    (dead / "fleet.lock").touch()
    with pytest.raises(UsageProblem, match="which database"):
        find_stores("", "", "", dead, {})


def test_a_fleet_that_is_starting_is_said_to_be(tmp_path: Path) -> None:
    with claimed(tmp_path), pytest.raises(UsageProblem, match="only starting"):
        find_stores("", "", "", tmp_path, {})


def test_a_fleet_on_a_given_database_keeps_its_password_to_itself(tmp_path: Path) -> None:
    with claimed(tmp_path):
        write_note(tmp_path, gateway_url="", broker="kafka:9092", services=[])
        with pytest.raises(UsageProblem, match="a database that it was given") as given:
            find_stores("", "", "", tmp_path, {})
    assert "MEDKG_DATABASE_URL" in given.value.hint
