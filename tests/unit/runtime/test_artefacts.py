"""Artefacts: inline or by claim-check, and always what their digest says."""

from itertools import combinations
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkg.contracts.errors import ContractError
from medkg.contracts.ids import content_digest
from medkg.contracts.messages import Artefact
from medkg.runtime.artefacts import Artefacts, artefact_path, content_key, payload_path
from medkg.runtime.blobs import BlobStore, open_blobs

KEY = "artefacts/clinic/ab/abcdef"


@pytest.fixture(params=["memory", "folder"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return open_blobs("memory:" if request.param == "memory" else tmp_path.as_uri())


@pytest.mark.parametrize(
    ("size", "is_kept", "is_inline", "is_stored"),
    [
        (100, False, True, False),
        (100, True, True, True),
        (101, False, False, True),
        (101, True, False, True),
    ],
)
async def test_what_is_small_travels_and_what_is_large_or_kept_is_stored(
    blobs: BlobStore, size: int, is_kept: bool, is_inline: bool, is_stored: bool
) -> None:
    data = b'"' + b"x" * (size - 2) + b'"'
    artefacts = Artefacts(blobs, inline_bytes=100)
    made = await artefacts.make("document", data, KEY, is_kept=is_kept)
    assert (made.is_inline, made.is_stored, made.size_bytes) == (is_inline, is_stored, size)
    assert (await blobs.get(KEY) is not None) == is_stored
    assert await artefacts.open(made) == data
    sent = msgspec.json.decode(msgspec.json.encode(made), type=Artefact)
    assert await artefacts.open(sent) == data
    if is_stored:
        assert await artefacts.open(sent.without_inline()) == data


@given(st.binary(max_size=64).map(msgspec.json.encode), st.integers(0, 64), st.booleans())
async def test_whatever_is_made_can_be_opened(data: bytes, inline_bytes: int, is_kept: bool) -> None:
    artefacts = Artefacts(open_blobs("memory:"), inline_bytes)
    made = await artefacts.make("document", data, KEY, is_kept=is_kept)
    assert await artefacts.open(msgspec.json.decode(msgspec.json.encode(made), type=Artefact)) == data
    found = await artefacts.find("document", KEY)
    assert (found is not None) == made.is_stored
    if found is not None:
        assert found == (made, data)


async def test_of_two_runs_that_made_different_things_both_can_be_opened(blobs: BlobStore) -> None:
    artefacts = Artefacts(blobs, inline_bytes=0)
    first = await artefacts.make("document", b'"one"', KEY, is_kept=True)
    second = await artefacts.make("document", b'"two"', KEY, is_kept=True)
    again = await artefacts.make("document", b'"two"', KEY, is_kept=True)
    assert [await artefacts.open(made) for made in (first, second)] == [b'"one"', b'"two"']
    assert again == second
    found = await artefacts.find("document", KEY)
    assert found is not None
    assert found[1] == b'"one"'


async def test_what_is_broken_is_replaced(blobs: BlobStore) -> None:
    artefacts = Artefacts(blobs, inline_bytes=0)
    await blobs.put(KEY, b'"bro')
    made = await artefacts.make("document", b'"sound"', KEY, is_kept=True, replaces=True)
    assert (made.key, await artefacts.open(made)) == (KEY, b'"sound"')


async def test_an_artefact_that_is_gone_or_altered_is_named(blobs: BlobStore) -> None:
    artefacts = Artefacts(blobs, inline_bytes=0)
    missing = Artefact("document", content_digest(b"1"), 1, key=KEY)
    with pytest.raises(ContractError, match=f"opening document: nothing is stored under {KEY}"):
        await artefacts.open(missing)
    await blobs.put(KEY, b"2")
    with pytest.raises(ContractError, match="not what was stored"):
        await artefacts.open(missing)


def test_the_key_changes_with_everything_that_can_make_a_difference() -> None:
    base = ("clinic", "doc", ("ParseStage", "auto", "1"), "{}", {"payload": "aa"}, {"year": 2020})
    variants = [
        base,
        ("other", *base[1:]),
        (base[0], "doc2", *base[2:]),
        (*base[:2], ("ChunkStage", "auto", "1"), *base[3:]),
        (*base[:2], ("ParseStage", "other", "1"), *base[3:]),
        (*base[:2], ("ParseStage", "auto", "2"), *base[3:]),
        (*base[:3], '{"size":1}', *base[4:]),
        (*base[:4], {"payload": "ab"}, base[5]),
        (*base[:4], {"document": "aa"}, base[5]),
        (*base[:5], {"year": "2020"}),
        (*base[:5], {"year": 2020, "phase": None}),
    ]
    keys = [content_key(*variant) for variant in variants]  # type: ignore[arg-type]  # the tuples are of mixed kinds
    assert all(one != other for one, other in combinations(keys, 2))


def test_the_key_does_not_depend_on_the_order_in_which_things_are_told() -> None:
    def key(inputs: dict[str, str], metadata: dict[str, str | int | float | bool | None]) -> str:
        return content_key("clinic", "doc", ("ParseStage", "auto", "1"), "{}", inputs, metadata)

    assert key({"a": "1", "b": "2"}, {"x": 1, "y": 2}) == key({"b": "2", "a": "1"}, {"y": 2, "x": 1})


def test_paths_keep_tenants_apart_and_folders_small() -> None:
    assert artefact_path("clinic", "abcd") == "artefacts/clinic/ab/abcd"
    assert payload_path("clinic", "abcd") == "payloads/clinic/ab/abcd"
