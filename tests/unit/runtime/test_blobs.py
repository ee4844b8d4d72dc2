"""The blob store: the same behaviour in memory and in a folder, and nothing outside of it."""

import asyncio
import errno
import os
from pathlib import Path

import pytest

from medkg.contracts.errors import ConfigurationError, ContractError, ResourceUnavailableError
from medkg.runtime.blobs import BlobStore, open_blobs


@pytest.fixture(params=["memory", "folder"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return open_blobs("memory:" if request.param == "memory" else (tmp_path / "blobs").as_uri())


async def test_what_is_put_can_be_got_and_is_written_once(blobs: BlobStore) -> None:
    assert await blobs.get("a/b") is None
    await blobs.put("a/b", b"first")
    await blobs.put("a/b", b"second")
    assert await blobs.get("a/b") == b"first"


async def test_create_says_whether_it_was_the_first(blobs: BlobStore) -> None:
    assert await blobs.create("a/b", b"first")
    assert not await blobs.create("a/b", b"second")
    assert await blobs.get("a/b") == b"first"


async def test_replace_writes_whatever_is_there(blobs: BlobStore) -> None:
    for data in (b"first", b"", b"third"):
        await blobs.replace("a/b", data)
        assert await blobs.get("a/b") == data


async def test_a_file_is_stored_whole_and_once(blobs: BlobStore, tmp_path: Path) -> None:
    for size_bytes in (0, 10, 12 * 1024 * 1024):  # none, one and several parts
        file, key = tmp_path / "file", f"files/{size_bytes}"
        file.write_bytes(bytes(range(256)) * (size_bytes // 256) + b"x" * (size_bytes % 256))
        assert await blobs.size(key) is None
        assert await blobs.put_file(key, file)
        assert await blobs.size(key) == size_bytes
        assert await blobs.get(key) == file.read_bytes()
        assert not await blobs.put_file(key, file)


async def test_of_many_that_store_one_file_at_once_it_lies_there_whole(blobs: BlobStore, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 30_000)
    await asyncio.gather(*(blobs.put_file("files/a", file) for _ in range(8)))
    assert await blobs.get("files/a") == file.read_bytes()


async def test_of_many_that_write_at_once_one_wins_whole(blobs: BlobStore) -> None:
    contents = [bytes([number]) * 50_000 for number in range(20)]
    created = await asyncio.gather(*(blobs.create("a/b", data) for data in contents))
    assert created.count(True) == 1
    assert await blobs.get("a/b") == contents[created.index(True)]


@pytest.mark.parametrize(
    "key",
    [
        *("", "/", "a/", "/a", "a//b", "..", "../x", "a/../b", "a/./b", ".hidden"),
        *("a\x00b", "a b", "a\n", "a\\b", "é", "a/%2e%2e/b"),
        pytest.param("x" * 201, id="long"),
        pytest.param("/".join("abcdefghi"), id="deep"),
    ],
)
async def test_what_is_no_key_is_refused_and_not_waited_for(blobs: BlobStore, key: str) -> None:
    with pytest.raises(ContractError, match="is not a key"):
        await blobs.get(key)
    with pytest.raises(ContractError, match="is not a key"):
        await blobs.size(key)
    with pytest.raises(ContractError, match="is not a key"):
        await blobs.put_file(key, Path(__file__))
    for write in (blobs.put, blobs.create, blobs.replace):
        with pytest.raises(ContractError, match="is not a key"):
            await write(key, b"x")


async def test_a_folder_holds_each_blob_as_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "with space%20" / "blobs"
    await open_blobs(folder.as_uri()).put("topologies/ab.json", b"{}")
    assert [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()] == [
        "topologies/ab.json"
    ]


async def test_what_is_large_comes_whole_too(blobs: BlobStore) -> None:
    for size_bytes in (524_287, 524_288, 524_289, 5_000_000):  # around the size from which a folder asks a thread
        data = bytes(range(251)) * (size_bytes // 251) + b"x" * (size_bytes % 251)
        assert await blobs.create(f"large/{size_bytes}", data)
        assert not await blobs.create(f"large/{size_bytes}", b"")
        assert await blobs.get(f"large/{size_bytes}") == data


async def test_a_write_that_fails_changes_nothing_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = open_blobs(tmp_path.as_uri())
    await blobs.put("a/b", b"first")

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("medkg.runtime.blob_folder.os.write", full)
        for key, write in (("a/b", blobs.replace), ("a/c", blobs.put)):
            with pytest.raises(ResourceUnavailableError, match=rf"writing blob {key} .*No space left"):
                await write(key, b"second")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    assert await blobs.get("a/b") == b"first"


async def test_what_a_killed_process_was_writing_is_no_blob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs, listed = open_blobs(tmp_path.as_uri()), [0]
    await blobs.put("a/b", b"whole")

    def killed(descriptor: int, data: bytes) -> int:
        listed[0] = len(list((tmp_path / "a").iterdir()))
        raise KeyboardInterrupt

    monkeypatch.setattr("medkg.runtime.blob_folder.os.write", killed)
    monkeypatch.setattr("medkg.runtime.blob_folder.Path.unlink", lambda *_, **__: None)  # nor is anything tidied up
    with pytest.raises(KeyboardInterrupt):
        await blobs.put("a/c", b"half")
    assert listed == [2]
    assert [key async for key, _, _ in blobs.list("")] == ["a/b"]
    assert await blobs.get("a/c") is None


async def test_who_comes_second_changes_nothing_even_if_both_found_nothing_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = open_blobs(tmp_path.as_uri())
    await blobs.put("a/b", b"first")
    monkeypatch.setattr("medkg.runtime.blob_folder.Path.exists", lambda _: False)
    assert not await blobs.create("a/b", b"second")
    assert await blobs.get("a/b") == b"first"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


async def test_a_disk_that_takes_parts_gets_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs, write, read = open_blobs(tmp_path.as_uri()), os.write, os.read
    monkeypatch.setattr("medkg.runtime.blob_folder.os.write", lambda at, data: write(at, data[:1_000]))
    monkeypatch.setattr("medkg.runtime.blob_folder.os.read", lambda at, size: read(at, min(size, 700)))
    data = bytes(range(250)) * 20
    await blobs.put("a/b", data)
    assert await blobs.get("a/b") == data


async def test_a_store_that_does_not_work_is_a_resource_that_may_come_back(tmp_path: Path) -> None:
    blobs = open_blobs(tmp_path.as_uri())
    (tmp_path / "a").write_text("a file where a folder should be")
    with pytest.raises(ResourceUnavailableError, match="reading blob a/b"):
        await blobs.get("a/b")
    with pytest.raises(ResourceUnavailableError, match=r"writing blob a/b \(1 bytes\)"):
        await blobs.put("a/b", b"x")
    with pytest.raises(ResourceUnavailableError, match="blob a/b"):
        await blobs.put_file("a/b", Path(__file__))


@pytest.mark.parametrize("location", ["", "blobs", "http://example.org", "ftp://x/y", "C:\\blobs"])
def test_a_location_that_is_none_is_refused_with_what_would_do(location: str) -> None:
    with pytest.raises(ConfigurationError, match=r"file:///folder, s3://bucket/prefix or memory:"):
        open_blobs(location)


def test_a_bucket_is_opened_without_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert isinstance(open_blobs("s3://bucket/some/prefix", endpoint="http://127.0.0.1:1"), BlobStore)
