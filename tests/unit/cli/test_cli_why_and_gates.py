"""`medkg why` and `medkg gates`: why something waits on one screen, and acting on it with a reason."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import respx
from typer.testing import Result

Medkg = Callable[..., Result]
DOCUMENT = "7d" * 16
WAIT = "5be0c1d2" + "ab" * 12
OTHER = "5be0ffff" + "ab" * 12


def finding(**fields: Any) -> dict[str, Any]:
    return {
        "kind": "gate",
        "sentence": "waits at gate pdf_gate until pdf_ir_ready = true",
        "stage": "pdf_gate",
        "since": "2026-05-04T11:00:00Z",
        "freed_by": "pdf_ir_ready = true in the ledger; it goes on at chunk",
        "others": "1 more for the same file",
        "tried": ["file abc: asked for 59 min ago; it is next", "the PDF parser: 2 at work"],
        "next_action": "the document fails",
        "next_at": "2026-05-04T14:00:00Z",
        "command": "medkg gates release 5be0c1d2 --reason '…'",
        "documents": 1,
    } | fields


def why(*findings: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "subject": "document",
        "job_id": "3f" * 16,
        "doc_id": DOCUMENT,
        "source_id": "PMC1",
        "state": "in_flight",
        "stage": "pdf_gate",
        "pipeline": "pdf-two-phase 1.0",
        "findings": list(findings),
        "by_hand": ["extend at pdf_gate by ann, 2026-05-04 10:00 UTC: the parser moves"],
        "now": "2026-05-04T12:00:00Z",
    } | fields


def waiting(identity: str = WAIT, **fields: Any) -> dict[str, Any]:
    return {
        "wait_id": identity,
        "kind": "gate",
        "state": "waiting",
        "job_id": "3f" * 16,
        "doc_id": DOCUMENT,
        "stage": "pdf_gate",
        "since": "2026-05-04T11:00:00Z",
        "until": "2026-05-04T14:00:00Z",
        "waits_for": "pdf_ir_ready = true",
        "on_timeout": "fail",
        "source_id": "PMC1",
    } | fields


def test_one_screen_tells_what_since_when_what_frees_it_and_what_to_do(medkg: Medkg, gateway: respx.MockRouter) -> None:
    route = gateway.get(f"/v1/why/{DOCUMENT}").respond(json=why(finding()))
    result = medkg("why", DOCUMENT)
    assert result.exit_code == 0
    assert route.calls.last.request.url.params["tenant_id"] == "default"
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert lines == [
        "document 7d7d7d7d7d7d  in flight  PMC1  at pdf_gate  pdf-two-phase 1.0",
        "",
        "● waits at gate pdf_gate until pdf_ir_ready = true",
        "    since        1 h 00 min ago",
        "    freed by     pdf_ir_ready = true in the ledger; it goes on at chunk",
        "    also waiting 1 more for the same file",
        "    tried        file abc: asked for 59 min ago; it is next",
        "                 the PDF parser: 2 at work",
        "    next         the document fails, in 2 h 00 min",
        "    by hand      medkg gates release 5be0c1d2 --reason '…'",
        "",
        "done by hand",
        "  extend at pdf_gate by ann, 2026-05-04 10:00 UTC: the parser moves",
    ]


def test_a_job_with_many_reasons_stays_on_one_screen(medkg: Medkg, gateway: respx.MockRouter) -> None:
    many = [finding(documents=number + 2, tried=[], sentence=f"reason {number}") for number in range(20)]
    gateway.get(f"/v1/why/{DOCUMENT}").respond(json=why(*many, subject="job", by_hand=[]))
    result = medkg("why", DOCUMENT)
    assert "2 documents; of the oldest: reason 0" in result.stdout
    assert "and 8 more: --json has them all" in result.stdout
    assert "reason 12" not in result.stdout


def test_what_is_said_cannot_steer_the_terminal(medkg: Medkg, gateway: respx.MockRouter) -> None:
    gateway.get(f"/v1/why/{DOCUMENT}").respond(json=why(finding(sentence="\x1b[2Jgone\u202e", others="[red]x")))
    result = medkg("why", DOCUMENT)
    assert "\x1b[2J" not in result.stdout
    assert "\u202e" not in result.stdout
    assert "[red]x" in result.stdout


def test_with_json_the_answer_comes_as_it_is(medkg: Medkg, gateway: respx.MockRouter) -> None:
    gateway.get(f"/v1/why/{DOCUMENT}").respond(json=why(finding(), newer=1))
    result = medkg("why", DOCUMENT, "--json")
    assert json.loads(result.stdout)["newer"] == 1


def test_what_nobody_knows_is_not_found(medkg: Medkg, gateway: respx.MockRouter) -> None:
    gateway.get(f"/v1/why/{DOCUMENT}").respond(404, json={"error": {"code": "not_found", "message": "neither"}})
    assert medkg("why", DOCUMENT).exit_code == 4
    assert medkg("why", "x" * 40).exit_code == 2


def test_waits_are_listed_oldest_first_with_what_happens_then(medkg: Medkg, gateway: respx.MockRouter) -> None:
    route = gateway.get("/v1/gates").respond(json={"waits": [waiting(), waiting(OTHER, kind="retry", until=None)]})
    result = medkg("gates", "list", "--kind", "gate", "--late")
    assert result.exit_code == 0
    assert dict(route.calls.last.request.url.params) == {
        "tenant_id": "default",
        "limit": "50",
        "kind": "gate",
        "late": "true",
    }
    first = result.stdout.splitlines()[1]
    assert first.split()[:4] == ["5be0c1d2abab", "gate", "PMC1", "pdf_gate"]
    assert "then fail" in result.stdout


def test_nothing_that_waits_is_said(medkg: Medkg, gateway: respx.MockRouter) -> None:
    gateway.get("/v1/gates").respond(json={"waits": []})
    assert "nothing waits" in medkg("gates").stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("release", WAIT), {"action": "release", "wait_ids": [WAIT]}),
        (("fail", "5be0c1d2"), {"action": "fail", "wait_ids": [WAIT]}),
        (("extend", WAIT, "--by", "2d"), {"action": "extend", "wait_ids": [WAIT], "seconds": 172_800.0}),
        (("extend", "--job", "3f" * 16, "--stage", "pdf_gate"), {"job_id": "3f" * 16, "stage": "pdf_gate"}),
    ],
)
def test_a_decision_goes_to_the_gateway_with_who_and_why(
    medkg: Medkg, gateway: respx.MockRouter, words: tuple[str, ...], expected: dict[str, Any]
) -> None:
    gateway.get("/v1/gates").respond(json={"waits": [waiting(), waiting(OTHER)]})
    answer = {"action": words[0], "decided": [{"wait_id": WAIT, "job_id": "3f" * 16}]}
    route = gateway.post("/v1/gates/decisions").respond(json=answer)
    result = medkg("gates", *words, "--reason", "the parser was down")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("✓ 1 wait ")
    sent = json.loads(route.calls.last.request.content)
    assert sent | expected == sent
    assert sent["reason"] == "the parser was down"
    assert sent["actor"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("release", WAIT), 2, "say why"),
        (("fail", "--reason", "x"), 2, "name what to fail"),
        (("extend", WAIT, "--by", "soon", "--reason", "x"), 2, "is no time"),
        (("release", "5be0", "--reason", "x"), 2, "2 waits begin with"),
        (("release", "ffff", "--reason", "x"), 4, "nothing that waits"),
    ],
)
def test_a_decision_that_is_not_clear_is_refused(
    medkg: Medkg, gateway: respx.MockRouter, words: tuple[str, ...], code: int, says: str
) -> None:
    gateway.get("/v1/gates").respond(json={"waits": [waiting(), waiting(OTHER)]})
    result = medkg("gates", *words)
    assert result.exit_code == code
    assert says in result.stderr
