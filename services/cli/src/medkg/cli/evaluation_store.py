"""Where an evaluation has its index: in the fleet's own folder, or in an OpenSearch under names of its own."""

import asyncio
import json
import os
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from medkg.cli.index import DenseName, StoreName
from medkg.haystack.opensearch.client import translated
from medkg.haystack.opensearch.indexes import Indexes
from medkg.haystack.opensearch.settings import OpenSearchSettings, open_indexes
from medkg.runtime.settings import from_environment

_NAMES: Final = "opensearch-names.json"  # in a data folder that is kept: how its indexes are named


@dataclass(frozen=True, slots=True)
class EvaluationStore:
    """What the index stage ``uses``, what it must know, and the fleet's environment.

    ``catch_up`` makes what was indexed visible to searches; ``size_bytes`` is the index's size on disk.
    """

    name: str
    uses: str
    size_bytes: Callable[[], int]
    catch_up: Callable[[], object] = bool
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict, repr=False)


@contextmanager
def evaluation_store(store: StoreName, dense: DenseName, data_dir: Path, *, is_kept: bool) -> Iterator[EvaluationStore]:
    """A store for a fleet on ``data_dir``. Indexes in OpenSearch are deleted at the end, unless they are kept.

    Raises:
        ConfigurationError: OpenSearch refuses us, or its settings cannot work.
        ResourceUnavailableError: it does not answer.
    """
    if store is StoreName.EMBEDDED:
        yield EvaluationStore("embedded", "embedded", lambda: _folder_bytes(data_dir / "index"))
        return
    settings = _named(from_environment(OpenSearchSettings), data_dir)
    is_knn = dense is DenseName.KNN
    options = {"dense": str(dense), "wait": False}  # nobody searches before all is indexed
    _at(settings, _answers)
    address = {"kind": "opensearch"} if is_knn else {"kind": "opensearch", "data_dir": str(data_dir)}
    environment = {
        "MEDKG_OPENSEARCH_PREFIX": settings.prefix,
        "MEDKG_OPENSEARCH_INDEX_KEY": settings.index_key.get_secret_value(),
        "MEDKG_SEARCH_STORE": json.dumps(address),
        "MEDKG_BLOBS_URL": "",  # what the fleet makes stays in its folder
    }

    def size_bytes() -> int:
        beside = 0 if is_knn else _folder_bytes(data_dir / "blobs" / "index")
        return beside + _at(settings, _index_bytes)

    try:
        name, catch_up = f"opensearch, {dense}", partial(_at, settings, _refresh)
        yield EvaluationStore(name, "opensearch", size_bytes, catch_up, options, environment)
    finally:
        if not is_kept:
            _at(settings, _delete)


def _named(settings: OpenSearchSettings, data_dir: Path) -> OpenSearchSettings:
    """The settings with a prefix and a key that nobody else has; the same again for the same folder."""
    file = data_dir / _NAMES
    try:
        names = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = {"prefix": f"evaluation{secrets.token_hex(4)}", "index_key": secrets.token_hex(32)}
        data_dir.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            json.dump(names, out)
    return settings.model_copy(update={"prefix": names["prefix"], "index_key": SecretStr(names["index_key"])})


def _at(settings: OpenSearchSettings, work: Callable[[Indexes], Awaitable[int]]) -> int:
    async def run() -> int:
        async with open_indexes(settings, knn=False) as indexes:
            with translated(f"asking OpenSearch at {settings.url} (`make opensearch` starts one) for an evaluation"):
                return await work(indexes)

    return asyncio.run(run())


async def _answers(indexes: Indexes) -> int:
    await indexes.client.info()
    return 0


async def _refresh(indexes: Indexes) -> int:
    await indexes.client.indices.refresh(index=indexes.names.pattern)
    return 0


async def _index_bytes(indexes: Indexes) -> int:
    found = await indexes.client.indices.stats(index=indexes.names.pattern, metric="store")
    return int(found["_all"]["primaries"]["store"]["size_in_bytes"])


async def _delete(indexes: Indexes) -> int:
    await indexes.client.indices.delete(index=indexes.names.pattern)
    await indexes.client.indices.delete_index_template(name=indexes.template, params={"ignore": "404"})
    return 0


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
