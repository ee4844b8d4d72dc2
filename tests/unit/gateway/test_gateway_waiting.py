"""Waits and decisions about them, over HTTP."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.unit.gateway.asking import Gateway, error_of
from tests.unit.gateway.fakes import NOON, NOON_TEXT, id_of, job

from medkg.gateway.explaining import Flow
from medkg.storage.operators import Action, Decided
from medkg.storage.waits_reader import Company, DocumentPlace, WaitEntry


def entry(**fields: Any) -> WaitEntry:
    given: dict[str, Any] = {
        "wait_id": id_of("wait", 1),
        "kind": "gate",
        "state": "waiting",
        "job_id": id_of("job", 1),
        "doc_id": id_of("doc", 1),
        "stage": "pdf_gate",
        "since": NOON,
        "until": NOON,
        "waits_for": "pdf_ir_ready = true",
        "on_timeout": "fail",
        "resume_stage": "chunk",
        "arrived_from": "",
        "needed": 1,
        "attempt": 1,
        "file_sha256": "",
        "asked_at": None,
        "late_at": None,
        "reason": "",
    }
    return WaitEntry(**given | fields)


@dataclass
class FakeWaits:
    """The waits of one tenant."""

    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def listed(self, tenant_id: str, **asked: Any) -> list[WaitEntry]:
        self.asked.append((tenant_id, asked))
        return [entry()] if tenant_id == "default" else []

    async def places(self, tenant_id: str, doc_id: str) -> list[DocumentPlace]:
        return []

    async def oldest_of_job(self, tenant_id: str, job_id: str) -> list[tuple[WaitEntry, int]]:
        return [(entry(), 2)]

    async def under_way(self, tenant_id: str, job_id: str) -> list[Any]:
        return []

    async def company(self, waiting: WaitEntry, tenant_id: str) -> Company:
        return Company(0, 1, 0)


@dataclass
class FakeDesk:
    waits: Any = field(default_factory=FakeWaits)
    decided: list[tuple[str, Action, dict[str, Any]]] = field(default_factory=list)

    async def flow(self, topic: str) -> Flow:
        return Flow(topic, "medkg-mineru", 0, 1)

    async def decide(self, tenant_id: str, action: Action, **about: Any) -> list[Decided]:
        self.decided.append((tenant_id, action, about))
        if action is Action.EXTEND and not about["seconds"]:
            raise ValueError("extending a wait: 0 s is not between 0 and 30 days")
        found = Decided(id_of("wait", 1), id_of("job", 1), id_of("doc", 1), "pdf_gate", NOON)
        return [found] if tenant_id == "default" else []


@pytest.fixture
def desk(gateway: Gateway) -> FakeDesk:
    made = FakeDesk()
    gateway.settings["waiting"] = made
    return made


async def test_waits_are_listed_for_their_tenant(gateway: Gateway, desk: FakeDesk) -> None:
    found = (await gateway.get("/v1/gates", kind="gate", late="true", limit=5)).json()
    assert found["waits"][0]["waits_for"] == "pdf_ir_ready = true"
    assert found["waits"][0]["until"] == NOON_TEXT
    assert desk.waits.asked == [("default", {"job_id": "", "stage": "", "kind": "gate", "late": True, "limit": 5})]
    assert (await gateway.get("/v1/gates", tenant_id="other")).json() == {"waits": []}


async def test_a_decision_is_made_in_the_name_of_a_tenant_with_a_reason(gateway: Gateway, desk: FakeDesk) -> None:
    body = {"action": "release", "actor": "ann", "reason": "enough", "wait_ids": [id_of("wait", 1)]}
    answered = await gateway.send("POST", "/v1/gates/decisions", json=body)
    assert (answered.status_code, answered.json()["decided"][0]["doc_id"]) == (200, id_of("doc", 1))
    tenant, action, about = desk.decided[0]
    assert (tenant, action, about["who"], about["why"]) == ("default", Action.RELEASE, "ann", "enough")
    theirs = await gateway.send("POST", "/v1/gates/decisions", params={"tenant_id": "other"}, json=body)
    assert (theirs.status_code, error_of(theirs)["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"action": "burn", "actor": "ann", "reason": "x"},
        {"action": "fail", "actor": "", "reason": "x"},
        {"action": "fail", "actor": "ann", "reason": ""},
        {"action": "fail", "actor": "ann", "reason": "x" * 1_001},
        {"action": "fail", "actor": "ann", "reason": "x", "wait_ids": ["'; DROP TABLE waits"]},
        {"action": "fail", "actor": "ann", "reason": "x", "more": 1},
        {"action": "extend", "actor": "ann", "reason": "x", "job_id": "3f" * 16},
        {"action": "extend", "actor": "ann", "reason": "x", "seconds": 1e12},
    ],
)
async def test_a_decision_that_makes_no_sense_is_422(gateway: Gateway, desk: FakeDesk, body: dict[str, Any]) -> None:
    answered = await gateway.send("POST", "/v1/gates/decisions", json=body)
    assert (answered.status_code, error_of(answered)["code"]) == (422, "request_invalid")


async def test_why_a_job_waits_is_told(gateway: Gateway, desk: FakeDesk) -> None:
    gateway.ledger.jobs_of = {"default": [job(1)]}
    found = (await gateway.get(f"/v1/why/{id_of('job', 1)}")).json()
    assert (found["subject"], found["state"], found["pipeline"]) == ("job", "running", "auto 1.0")
    first = found["findings"][0]
    assert (first["kind"], first["documents"]) == ("gate", 2)
    assert found["findings"][-1]["sentence"] == "1 document failed"


async def test_what_nobody_knows_has_no_reason(gateway: Gateway, desk: FakeDesk) -> None:
    answered = await gateway.get(f"/v1/why/{'0' * 32}")
    assert (answered.status_code, error_of(answered)["code"]) == (404, "not_found")
    assert (await gateway.get("/v1/why/../etc")).status_code in {404, 422}
    assert (await gateway.get("/v1/why/xyz")).status_code == 422
