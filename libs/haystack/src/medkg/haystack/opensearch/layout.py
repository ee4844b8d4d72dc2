"""How documents, passages and the facts of an index are written as documents of OpenSearch. Pure."""

import base64
import hashlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from medkg.haystack.opensearch.bulk import Action
from medkg.haystack.writes import DocumentWrite, Stored

FACTS_ID: Final = "facts"
HEAD, PASSAGE, FACTS = "head", "passage", "facts"
_MAX_FEATURES = 1_000  # of a passage
_SMALLEST_WEIGHT = 1e-30  # a rank feature must be a normal, positive float32


@dataclass(frozen=True, slots=True)
class Head:
    """The visible state of a document: which write of it readers see. Written in one step, and only over the head
    that was read before (``seq_no``, ``primary_term``; None where there was none)."""

    stored: Stored
    write_id: str
    passages: int
    seq_no: int | None = None
    primary_term: int | None = None


def write_id_of(write: DocumentWrite) -> str:
    """Names one run's write of a document: the same on a redelivery, another for whatever else is written.

    Not the generation: a later job may bring back an older content, while the passages of the former are removed.
    """
    parts = (write.doc_id, write.generation, str(write.revision), write.job)
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest.hexdigest()


def head_id(doc_id: str) -> str:
    """Bounded, as ids of OpenSearch are, and never that of a passage."""
    return "h" + hashlib.blake2b(doc_id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def passage_id(write_id: str, row: int) -> str:
    return f"p{write_id}-{row}"


def head_action(write: DocumentWrite, write_id: str, over: Head | None) -> Action:
    """The switch: after it readers see ``write_id`` of the document, and nothing else of it."""
    body = {
        "kind": HEAD,
        "doc_id": write.doc_id,
        "write_id": write_id,
        "generation": write.generation,
        "revision": write.revision,
        "job": write.job,
        "passages": len(write.rows),
    }
    return _over(write.doc_id, body, over)


def later_head_action(doc_id: str, head: Head, revision: int) -> Action:
    """The same passages, now also those of a later revision."""
    body = {
        "kind": HEAD,
        "doc_id": doc_id,
        "write_id": head.write_id,
        "generation": head.stored.generation,
        "revision": revision,
        "job": head.stored.job,
        "passages": head.passages,
    }
    return _over(doc_id, body, head)


def passage_actions(write: DocumentWrite, write_id: str, now_ms: int, *, with_vectors: bool) -> list[Action]:
    """The passages of a write. Nobody sees them before the switch."""
    shared: dict[str, Any] = {
        "kind": PASSAGE,
        "doc_id": write.doc_id,
        "write_id": write_id,
        "generation": write.generation,
        "written_at": now_ms,
        "source": write.facets.source,
        "conditions": write.facets.conditions,
        "phases": write.facets.phases,
        "retracted": write.facets.retracted,
    }
    if write.facets.year is not None:
        shared["year"] = write.facets.year
    actions = []
    for number, row in enumerate(write.rows):
        body = shared | {
            "row": number,
            "ordinal": row.ordinal,
            "headings": row.headings,
            "title": row.title,
            "section": row.section,
            "text": row.text,
            "chunk": base64.b64encode(row.chunk).decode(),
        }
        features = [(term, weight) for term, weight in row.postings if term and weight > _SMALLEST_WEIGHT]
        if features:
            heaviest = sorted(features, key=lambda pair: (-pair[1], pair[0]))[:_MAX_FEATURES]
            body["sparse"] = dict(heaviest)
        if with_vectors:
            body["vector"] = np.frombuffer(row.vector, dtype="<f4").tolist()
        actions.append(Action("index", passage_id(write_id, number), write.doc_id, body))
    return actions


def removal_actions(doc_id: str, write_id: str, passages: int) -> list[Action]:
    return [Action("delete", passage_id(write_id, number), doc_id) for number in range(passages)]


def head_of(answer: dict[str, Any]) -> Head | None:
    """The head in an answer to a realtime get."""
    if not answer.get("found"):
        return None
    source = answer["_source"]
    stored = Stored(source["generation"], source["revision"], source["job"])
    return Head(stored, source["write_id"], source["passages"], answer["_seq_no"], answer["_primary_term"])


def _over(doc_id: str, body: dict[str, Any], over: Head | None) -> Action:
    if over is None:
        return Action("create", head_id(doc_id), doc_id, body)
    return Action("index", head_id(doc_id), doc_id, body, over.seq_no, over.primary_term)
