"""Pinned topologies: what a digest names is what a worker gets, or an error that says why not."""

import hashlib
import json

import pytest

from medkg.contracts.errors import ContractError, ResourceUnavailableError
from medkg.contracts.topology import Topology
from medkg.runtime.topologies import PinnedTopologies


class Shelf:
    """Blobs in memory that count how often they are asked."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.gets = self.puts = 0

    async def get(self, key: str) -> bytes | None:
        self.gets += 1
        return self.held.get(key)

    async def put(self, key: str, data: bytes) -> None:
        self.puts += 1
        self.held.setdefault(key, data)


def topology(version: str = "1.0") -> Topology:
    return Topology.model_validate(
        {"version": version, "name": "auto", "stages": [{"name": "ingest", "type": "IngestStage"}]}
    )


async def test_what_one_process_pins_another_gets() -> None:
    shelf = Shelf()
    pinned = topology()
    ref = await PinnedTopologies(shelf).pin(pinned)

    assert ref == pinned.ref
    assert list(shelf.held) == [f"topologies/{pinned.digest}.json"]
    found = await PinnedTopologies(shelf).get(ref.digest)
    assert found == pinned
    assert found.digest == ref.digest


async def test_a_topology_is_stored_and_fetched_once() -> None:
    shelf = Shelf()
    pins = PinnedTopologies(shelf)
    for _ in range(3):
        await pins.pin(topology())
    other = PinnedTopologies(shelf)
    instances = {id(await other.get(topology().digest)) for _ in range(3)}

    assert (shelf.puts, shelf.gets, len(instances)) == (1, 1, 1)


async def test_the_least_recently_used_is_forgotten_first() -> None:
    shelf = Shelf()
    versions = [topology(f"1.{number}") for number in range(3)]
    for each in versions:
        await PinnedTopologies(shelf).pin(each)
    pins = PinnedTopologies(shelf, keep=2)
    for index in (0, 1, 0, 2, 0):
        await pins.get(versions[index].digest)
    assert shelf.gets == 3
    await pins.get(versions[1].digest)
    assert shelf.gets == 4


async def test_a_pinned_topology_of_a_newer_release_keeps_its_digest() -> None:
    content = json.loads(topology().canonical_json) | {"colour": "red"}
    data = json.dumps(content).encode()
    digest = hashlib.sha256(data).hexdigest()
    shelf = Shelf()
    shelf.held[f"topologies/{digest}.json"] = data

    assert (await PinnedTopologies(shelf).get(digest)).digest == digest


async def test_a_digest_that_names_something_else_is_a_broken_contract() -> None:
    shelf = Shelf()
    shelf.held[f"topologies/{topology().digest}.json"] = topology("6.6").canonical_json.encode()
    with pytest.raises(ContractError, match="holds something else"):
        await PinnedTopologies(shelf).get(topology().digest)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b"\xff", b'{"name": "auto"}'])
async def test_what_is_not_a_topology_is_a_broken_contract(data: bytes) -> None:
    shelf = Shelf()
    digest = hashlib.sha256(data).hexdigest()
    shelf.held[f"topologies/{digest}.json"] = data
    with pytest.raises(ContractError, match="is not a topology"):
        await PinnedTopologies(shelf).get(digest)


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
async def test_what_is_no_digest_never_reaches_the_store(digest: str) -> None:
    shelf = Shelf()
    with pytest.raises(ContractError, match="is not a SHA-256 digest"):
        await PinnedTopologies(shelf).get(digest)
    assert shelf.gets == 0


async def test_a_missing_topology_can_be_asked_for_again() -> None:
    shelf = Shelf()
    pins = PinnedTopologies(shelf)
    with pytest.raises(ResourceUnavailableError, match="use the same blob store"):
        await pins.get(topology().digest)
    await PinnedTopologies(shelf).pin(topology())
    assert await pins.get(topology().digest) == topology()
