"""Dead letters over HTTP: found, looked at, sent back and dropped, each by its own tenant alone."""

import base64
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.gateway.asking import Gateway, error_of
from tests.unit.gateway.fakes import NOON, dead_letter

from medkg.contracts.errors import ContractError, ResourceUnavailableError
from medkg.runtime.outcome import DEAD_LETTER_HEADER
from medkg.runtime.records import Record
from medkg.storage.ledger_answers import LetterDecided

LETTER = dead_letter(1)
KEPT = Record("medkg.dead-letter.v1", 0, 9, b"\xff", b"\xfe{", [("ce_id", b"1"), (DEAD_LETTER_HEADER, b"{}")])


@pytest.fixture
def stocked(gateway: Gateway) -> Gateway:
    gateway.ledger.letters = [LETTER, dead_letter(2, "other")]
    gateway.desk.kept = {LETTER.id: KEPT}
    return gateway


def decision(letter_id: str = LETTER.id, **fields: Any) -> dict[str, Any]:
    return {"id": letter_id, "actor": "ann", "reason": "fixed", **fields}


async def test_letters_are_narrowed_down_by_what_is_asked(stocked: Gateway) -> None:
    query = {"state": "dead", "code": "c", "older_than_seconds": 60, "newer_than_seconds": 3600, "after": "x/0/1"}
    answer = await stocked.get("/v1/dead-letters", **query)
    assert [letter["id"] for letter in answer.json()["dead_letters"]] == [LETTER.id]
    asked = stocked.ledger.asked[0]
    assert (asked.state, asked.code, asked.following) == ("dead", "c", "x/0/1")
    assert asked.died_before is not None
    assert asked.died_after is not None
    assert (asked.died_before - asked.died_after).total_seconds() == pytest.approx(3540, abs=1)


async def test_the_message_is_given_as_it_was_byte_for_byte(stocked: Gateway) -> None:
    answer = (await stocked.get("/v1/dead-letters/message", id=LETTER.id)).json()
    assert base64.b64decode(answer["value"]) == KEPT.value
    assert base64.b64decode(answer["key"]) == KEPT.key
    assert answer["headers"] == [["ce_id", base64.b64encode(b"1").decode()]]


async def test_a_letter_is_sent_back_with_who_and_why(stocked: Gateway) -> None:
    answer = await stocked.send("POST", "/v1/dead-letters/redrive", json=decision())
    assert answer.status_code == 200
    assert answer.json() == {"id": LETTER.id, "state": "redriven", "topic": "medkg.parse.v1", "redrive": 1}
    assert stocked.desk.decided == [("redriven", LETTER.id, "ann", "fixed")]


async def test_a_letter_is_dropped_with_who_and_why(stocked: Gateway) -> None:
    answer = await stocked.send("POST", "/v1/dead-letters/drop", json=decision())
    assert answer.json()["state"] == "dropped"
    assert stocked.desk.decided == [("dropped", LETTER.id, "ann", "fixed")]


@pytest.mark.parametrize("path", ["redrive", "drop"])
async def test_what_was_decided_is_not_decided_again(stocked: Gateway, path: str) -> None:
    stocked.ledger.letters = [replace(LETTER, state="dropped", decided=LetterDecided(NOON, "ann", "old"))]
    answer = await stocked.send("POST", f"/v1/dead-letters/{path}", json=decision())
    assert answer.status_code == 409
    assert "was dropped at 2026-03-01 12:00:00 by ann" in error_of(answer)["message"]
    assert stocked.desk.decided == []


@pytest.mark.parametrize("path", ["redrive", "drop"])
async def test_the_letter_of_another_tenant_is_as_good_as_absent(stocked: Gateway, path: str) -> None:
    theirs = dead_letter(2, "other")
    answer = await stocked.send("POST", f"/v1/dead-letters/{path}", json=decision(theirs.id))
    assert answer.status_code == 404
    assert (await stocked.get("/v1/dead-letters/message", id=theirs.id)).status_code == 404
    assert stocked.desk.decided == []
    named = {"json": decision(theirs.id), "params": {"tenant_id": "other"}}
    assert (await stocked.send("POST", "/v1/dead-letters/drop", **named)).status_code == 200


async def test_a_letter_that_has_gone_from_kafka_says_so(stocked: Gateway) -> None:
    stocked.desk.kept = {}
    for answer in (
        await stocked.send("POST", "/v1/dead-letters/redrive", json=decision()),
        await stocked.get("/v1/dead-letters/message", id=LETTER.id),
    ):
        assert answer.status_code == 410
        assert error_of(answer)["code"] == "message_gone"


@pytest.mark.parametrize(
    ("failure", "status"), [(ContractError("it cannot go back"), 422), (ResourceUnavailableError("no Kafka"), 503)]
)
async def test_what_keeps_a_letter_from_going_back_is_said(
    stocked: Gateway, failure: ContractError | ResourceUnavailableError, status: int
) -> None:
    stocked.desk.failure = failure
    answer = await stocked.send("POST", "/v1/dead-letters/redrive", json=decision())
    assert (answer.status_code, error_of(answer)["message"]) == (status, failure.message)


@pytest.mark.parametrize("body", [{}, {"id": "x"}, decision(force=True), decision(reason="x" * 1_001)], ids=str)
async def test_a_decision_that_says_too_little_or_too_much_is_refused(stocked: Gateway, body: dict[str, Any]) -> None:
    assert (await stocked.send("POST", "/v1/dead-letters/redrive", json=body)).status_code == 422
