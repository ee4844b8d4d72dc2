"""BM25 on SciFact (BEIR) through each store, with the weights that a question has when nobody says otherwise."""

import asyncio
import csv
import gzip
import json
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from tests.integration.stores_kit import Stores, embedded_stores, opensearch_stores

from medkg.chunk.stage import SectionChunker
from medkg.contracts.context import StageContext
from medkg.contracts.document import Block, Document, EmbeddingBatch, Provenance, Section, SectionKind
from medkg.contracts.ids import document_id
from medkg.haystack.writes import DocumentWrite, prepare

TENANT = "scifact"
PUBLISHED = 0.679


@pytest.fixture(scope="module")
def scifact(corpus: Path) -> Path:
    return corpus / "retrieval" / "scifact"


@pytest.fixture(scope="module")
def writes(scifact: Path) -> list[DocumentWrite]:
    """Every document, cut into passages as the fleet does; the vectors say nothing, as only words are searched."""
    chunker, prepared = SectionChunker(), []
    with gzip.open(scifact / "corpus.jsonl.gz") as lines:
        for record in map(json.loads, lines):
            block = Block("b", record["text"], Provenance(record["_id"]))
            section = Section("s", ("Abstract",), (block,), SectionKind.ABSTRACT)
            doc_id = document_id(TENANT, "scifact", record["_id"])
            document = Document(doc_id, "scifact", record["_id"], "article", record["title"], (section,))
            ctx = StageContext(TENANT, doc_id, "job", content_key=doc_id, revision=1)
            chunks = tuple(chunker.execute(ctx, document))
            dense = np.tile(np.array([1, 0, 0, 0], "<f4"), len(chunks)).tobytes()
            prepared.append(prepare(ctx, EmbeddingBatch(chunks, "none", 4, dense)))
    return prepared


@pytest.mark.corpus
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("backend", ["embedded", pytest.param("opensearch", marks=pytest.mark.opensearch)])
async def test_bm25_reaches_what_is_published_for_bm25(
    backend: str, scifact: Path, writes: list[DocumentWrite], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if backend == "embedded":
        opening = embedded_stores(tmp_path)
    else:
        url, prefix = request.getfixturevalue("opensearch"), request.getfixturevalue("opensearch_prefix")
        opening = opensearch_stores(url, prefix, tmp_path)
    async with opening as stores:
        for start in range(0, len(writes), 256):
            await asyncio.gather(*(stores.writer.replace(TENANT, write) for write in writes[start : start + 256]))
        found = await ndcg_of(stores, scifact)
    print(f"nDCG@10 of BM25 on SciFact, {backend}: {found:.4f}")
    assert found >= PUBLISHED


async def ndcg_of(stores: Stores, scifact: Path) -> float:
    lines = (scifact / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    queries = {query["_id"]: query["text"] for query in map(json.loads, lines)}
    relevant: dict[str, set[str]] = defaultdict(set)
    with (scifact / "qrels_test.tsv").open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if int(row["score"]) > 0:
                relevant[row["query-id"]].add(row["corpus-id"])
    gains = []
    async with stores.index.view(TENANT) as view:
        assert view is not None
        for query, wanted in relevant.items():
            hits = await view.lexical(queries[query], 50)
            passages = await view.passages([hit.ref for hit in hits])
            sources = (str(passages[hit.ref].chunk.metadata["source_id"]) for hit in hits)
            ranked = list(dict.fromkeys(sources))[:10]
            gain = sum(1 / math.log2(rank + 1) for rank, source in enumerate(ranked, 1) if source in wanted)
            gains.append(gain / sum(1 / math.log2(rank + 1) for rank in range(1, min(len(wanted), 10) + 1)))
    assert len(gains) == 300
    return sum(gains) / len(gains)
