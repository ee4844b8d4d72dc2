"""What is decided without a server: names, questions, bulk answers, what failures mean, and what is left over."""

import asyncio
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opensearchpy.exceptions import ConnectionError as NotConnected
from opensearchpy.exceptions import OpenSearchException, RequestError, TransportError

from medkg.contracts.document import WriteOutcome
from medkg.contracts.errors import ConfigurationError, ContractError, ResourceUnavailableError
from medkg.haystack.grouping import GroupCommit, Outcome
from medkg.haystack.opensearch import layout, queries
from medkg.haystack.opensearch.bulk import Action, send
from medkg.haystack.opensearch.client import Connection, translate
from medkg.haystack.opensearch.names import IndexNames
from medkg.haystack.opensearch.upkeep import KnownHead, StoredWrite, compare
from medkg.haystack.stores import NO_FILTERS, FieldWeights, Filters
from medkg.haystack.writes import DocumentWrite

KEY = b"0123456789abcdef"
TENANTS = st.text(min_size=1, max_size=200)
INDEXES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)


@given(TENANTS, TENANTS, INDEXES, INDEXES)
def test_names_of_indexes_are_safe_and_no_two_tenants_share_one(a: str, b: str, index_a: str, index_b: str) -> None:
    names = IndexNames(KEY)
    first, second = names.alias(a, index_a), names.alias(b, index_b)
    assert re.fullmatch(r"medkg-[0-9a-f]{40}", first)
    assert (first == second) == ((a, index_a) == (b, index_b))
    # without the key nobody can say which index it is
    assert first != IndexNames(b"another key of 16").alias(a, index_a)


@pytest.mark.parametrize(("tenant", "index"), [("", "passages"), ("x" * 1_001, "passages"), ("t", "A"), ("t", "a,b")])
def test_names_that_cannot_be_are_refused(tenant: str, index: str) -> None:
    with pytest.raises(ConfigurationError):
        IndexNames(KEY).alias(tenant, index)


def test_a_short_key_and_a_wild_prefix_are_refused_and_the_key_never_shows() -> None:
    with pytest.raises(ConfigurationError, match="MEDKG_OPENSEARCH_INDEX_KEY"):
        IndexNames(b"short")
    for prefix in ("", "*", "a-b", "A", "_all"):
        with pytest.raises(ConfigurationError, match="prefix"):
            IndexNames(KEY, prefix)
    assert KEY.decode() not in repr(IndexNames(KEY))
    assert "secret" not in repr(Connection(user="me", password="secret"))


@given(st.text(max_size=300), st.text(max_size=40))
def test_whatever_people_type_is_a_value_in_a_question(query: str, value: str) -> None:
    asked = json.loads(json.dumps(queries.lexical(query, Filters(sources=(value,)), FieldWeights())))
    if asked == {"match_none": {}}:
        return
    assert set(asked) == {"bool"}
    assert all(set(clause) == {"match"} for clause in asked["bool"]["should"])
    assert {"terms": {"source": [value]}} in asked["bool"]["filter"]


def test_a_sparse_question_keeps_the_heaviest_positive_weights_and_is_bounded() -> None:
    asked = queries.sparse({f"t{n}": float(n) for n in range(-5, 1_000)}, Filters())
    legs = [leg["rank_feature"] for leg in asked["bool"]["should"]]
    assert len(legs) == 256
    assert (legs[0]["field"], legs[0]["boost"]) == ("sparse.t999", 999.0)
    assert queries.sparse({"a": 0.0, "b": -1.0, "": 2.0, "c": float("inf")}, Filters()) == {"match_none": {}}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NotConnected("N/A", "refused", Exception("refused")), ResourceUnavailableError),
        (TransportError(503, "busy", {}), ResourceUnavailableError),
        (TransportError(429, "rejected", {}), ResourceUnavailableError),
        (TransportError(403, "cluster_block_exception", {"error": {"reason": "blocked"}}), ResourceUnavailableError),
        (TransportError(403, "security_exception", {}), ConfigurationError),
        (TransportError(401, "", {}), ConfigurationError),
        (RequestError(400, "mapper_parsing_exception", {"error": {"reason": "no"}}), ContractError),
    ],
)
def test_a_failure_says_whether_a_retry_can_help(error: OpenSearchException, expected: type[Exception]) -> None:
    assert type(translate("writing", error)) is expected


class Answering:
    """Stands in for the client's bulk call."""

    def __init__(self, items: list[dict[str, Any]]) -> None:
        self.items = items
        self.bodies: list[bytes] = []

    async def bulk(self, *, body: bytes, index: str, params: dict[str, str]) -> dict[str, Any]:
        self.bodies.append(body)
        count = sum(line.startswith((b'{"index"', b'{"create"', b'{"delete"')) for line in body.splitlines())
        taken, self.items = self.items[:count], self.items[count:]
        return {"items": taken}


async def test_every_item_of_a_bulk_answer_is_sorted_on_its_own() -> None:
    refused = {"status": 400, "error": {"type": "mapper_parsing_exception", "reason": "bad"}}
    busy = {"status": 429, "error": {"type": "rejected_execution_exception", "reason": "full"}}
    items: list[dict[str, Any]] = [
        {"index": {"status": 201}},
        {"index": refused},
        {"create": {"status": 409, "error": {"type": "version_conflict_engine_exception", "reason": ""}}},
        {"index": busy},
        {"delete": {"status": 404}},
    ]
    client = Answering(items)
    actions = [
        Action("index", "a", "r", {"text": "x" * 5_000_000}),
        Action("index", "b", "r", {"text": "x" * 5_000_000}),
        Action("create", "c", "r", {}, None, None),
        Action("index", "d", "r", {}, seq_no=4, primary_term=1),
        Action("delete", "e", "r"),
    ]
    results = await send(client, "index", actions, doing="writing")  # type: ignore[arg-type]  # all of it that is used
    assert len(client.bodies) == 2  # no request grows beyond what a server takes
    assert b'"if_seq_no":4,"if_primary_term":1' in client.bodies[1]
    assert [result.is_conflict for result in results] == [False, False, True, False, False]
    assert isinstance(results[1].error, ContractError)
    assert isinstance(results[3].error, ResourceUnavailableError)
    assert results[0].error is results[2].error is results[4].error is None


def test_what_no_head_names_is_left_over_once_no_writer_can_come_for_it() -> None:
    now = 10_000.0
    heads = [KnownHead("a", "w1", 2), KnownHead("b", "w2", 3), KnownHead("gone", "w3", 0)]
    stored = [
        StoredWrite("a", "w1", 2, 0.0),
        StoredWrite("b", "w2", 1, 0.0),
        StoredWrite("a", "old", 4, now - 601),
        StoredWrite("a", "new", 4, now - 599),
    ]
    compared = compare(heads, stored, now - 600)
    assert compared.broken == ("document b: 1 of 3 passages are there",)
    assert [write.write_id for write in compared.leftover] == ["old"]


def test_a_write_has_a_name_of_its_own_and_keeps_it_when_it_is_delivered_again() -> None:
    def write(generation: str = "g", revision: int = 1, job: str = "j") -> DocumentWrite:
        return DocumentWrite("d", generation, revision, job, "m", 1, "", ())

    assert layout.write_id_of(write()) == layout.write_id_of(write())
    others = [write("h"), write(revision=2), write(job="k"), write("g1", job=""), write("g", job="1")]
    assert len({layout.write_id_of(other) for other in [write(), *others]}) == 6


async def test_a_document_is_in_one_commit_at_a_time_and_nobody_is_left_waiting() -> None:
    at_work: set[str] = set()
    sizes: list[int] = []

    async def commit(writes: Any) -> list[Outcome]:
        names = {write.doc_id for write in writes}
        assert not names & at_work
        at_work.update(names)
        sizes.append(len(writes))
        await asyncio.sleep(0)
        at_work.difference_update(names)
        return [WriteOutcome.WRITTEN] * len(writes)

    group = GroupCommit(commit, lanes=3)
    writes = [DocumentWrite(f"d{n % 7}", "g", n, "j", "m", 1, "", ()) for n in range(200)]
    for start in range(0, 200, 10):
        await asyncio.wait_for(asyncio.gather(*(group.write(write) for write in writes[start : start + 10])), 5)
    assert sum(sizes) == 200
    await group.drain()
    assert group.is_idle


def test_the_further_weight_of_a_title_counts_less_than_the_words_of_both() -> None:
    def boosts(weights: FieldWeights) -> dict[str, float]:
        legs = queries.lexical("asthma", NO_FILTERS, weights)["bool"]["should"]
        return {name: match["boost"] for leg in legs for name, match in leg["match"].items()}

    assert boosts(FieldWeights(title=2, section=0, text=1)) == {"words": 1, "title": pytest.approx(0.2)}
    assert boosts(FieldWeights(title=0, section=0, text=2)) == {"text": 2}
