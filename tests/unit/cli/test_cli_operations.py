"""`medkg status`, `version`, `dead-letters`, `rejections`: what runs and what went wrong."""

import json
from collections.abc import Callable
from typing import Any

import respx
from typer.testing import Result

Medkg = Callable[..., Result]
Job = Callable[..., dict[str, Any]]
JOB_ID = "3f0c2a91d4e85b6677aa0102030405ff"

LETTER = {
    "id": 42,
    "job_id": JOB_ID,
    "tenant_id": "default",
    "doc_id": "d" * 32,
    "stage": "parse",
    "attempt": 1,
    "code": "payload_malformed",
    "message": "parsing [x]: not XML",
    "causes": ["XMLSyntaxError: line 1"],
    "disposition": "rejected",
    "worker": "host-1",
    "position": {"topic": "medkg.parse.v1", "partition": 2, "offset": 118},
    "at": "2026-05-04T11:55:00Z",
}


def test_status_shows_the_fleet_its_work_and_its_troubles(medkg: Medkg, gateway: respx.MockRouter) -> None:
    answer = {
        "broker": "127.0.0.1:9092",
        "services": ["ingest", "parse", {"name": "embed", "backend": "hashing"}],
        "jobs": {"running": 1, "completed": 2},
        "documents": {"in_flight": 0, "completed": 12_345},
        "waiting": [{"kind": "retry", "count": 1, "oldest_since": None, "detail": None}],
        "rejections": 0,
        "dead_letters": 2,
        "stores": {"index": {"backend": "sqlite", "passages": 10}},
    }
    gateway.get("/v1/status").respond(json=answer)
    result = medkg("status")
    assert result.exit_code == 0
    lines = {line.partition("  ")[0]: line for line in result.stdout.splitlines()}
    assert "ingest, parse" in lines["services"]
    assert "embed  backend hashing" in result.stdout
    assert "12,345 completed" in lines["documents"]
    assert "in flight" not in lines["documents"]
    assert "1 retry" in lines["waiting"]
    assert "none" in lines["rejections"]
    assert "2  medkg dead-letters" in lines["dead letters"]
    assert json.loads(medkg("status", "--json").stdout) == answer


def test_version_needs_no_fleet(medkg: Medkg) -> None:
    assert medkg("version").stdout.startswith("medkg ")
    assert set(json.loads(medkg("version", "--json").stdout)) == {"medkg", "python"}


def test_dead_letters_are_listed_with_the_reason(medkg: Medkg, gateway: respx.MockRouter) -> None:
    gateway.get("/v1/dead-letters").respond(json={"dead_letters": [LETTER]})
    result = medkg("dead-letters")
    assert result.exit_code == 0
    assert "42  payload_malformed at parse  document dddddddddddd  5 min 00 s ago" in result.stdout
    assert "parsing [x]: not XML" in result.stdout


def test_dead_letters_can_be_narrowed_down(medkg: Medkg, gateway: respx.MockRouter, job: Job) -> None:
    gateway.get("/v1/jobs").respond(json={"jobs": [job()], "next": None})
    route = gateway.get("/v1/dead-letters").respond(json={"dead_letters": []})
    result = medkg("dead-letters", "list", "--job", "3f0c", "--stage", "parse", "--code", "stage_timeout")
    assert "no dead letters that match" in result.stdout
    params = dict(route.calls.last.request.url.params)
    narrowed = {"job_id": JOB_ID, "stage": "parse", "code": "stage_timeout"}
    assert params == narrowed | {"tenant_id": "default", "limit": "50", "state": "dead"}


def test_a_dead_letter_is_shown_with_its_causes_and_its_place_in_kafka(medkg: Medkg, gateway: respx.MockRouter) -> None:
    gateway.get("/v1/dead-letters", params={"id": "42"}).respond(json={"dead_letters": [LETTER]})
    result = medkg("dead-letters", "show", "42")
    assert result.exit_code == 0
    assert "because XMLSyntaxError: line 1" in result.stdout
    assert "medkg.parse.v1[2] @ 118" in result.stdout
    assert json.loads(medkg("dead-letters", "show", "42", "--json").stdout) == LETTER


def test_an_unknown_dead_letter_is_not_found(medkg: Medkg, gateway: respx.MockRouter) -> None:
    gateway.get("/v1/dead-letters").respond(json={"dead_letters": []})
    assert medkg("dead-letters", "show", "43").exit_code == 4


def test_dead_letters_json_works_with_and_without_list(medkg: Medkg, gateway: respx.MockRouter) -> None:
    gateway.get("/v1/dead-letters").respond(json={"dead_letters": [LETTER]})
    for arguments in (("dead-letters", "--json"), ("dead-letters", "list", "--json")):
        assert json.loads(medkg(*arguments).stdout) == {"dead_letters": [LETTER]}


def test_rejections_show_every_fault(medkg: Medkg, gateway: respx.MockRouter) -> None:
    faults = [
        {"pointer": "/source", "message": "unknown source 'x'", "hint": "known: files"},
        {"pointer": "", "message": "nested deeper than 16 levels"},
    ]
    rejection = {"job_id": JOB_ID, "tenant_id": "", "faults": faults, "position": None, "at": "2026-05-04T11:59:30Z"}
    answer = {"rejections": [rejection]}
    gateway.get("/v1/rejections").respond(json=answer)
    result = medkg("rejections")
    assert f"job {JOB_ID}  30 s ago" in result.stdout
    assert "/source  unknown source 'x'  (known: files)" in result.stdout
    assert "/  nested deeper than 16 levels" in result.stdout
    assert json.loads(medkg("rejections", "--json").stdout) == answer


def test_no_rejections_is_good_news(medkg: Medkg, gateway: respx.MockRouter) -> None:
    gateway.get("/v1/rejections").respond(json={"rejections": []})
    assert "no job event was rejected" in medkg("rejections").stdout
