"""How well the embedded search finds: SciFact (BEIR), through chunk, embed and index as the fleet runs them."""

import asyncio
import csv
import gzip
import json
import math
from collections import defaultdict
from pathlib import Path

import pytest

from medkg.chunk.stage import SectionChunker
from medkg.contracts.context import StageContext
from medkg.contracts.document import Block, Document, Provenance, Section, SectionKind
from medkg.contracts.ids import document_id
from medkg.embed.stage import LocalEmbedding
from medkg.haystack.hashing import HashingEmbedder
from medkg.haystack.legs import LEGS
from medkg.haystack.retrieval import Hit, HybridSearch, SearchRequest
from medkg.index.stage import EmbeddedIndex

TENANT = "scifact"


@pytest.fixture(scope="module")
def scifact(corpus: Path) -> Path:
    return corpus / "retrieval" / "scifact"


@pytest.mark.corpus
@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_bm25_reaches_what_is_published_and_the_other_legs_keep_up(scifact: Path, tmp_path: Path) -> None:
    await fill(scifact, tmp_path)
    search = HybridSearch(tmp_path)
    lines = (scifact / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    queries = {query["_id"]: query["text"] for query in map(json.loads, lines)}
    gains: dict[str, list[float]] = defaultdict(list)
    took: list[float] = []
    for query, relevant in judgements(scifact).items():
        for name, legs in {"bm25": ("bm25",), "sparse": ("sparse",), "fused": LEGS}.items():
            answer = await search.answer(TENANT, SearchRequest(queries[query], 10, legs=legs, by_document=True))
            gains[name].append(ndcg(answer.hits, relevant))
        took.append(answer.took_ms)
    await search.aclose()
    scores = {name: round(sum(values) / len(values), 3) for name, values in gains.items()}
    print(f"nDCG@10 on SciFact: {scores}; half of the searches within {sorted(took)[150]:.1f} ms")
    assert len(gains["fused"]) == 300
    assert scores["bm25"] >= 0.679  # published
    assert scores["sparse"] >= scores["bm25"]
    assert scores["fused"] >= 0.679
    assert search.verify(TENANT) == []


async def fill(scifact: Path, folder: Path) -> None:
    chunker, embedding, index = SectionChunker(510), LocalEmbedding(HashingEmbedder()), EmbeddedIndex(folder)
    with gzip.open(scifact / "corpus.jsonl.gz") as lines:
        documents = [document_of(record) for record in map(json.loads, lines)]
    for start in range(0, len(documents), 32):  # as many at a time as a worker has in its window
        window = [
            (StageContext(TENANT, document.doc_id, "job", content_key=document.doc_id, revision=1), document)
            for document in documents[start : start + 32]
        ]
        batches = [(ctx, embedding.execute(ctx, chunker.execute(ctx, document))) for ctx, document in window]
        await asyncio.gather(*(index.execute(ctx, batch) for ctx, batch in batches))
    await index.aclose()


def document_of(record: dict[str, str]) -> Document:
    block = Block("b", record["text"], Provenance(record["_id"]))
    section = Section("s", ("Abstract",), (block,), SectionKind.ABSTRACT)
    doc_id = document_id(TENANT, "scifact", record["_id"])
    return Document(doc_id, "scifact", record["_id"], "article", record["title"], (section,))


def judgements(scifact: Path) -> dict[str, set[str]]:
    relevant: dict[str, set[str]] = defaultdict(set)
    with (scifact / "qrels_test.tsv").open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if int(row["score"]) > 0:
                relevant[row["query-id"]].add(row["corpus-id"])
    return relevant


def ndcg(hits: list[Hit] | tuple[Hit, ...], relevant: set[str], depth: int = 10) -> float:
    """Of documents, each at the rank of its best passage."""
    documents = list(dict.fromkeys(hit.source_id for hit in hits))[:depth]
    gain = sum(1 / math.log2(rank + 1) for rank, source_id in enumerate(documents, 1) if source_id in relevant)
    return gain / sum(1 / math.log2(rank + 1) for rank in range(1, min(len(relevant), depth) + 1))
