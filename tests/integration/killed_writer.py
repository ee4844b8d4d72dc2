"""A process that writes documents and kills itself: ``python -m tests.integration.killed_writer JSON``.

It dies before or after its n-th step: a request to OpenSearch that changes something, a change in the blob store, or a
statement of SQLite.
"""

import asyncio
import json
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

from tests.integration import stores_kit

from medkg.haystack.passage_store import PassageStore
from medkg.runtime.blobs import BlobStore

SEGMENT_ROWS = 4  # of the writer beside OpenSearch: it merges all the time


class Fuse:
    """Burns down with every step, and then kills the process, before or after the step."""

    def __init__(self, steps: int, after: bool) -> None:
        self._left = steps
        self._after = after

    def before(self) -> None:
        self._left -= 1
        if self._left == 0 and not self._after:
            self._kill()

    def after(self) -> None:
        if self._left == 0 and self._after:
            self._kill()

    def _kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def arm_opensearch(fuse: Fuse) -> None:
    """Every request that changes something in OpenSearch or in the blob store is a step."""
    from opensearchpy import AsyncTransport

    perform = AsyncTransport.perform_request

    async def request(self: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        if method == "GET" or url.endswith(("_mget", "_search")):
            return await perform(self, method, url, *args, **kwargs)
        fuse.before()
        answer = await perform(self, method, url, *args, **kwargs)
        fuse.after()
        return answer

    def stepwise(work: Any) -> Any:
        async def call(self: BlobStore, *args: Any) -> Any:
            fuse.before()
            result = await work(self, *args)
            fuse.after()
            return result

        return call

    AsyncTransport.perform_request = request  # type: ignore[method-assign]  # this process lives for one test
    for name in ("create", "replace", "put_file", "delete"):
        setattr(BlobStore, name, stepwise(getattr(BlobStore, name)))


def arm_embedded(fuse: Fuse) -> None:
    """Every statement of a writer's connection is a step."""
    opened = PassageStore.open.__func__  # type: ignore[attr-defined]  # the function of a class method

    def open_store(cls: type[PassageStore], path: Path) -> PassageStore:
        store: PassageStore = opened(cls, path)
        connection: sqlite3.Connection = store._connection
        connection.set_trace_callback(lambda _statement: fuse.before())
        return store

    PassageStore.open = classmethod(open_store)  # type: ignore[assignment, method-assign]


async def main(task: dict[str, Any]) -> None:
    fuse = Fuse(task["steps"], task["after"])
    folder = Path(task["folder"])
    if task["backend"] == "embedded":
        arm_embedded(fuse)
        opening = stores_kit.embedded_stores(folder)
    else:
        arm_opensearch(fuse)
        blobs = folder if task["backend"] == "opensearch-faiss" else None
        opening = stores_kit.opensearch_stores(task["url"], task["prefix"], blobs, segment_rows=SEGMENT_ROWS)
    async with opening as stores:
        for doc_id, texts, revision in task["writes"]:
            write = stores_kit.document(doc_id, *texts, revision=revision, job=f"job-{revision}")
            print(await stores.writer.replace(stores_kit.TENANT, write), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
