"""Addresses of indexes: what they leave out is the environment's, and no secret stands in them."""

from pathlib import Path
from typing import Any

import pytest

from medkg.contracts.errors import ConfigurationError
from medkg.haystack.addresses import open_index, read_address
from medkg.haystack.embedded import EmbeddedPassages
from medkg.haystack.opensearch import client
from medkg.haystack.opensearch.reader import OpenSearchPassages

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[client.Connection]:
    """Connections that are made while the environment names a server and a login."""
    made: list[client.Connection] = []
    connect = client.connect

    def watched(connection: client.Connection) -> Any:
        made.append(connection)
        return connect(connection)

    monkeypatch.setattr(client, "connect", watched)
    for name, value in {"URL": "http://search:9200", "USER": "medkg", "PASSWORD": "s3cret", "INDEX_KEY": KEY}.items():
        monkeypatch.setenv(f"MEDKG_OPENSEARCH_{name}", value)
    return made


async def test_what_an_address_leaves_out_is_as_the_environment_of_the_fleet_says(
    connected: list[client.Connection],
) -> None:
    index = open_index(read_address({"kind": "opensearch", "timeout_seconds": 3}))
    assert isinstance(index, OpenSearchPassages)
    await index.aclose()
    (made,) = connected
    assert (made.url, made.user, made.password, made.timeout_seconds) == ("http://search:9200", "medkg", "s3cret", 3)


async def test_the_login_of_the_environment_is_not_shown_to_another_server(connected: list[client.Connection]) -> None:
    await open_index(read_address({"kind": "opensearch", "url": "http://elsewhere:9200"})).aclose()
    assert (connected[0].url, connected[0].user, connected[0].ca_file) == ("http://elsewhere:9200", "", "")


async def test_secrets_are_read_from_the_variables_that_an_address_names(
    connected: list[client.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_PASSWORD", "other")
    given = {"kind": "opensearch", "url": "http://b:9200", "user": "me", "password_variable": "OTHER_PASSWORD"}
    await open_index(read_address(given)).aclose()
    assert (connected[0].user, connected[0].password) == ("me", "other")
    with pytest.raises(ConfigurationError, match="MEDKG_OPENSEARCH_INDEX_KEY"):
        open_index(read_address({**given, "key_variable": "NOWHERE"}))


async def test_an_embedded_address_is_a_folder(tmp_path: Path) -> None:
    index = open_index(read_address({"kind": "embedded", "data_dir": str(tmp_path)}))
    assert isinstance(index, EmbeddedPassages)
    await index.aclose()


@pytest.mark.parametrize("given", [{"kind": "elastic"}, {"kind": "embedded"}, {"kind": "opensearch", "pasword": "x"}])
def test_an_address_that_cannot_be_is_refused_by_name(given: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="reading the address of an index"):
        read_address(given)
