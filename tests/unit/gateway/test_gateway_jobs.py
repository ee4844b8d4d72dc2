"""Submitting jobs and following them, over HTTP."""

import json
from typing import Any

import pytest
from tests.unit.gateway.asking import Gateway, error_of
from tests.unit.gateway.fakes import NOON_TEXT, document, id_of, job

from medkg.contracts.ids import job_id_of
from medkg.storage.ledger_answers import FaultAnswer

SUBMISSION = {"tenant_id": "default", "source": "files", "selection": {"paths": ["/data"]}}


async def test_a_submitted_job_is_published_and_its_admission_told(gateway: Gateway) -> None:
    gateway.ledger.looks_before_word = 2
    response = await gateway.submit(SUBMISSION)
    (published, event_id), *others = gateway.kafka.taken
    assert not others
    assert json.loads(published) == SUBMISSION
    assert response.status_code == 202
    assert response.json() == {"job_id": job_id_of("medkg-gateway", event_id), "state": "admitted"}


@pytest.mark.parametrize("state", ["running", "completed", "completed_with_failures"])
async def test_a_job_that_was_quick_was_admitted(gateway: Gateway, state: str) -> None:
    gateway.ledger.word = (state, ())
    assert (await gateway.submit(SUBMISSION)).json()["state"] == "admitted"


async def test_without_a_word_of_the_router_in_time_a_job_is_submitted(gateway: Gateway) -> None:
    gateway.ledger.word = None
    response = await gateway.submit(SUBMISSION)
    assert (response.status_code, response.json()["state"]) == (202, "submitted")


async def test_a_ledger_that_is_away_is_no_failure_of_a_job_that_was_taken(gateway: Gateway) -> None:
    gateway.ledger.is_away = True
    response = await gateway.submit(SUBMISSION)
    assert (response.status_code, response.json()["state"]) == (202, "submitted")
    assert gateway.ledger.looks > 1


async def test_a_job_that_the_router_rejects_comes_back_with_its_faults(gateway: Gateway) -> None:
    gateway.ledger.word = ("rejected", (FaultAnswer("/pipeline", "there is no such pipeline", "known: auto"),))
    response = await gateway.submit(SUBMISSION)
    error = error_of(response)
    assert response.status_code == 422
    assert error["code"] == "job_rejected"
    assert error["job_id"] == job_id_of("medkg-gateway", gateway.kafka.taken[0][1])
    assert error["faults"] == [{"pointer": "/pipeline", "message": "there is no such pipeline", "hint": "known: auto"}]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, {"/tenant_id", "/source", "/selection"}),
        (SUBMISSION | {"tenant_id": "No!", "extra": 1}, {"/tenant_id", "/extra"}),
        (SUBMISSION | {"source": "clinicaltrial"}, {"/source"}),
        (SUBMISSION | {"selection": {"paths": ["a\x00b"]}}, {"/selection/paths/0"}),
        ([], {""}),
    ],
)
async def test_every_fault_is_named_and_nothing_is_published(gateway: Gateway, body: Any, pointers: set[str]) -> None:
    response = await gateway.submit(body)
    assert response.status_code == 422
    assert {fault["pointer"] for fault in error_of(response)["faults"]} == pointers
    assert gateway.kafka.taken == []


@pytest.mark.parametrize("body", [b"", b"\xff", b"{", b"[" * 100_000, b'{"tenant_id": NaN}'])
async def test_what_is_no_json_is_a_fault_too(gateway: Gateway, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = await gateway.send("POST", "/v1/jobs", content=body, headers=headers)
    assert response.status_code == 422
    assert error_of(response)["faults"]
    assert gateway.kafka.taken == []


async def test_the_same_idempotency_key_is_the_same_job(gateway: Gateway) -> None:
    answers = [await gateway.submit(SUBMISSION, idempotency_key=key) for key in ("mine", "mine", "other")]
    ids = [answer.json()["job_id"] for answer in answers]
    assert ids[0] == ids[1] == job_id_of("medkg-gateway", f"{SUBMISSION['tenant_id']}/mine")
    assert ids[2] != ids[0]


async def test_the_keys_of_one_tenant_are_nobody_elses(gateway: Gateway) -> None:
    tenants = [SUBMISSION, SUBMISSION | {"tenant_id": "another"}]
    answers = [await gateway.submit(submission, idempotency_key="mine") for submission in tenants]
    assert len({answer.json()["job_id"] for answer in answers}) == 2


async def test_without_an_idempotency_key_every_submission_is_a_job_of_its_own(gateway: Gateway) -> None:
    ids = {(await gateway.submit(SUBMISSION)).json()["job_id"] for _ in range(3)}
    ids.add((await gateway.submit(SUBMISSION, idempotency_key="")).json()["job_id"])
    assert len(ids) == 4


@pytest.mark.parametrize("key", ["x" * 201, "tab\there", "caf\xe9"])
async def test_a_key_that_no_event_can_have_as_its_id_is_refused(gateway: Gateway, key: str) -> None:
    headers = {"idempotency-key": key.encode("latin-1")}
    response = await gateway.send("POST", "/v1/jobs", json=SUBMISSION, headers=headers)
    assert response.status_code == 422
    assert error_of(response)["faults"][0]["pointer"] == "/header/idempotency-key"
    assert gateway.kafka.taken == []


async def test_without_kafka_a_submission_is_503(gateway: Gateway) -> None:
    gateway.kafka.is_away = True
    response = await gateway.submit(SUBMISSION)
    error = error_of(response)
    assert (response.status_code, error["code"]) == (503, "resource_unavailable")
    assert error["hint"]


async def test_jobs_are_listed_newest_first_in_pages(gateway: Gateway) -> None:
    gateway.ledger.jobs_of = {"default": [job(3), job(2), job(1)], "other": [job(9, "other")]}
    first = (await gateway.get("/v1/jobs", limit=2)).json()
    second = (await gateway.get("/v1/jobs", limit=2, before=first["next"])).json()
    assert [item["job_id"] for item in first["jobs"]] == [id_of("job", 3), id_of("job", 2)]
    assert [item["job_id"] for item in second["jobs"]] == [id_of("job", 1)]
    assert second["next"] is None
    assert [item["job_id"] for item in (await gateway.get("/v1/jobs", tenant_id="other")).json()["jobs"]] == [
        id_of("job", 9)
    ]


async def test_a_job_is_shown_whole(gateway: Gateway) -> None:
    gateway.ledger.jobs_of = {"default": [job(0)]}
    response = await gateway.get(f"/v1/jobs/{id_of('job', 0)}")
    assert response.json() == {
        "job_id": id_of("job", 0),
        "tenant_id": "default",
        "source": "files",
        "state": "running",
        "pipeline": {"name": "auto", "version": "1.0", "digest": "d" * 64},
        "admitted_at": NOON_TEXT,
        "finished_at": None,
        "selection": {"paths": ["/data"]},
        "counts": {"documents": 3, "completed": 1, "skipped": 0, "failed": 1, "rejected": 0, "in_flight": 1},
        "pages": {"done": 1, "last_seen": True, "total_records": 3},
        "stages": [
            {
                "stage": "parse",
                "started": 3,
                "completed": 2,
                "failed": 1,
                "retrying": 0,
                "reused": 0,
                "mean_ms": 1.25,
            }
        ],
        "waiting": [{"kind": "gate", "count": 1, "oldest_since": NOON_TEXT, "detail": "pdf_gate: pdf_ir_ready = true"}],
        "faults": [],
        "failures": [{"code": "gpu_unavailable", "stage": "parse", "count": 1, "remedy": "run it where a GPU is"}],
    }


async def test_documents_are_listed_in_pages_and_by_state(gateway: Gateway) -> None:
    gateway.ledger.jobs_of = {"default": [job(0)]}
    gateway.ledger.documents_of = {id_of("job", 0): [document(n) for n in range(3)]}
    path = f"/v1/jobs/{id_of('job', 0)}/documents"
    first = (await gateway.get(path, limit=2)).json()
    second = (await gateway.get(path, limit=2, after=first["next"])).json()
    shown = [item["doc_id"] for item in first["documents"] + second["documents"]]
    assert shown == sorted(id_of("doc", n) for n in range(3))
    assert second["next"] is None
    assert (await gateway.get(path, state="completed")).json() == {"documents": [], "next": None}
    assert (await gateway.get(path, state="expected")).status_code == 422


async def test_a_document_is_shown_with_its_timeline(gateway: Gateway) -> None:
    gateway.ledger.jobs_of = {"default": [job(0)]}
    gateway.ledger.documents_of = {id_of("job", 0): [document(1)]}
    found = (await gateway.get(f"/v1/jobs/{id_of('job', 0)}/documents/{id_of('doc', 1)}")).json()
    failure = {"stage": "parse", "code": "payload_malformed", "message": "not XML"}
    assert found["failure"] == failure
    assert found["timeline"] == [
        {
            "stage": "parse",
            "state": "failed",
            "attempt": 1,
            "started_at": NOON_TEXT,
            "finished_at": NOON_TEXT,
            "duration_ms": 1.5,
            "reused": False,
            "worker": "worker-1",
            "failure": failure,
            "redrive": 0,
        }
    ]


async def test_what_is_not_there_and_what_is_anothers_look_alike(gateway: Gateway) -> None:
    gateway.ledger.jobs_of = {"other": [job(0, "other")]}
    gateway.ledger.documents_of = {id_of("job", 0): [document(1)]}
    theirs, nobodys = id_of("job", 0), id_of("job", 99)
    for path in ("/v1/jobs/{}", "/v1/jobs/{}/documents", f"/v1/jobs/{{}}/documents/{id_of('doc', 1)}"):
        answers = [await gateway.get(path.format(job_id)) for job_id in (theirs, nobodys)]
        assert [answer.status_code for answer in answers] == [404, 404]
        told = [error_of(answer)["message"].replace(theirs, "").replace(nobodys, "") for answer in answers]
        assert told[0] == told[1]
        assert (await gateway.get(path.format(theirs), tenant_id="other")).status_code == 200


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v1/jobs", {"tenant_id": "../etc"}),
        ("/v1/jobs", {"tenant_id": ""}),
        ("/v1/jobs", {"limit": 0}),
        ("/v1/jobs", {"limit": 1_001}),
        ("/v1/jobs", {"limit": "many"}),
        ("/v1/jobs", {"before": "'; --"}),
        ("/v1/jobs/not-an-id", {}),
        ("/v1/jobs/" + "0" * 33, {}),
        (f"/v1/jobs/{id_of('job', 0)}/documents", {"after": "x" * 65}),
        (f"/v1/jobs/{id_of('job', 0)}/documents/%00", {}),
    ],
)
async def test_a_question_that_makes_no_sense_is_422(gateway: Gateway, path: str, query: dict[str, Any]) -> None:
    response = await gateway.get(path, **query)
    assert response.status_code == 422
    assert error_of(response)["faults"]
    assert gateway.ledger.looks == 0
