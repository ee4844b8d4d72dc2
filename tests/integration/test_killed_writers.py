"""A writer is killed with SIGKILL at every step of its work; readers never see a half, and the next delivery mends it.

Four seeds for each store; MEDKG_TEST_SEEDS=200 takes as many as one wants, and every step in turn.
"""

import asyncio
import json
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.integration.stores_kit import TENANT, Stores, document, embedded_stores, opensearch_stores, vector_of

ROOT = Path(__file__).resolve().parents[2]
SEEDS = int(os.environ.get("MEDKG_TEST_SEEDS", "4"))
LONGEST = {"embedded": 60, "opensearch-faiss": 40, "opensearch-knn": 12}  # steps that the writes take, about
BACKENDS = [
    "embedded",
    pytest.param("opensearch-faiss", marks=pytest.mark.opensearch),
    pytest.param("opensearch-knn", marks=pytest.mark.opensearch),
]
Versions = dict[str, dict[int, list[str]]]  # document -> revision -> texts


@asynccontextmanager
async def opened(backend: str, folder: Path, url: str, prefix: str) -> AsyncIterator[Stores]:
    if backend == "embedded":
        async with embedded_stores(folder) as stores:
            yield stores
    else:
        async with opensearch_stores(url, prefix, folder if backend == "opensearch-faiss" else None) as stores:
            yield stores


async def visible(stores: Stores) -> dict[str, list[str]]:
    """Texts by document, as all three kinds of search must see them."""
    async with stores.index.view(TENANT) as view:
        if view is None:
            return {}
        found = await asyncio.gather(
            view.lexical("word", 1_000), view.sparse({"word": 1.0}, 1_000), view.dense(vector_of("word"), 1_000)
        )
        passages = await view.passages(list({hit.ref for leg in found for hit in leg}))
        legs = [sorted((passages[h.ref].chunk.doc_id, passages[h.ref].chunk.text) for h in leg) for leg in found]
        assert legs[0] == legs[1] == legs[2], legs
        texts: dict[str, list[str]] = {}
        for doc_id, text in legs[0]:
            texts.setdefault(doc_id, []).append(text)
        return texts


def check_whole(seen: dict[str, list[str]], versions: Versions) -> None:
    for doc_id, texts in seen.items():
        assert texts in [sorted(known) for known in versions[doc_id].values()], f"half of {doc_id}: {texts}"


def plan(seed: int) -> tuple[Versions, list[tuple[str, list[str], int]]]:
    """Versions of three documents, and the order in which they are written: not always the right one."""
    choose = random.Random(seed)
    versions: Versions = {}
    writes = []
    for number in range(3):
        doc_id = f"d{number}"
        versions[doc_id] = {
            revision: [f"word {doc_id} {revision} {n}" for n in range(choose.randint(1, 4))] for revision in (1, 2)
        }
        writes += [(doc_id, texts, revision) for revision, texts in versions[doc_id].items()]
    choose.shuffle(writes)
    return versions, writes


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_writer_killed_at_any_step_leaves_every_document_whole_and_the_next_delivery_finishes(
    backend: str, seed: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = prefix = ""
    if backend != "embedded":
        url, prefix = request.getfixturevalue("opensearch"), request.getfixturevalue("opensearch_prefix")
    versions, writes = plan(seed)
    choose = random.Random(1_000 + seed)
    task: dict[str, Any] = {
        "backend": backend,
        "folder": str(tmp_path),
        "url": url,
        "prefix": prefix,
        "writes": writes,
        "steps": 1 + seed % LONGEST[backend] if SEEDS >= 100 else choose.randint(1, LONGEST[backend]),
        "after": bool(choose.randint(0, 1)),
    }
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.killed_writer", json.dumps(task)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with opened(backend, tmp_path, url, prefix) as stores:
        said = asyncio.create_task(child.communicate())
        while not said.done():  # a reader beside it, all the time
            check_whole(await visible(stores), versions)
            await asyncio.wait([said], timeout=0.05)
        told, errors = await said
        assert child.returncode in (0, -9), errors.decode()
        check_whole(await visible(stores), versions)
        acknowledged = told.decode().split()
        done: dict[str, int] = {}
        for (doc_id, _, revision), _ in zip(writes, acknowledged, strict=False):
            done[doc_id] = max(revision, done.get(doc_id, 0))
        seen = await visible(stores)
        for doc_id, revision in done.items():  # what was acknowledged stays, or something newer
            assert seen[doc_id] in [sorted(t) for r, t in versions[doc_id].items() if r >= revision]
        # everything is delivered again, in another order
        choose.shuffle(writes)
        for doc_id, texts, revision in writes:
            await stores.writer.replace(TENANT, document(doc_id, *texts, revision=revision, job=f"job-{revision}"))
        assert await visible(stores) == {doc_id: sorted(known[2]) for doc_id, known in versions.items()}
