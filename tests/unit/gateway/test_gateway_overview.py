"""Search, graph, status, pipelines, dead letters and rejections, over HTTP."""

import json
from pathlib import Path

import pytest
from prometheus_client import Counter
from tests.unit.gateway.asking import Gateway, error_of
from tests.unit.gateway.fakes import NOON, NOON_TEXT, dead_letter, id_of

from medkg.contracts.errors import ResourceUnavailableError
from medkg.contracts.topology import Topology
from medkg.runtime.topologies import TopologyLoader
from medkg.storage.ledger_answers import FaultAnswer, PositionAnswer, Rejection

TOPOLOGIES = Path(__file__).resolve().parents[3] / "topologies"


@pytest.fixture
def auto() -> Topology:
    return TopologyLoader(TOPOLOGIES).get("auto")


async def test_a_search_gives_passages_with_their_places(gateway: Gateway) -> None:
    found = (await gateway.get("/v1/search", q="sciatica", limit=5)).json()
    assert gateway.search.asked == [("default", "sciatica", 5)]
    assert (found["query"], found["legs_missing"], found["took_ms"]) == ("sciatica", ["dense"], 1.5)
    assert found["hits"][0] == {
        "rank": 1,
        "score": 0.5,
        "chunk_id": "c1",
        "doc_id": "d1",
        "title": "A title",
        "source": "default",
        "source_id": "NCT1",
        "section_path": ["Results"],
        "text": "<b>text</b>",
        "provenance": {"record": "article.pdf", "path": "", "page": 2, "box": [1.0, 2.0, 3.0, 4.0]},
        "legs": {"bm25": 1},
        "ordinal": 0,
        "metadata": {},
        "highlights": [],
        "explanation": [],
        "rerank_score": None,
        "neighbours": [],
        "also": 0,
    }
    assert (found["hits"][1]["rank"], found["hits"][1]["provenance"]) == (2, None)


async def test_a_search_is_the_tenants_own(gateway: Gateway) -> None:
    found = (await gateway.get("/v1/search", q="x", tenant_id="other")).json()
    assert gateway.search.asked == [("other", "x", 10)]
    assert found["hits"][0]["source"] == "other"


async def test_an_index_that_cannot_be_read_now_is_503(gateway: Gateway) -> None:
    gateway.search.failure = ResourceUnavailableError("reading the index: it is being rebuilt")
    response = await gateway.get("/v1/search", q="x")
    assert (response.status_code, error_of(response)["code"]) == (503, "resource_unavailable")


async def test_the_graph_gives_an_entity_and_its_claims_with_evidence(gateway: Gateway) -> None:
    found = (await gateway.get("/v1/graph", entity="Sciatica", tenant_id="other", limit=7)).json()
    assert found["entities"][0]["documents"] == 7
    claim = found["claims"][0]
    assert claim["subject"] == {"entity_id": "e1", "type": "Condition", "name": "Sciatica"}
    assert (claim["object"], claim["value"], claim["qualifiers"]) == (None, "rest", {"phase": "2"})
    assert (claim["evidence"][0]["source"], claim["evidence"][0]["provenance"]) == ("other", {"page": 2})


@pytest.mark.parametrize(
    "path",
    [
        "/v1/search",
        "/v1/search?q=",
        "/v1/search?q=x&limit=101",
        "/v1/search?q=a%00b",
        "/v1/search?q=" + "x" * 2_001,
        "/v1/graph",
        "/v1/graph?entity=%00",
        "/v1/dead-letters?stage=%00",
        "/v1/dead-letters?code=" + "x" * 201,
        "/v1/dead-letters?tenant_id=A",
        "/v1/rejections?limit=0",
        "/v1/pipelines/UPPER",
    ],
)
async def test_a_question_that_makes_no_sense_is_422(gateway: Gateway, path: str) -> None:
    response = await gateway.get(path)
    assert (response.status_code, error_of(response)["code"]) == (422, "request_invalid")


async def test_the_status_tells_the_process_and_the_counts(gateway: Gateway) -> None:
    assert (await gateway.get("/v1/status")).json() == {
        "broker": "kafka:9092",
        "services": ["gateway", "ledger"],
        "stores": {"data": "/data"},
        "jobs": {"running": 1},
        "documents": {"completed": 2, "failed": 0},
        "waiting": [{"kind": "page", "count": 1, "oldest_since": NOON_TEXT, "detail": "room"}],
        "rejections": 3,
        "dead_letters": 4,
    }


async def test_pipelines_are_listed_with_what_is_wrong_with_others(gateway: Gateway, auto: Topology) -> None:
    gateway.pipelines.known = {"auto": auto}
    gateway.pipelines.faults = ["broken.yaml:3:1: unknown stage"]
    gateway.pipelines.gone = {"gone"}
    found = (await gateway.get("/v1/pipelines")).json()
    assert found["faults"] == ["broken.yaml:3:1: unknown stage"]
    (only,) = found["pipelines"]
    assert (only["name"], only["version"], only["digest"]) == ("auto", auto.version, auto.digest)
    assert only["stages"][:3] == ["ingest", "parse", "ir_validation"]
    assert only["applicable_sources"] == ["files", "clinicaltrials"]


async def test_a_pipeline_is_shown_as_it_is_pinned(gateway: Gateway, auto: Topology) -> None:
    gateway.pipelines.known = {"auto": auto}
    assert (await gateway.get("/v1/pipelines/auto")).json() == json.loads(auto.canonical_json)
    response = await gateway.get("/v1/pipelines/auto-matic")
    assert (response.status_code, error_of(response)["code"]) == (404, "not_found")


async def test_dead_letters_are_the_tenants_own_and_can_be_narrowed_down(gateway: Gateway) -> None:
    gateway.ledger.letters = [dead_letter(1), dead_letter(2), dead_letter(3, "other")]
    found = (await gateway.get("/v1/dead-letters")).json()["dead_letters"]
    assert [letter["id"] for letter in found] == ["medkg.parse.v1/0/1", "medkg.parse.v1/0/2"]
    assert found[0] == {
        "id": "medkg.parse.v1/0/1",
        "job_id": id_of("job", 1),
        "tenant_id": "default",
        "doc_id": "",
        "stage": "parse",
        "attempt": 1,
        "code": "c",
        "message": "m",
        "causes": ["cause"],
        "disposition": "failed",
        "worker": "w",
        "position": {"topic": "medkg.parse.v1", "partition": 0, "offset": 1},
        "at": NOON_TEXT,
        "redrive": 0,
        "worker_version": "",
        "state": "dead",
        "letter": None,
        "decided": None,
    }
    theirs = (await gateway.get("/v1/dead-letters", tenant_id="other")).json()["dead_letters"]
    assert [letter["position"]["offset"] for letter in theirs] == [3]
    assert len((await gateway.get("/v1/dead-letters", limit=1)).json()["dead_letters"]) == 1
    for query in ({"stage": "kg"}, {"code": "other"}, {"job_id": "f" * 32}):
        assert (await gateway.get("/v1/dead-letters", **query)).json() == {"dead_letters": []}


async def test_rejections_are_the_tenants_own(gateway: Gateway) -> None:
    at = PositionAnswer("medkg.jobs.v1", 0, 7)
    ours = Rejection(id_of("job", 1), "default", (FaultAnswer("/source", "unknown", "known: files"),), at, NOON)
    theirs = Rejection(id_of("job", 2), "other", (), None, NOON)
    gateway.ledger.refusals = [ours, theirs]
    assert (await gateway.get("/v1/rejections")).json() == {
        "rejections": [
            {
                "job_id": id_of("job", 1),
                "tenant_id": "default",
                "faults": [{"pointer": "/source", "message": "unknown", "hint": "known: files"}],
                "position": {"topic": "medkg.jobs.v1", "partition": 0, "offset": 7},
                "at": NOON_TEXT,
            }
        ]
    }
    found = (await gateway.get("/v1/rejections", tenant_id="other")).json()["rejections"]
    assert [(item["job_id"], item["position"]) for item in found] == [(id_of("job", 2), None)]


async def test_health_asks_nobody(gateway: Gateway) -> None:
    gateway.ledger.is_away = True
    response = await gateway.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_metrics_are_those_of_the_process(gateway: Gateway) -> None:
    Counter("medkg_tries_total", "Tries.", registry=gateway.registry).inc(3)
    response = await gateway.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "medkg_tries_total 3.0" in response.text


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs",
        f"/v1/jobs/{id_of('job', 0)}",
        f"/v1/jobs/{id_of('job', 0)}/documents",
        f"/v1/jobs/{id_of('job', 0)}/documents/{id_of('doc', 0)}",
        "/v1/status",
        "/v1/dead-letters",
        "/v1/rejections",
    ],
)
async def test_without_the_database_an_answer_is_503(gateway: Gateway, path: str) -> None:
    gateway.ledger.is_away = True
    response = await gateway.get(path)
    assert response.status_code == 503
    assert error_of(response)["message"] == "reading the ledger: the database does not answer"
